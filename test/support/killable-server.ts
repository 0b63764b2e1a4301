import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureBuilt } from "../../scripts/build.mjs";
import { type RunningExample, startProcess } from "../../scripts/examples.ts";
import { isPostmasterOf, readPidFile } from "../../server/storage/private/postmaster.ts";

/** Starts in half the time that the sources take. */
const BUNDLE = join(import.meta.dirname, "..", "..", "client", "dist", "bundle", "toolplane.js");

/** The real server in a process of its own, with the same data and the same address from start to start. */
export interface KillableServer {
  readonly url: string;
  /** Kills the server. */
  kill(): Promise<void>;
  /** Kills the server if it runs, and starts it again. */
  restart(): Promise<void>;
  /** Kills its database, which it has to start again by itself. */
  killDatabase(): Promise<void>;
  /** Stops it, and removes its data. */
  close(): Promise<void>;
}

/**
 * @param config `ServerConfig`
 * @param env comes on top of what is needed to start, such as `TOOLPLANE_DATABASE_URL`
 */
export async function startKillableServer(
  config: object = {},
  env: Readonly<Record<string, string>> = {},
): Promise<KillableServer> {
  await ensureBuilt();
  const folder = await mkdtemp(join(tmpdir(), "toolplane-killable-"));
  const configFile = join(folder, "server.yaml");
  // JSON is YAML.
  await writeFile(configFile, JSON.stringify(config));
  const dataDir = join(folder, "data");
  const port = await freePort();
  const start = () =>
    startProcess(
      [process.execPath, BUNDLE, "serve"],
      {
        TOOLPLANE_LISTEN: `127.0.0.1:${port}`,
        TOOLPLANE_DATA_DIR: dataDir,
        TOOLPLANE_CONFIG: configFile,
        // Compiling the same code at every start would take most of the time.
        NODE_COMPILE_CACHE: join(folder, "compiled"),
        ...env,
      },
      /Address\s+(http:\S+)/,
    );
  const removeFolder = () => rm(folder, { recursive: true, force: true, maxRetries: 5 });
  let running: RunningExample;
  try {
    running = await start();
  } catch (error) {
    await removeFolder();
    throw error;
  }
  return {
    url: running.url,
    kill: () => running.kill(),
    async restart() {
      await running.kill();
      running = await start();
    },
    async killDatabase() {
      const cluster = join(dataDir, "postgres");
      const postmaster = await readPidFile(cluster);
      if (postmaster !== undefined && (await isPostmasterOf(postmaster.pid, cluster))) {
        process.kill(postmaster.pid, "SIGKILL");
      }
    },
    async close() {
      await running.stop();
      await removeFolder();
    },
  };
}

/** A port that no connection is given by chance while the server is down. */
async function freePort(): Promise<number> {
  for (;;) {
    // Below those that systems give to clients: 32768 and up on Linux, 49152 and up elsewhere.
    const port = randomInt(20_000, 32_000);
    const probe = createServer().listen(port, "127.0.0.1");
    const isFree = await once(probe, "listening").then(
      () => true,
      () => false,
    );
    await new Promise((resolve) => probe.close(resolve));
    if (isFree) {
      return port;
    }
  }
}
