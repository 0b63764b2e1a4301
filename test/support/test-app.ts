import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, type Logger, systemClock } from "@toolplane/framework";
import { type App, createApp, loadSettings } from "@toolplane/server";
import { parse } from "yaml";

export interface TestAppOptions {
  /**
   * `ServerConfig` in YAML. Unless it has a word on `inbound`, callers are not limited; `inbound: {}` limits them as
   * servers do by default.
   */
  readonly config?: string;
  /** Where data are kept that outlive the app. Default: a folder that goes with it. */
  readonly dataDir?: string;
  /** Default: a private PostgreSQL in the data directory. */
  readonly databaseUrl?: string;
  /** The environment that is configured from and that secrets are read from. Default: empty. */
  readonly env?: NodeJS.ProcessEnv;
  /** Default: one that says errors only. */
  readonly logger?: Logger;
}

/** A whole server on a free port. */
export interface TestApp extends App {
  /** Stops the server and removes its data, unless they are in a folder of the test's own. */
  close(): Promise<void>;
}

const unlimited = { unlimited: true };
const limitsLifted = {
  global: unlimited,
  per_caller: unlimited,
  services: { "toolplane.testing.v1.TestRunService": unlimited },
  concurrency: { disabled: true },
};

export async function startTestApp(options: TestAppOptions = {}): Promise<TestApp> {
  const { databaseUrl, env = {}, logger = createLogger({ level: "error" }) } = options;
  const folder = await mkdtemp(join(tmpdir(), "toolplane-app-"));
  const removeFolder = () => rm(folder, { recursive: true, force: true });
  try {
    // JSON is YAML.
    const config = { inbound: limitsLifted, ...parse(options.config ?? "{}") };
    const file = join(folder, "server.yaml");
    await writeFile(file, JSON.stringify(config));
    const dataDir = options.dataDir ?? join(folder, "data");
    const app = await createApp({
      settings: loadSettings({ listen: "127.0.0.1:0", config: file, dataDir, databaseUrl }, env),
      clock: systemClock,
      env,
      logger,
    });
    return {
      ...app,
      async close() {
        await app.close();
        await removeFolder();
      },
    };
  } catch (error) {
    await removeFolder();
    throw error;
  }
}
