import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, systemClock } from "@toolplane/framework";
import { type App, createApp, loadSettings } from "@toolplane/server";

/** A whole server on a free port, with a private PostgreSQL in a folder of its own. */
export interface TestApp extends App {
  /** Stops the server and removes its data. */
  close(): Promise<void>;
}

export async function startTestApp(): Promise<TestApp> {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-app-"));
  const settings = loadSettings({ listen: "127.0.0.1:0", dataDir }, {});
  const app = await createApp({
    settings,
    clock: systemClock,
    env: {},
    logger: createLogger({ level: "error" }),
  });
  return {
    ...app,
    async close() {
      await app.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
