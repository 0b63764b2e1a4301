import { existsSync } from "node:fs";
import { chown, mkdtemp, open, readdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Logger } from "pino";
import { storageConfigurationError } from "../configuration-error.ts";
import { diskFull } from "../database-error.ts";
import type { Binaries } from "./binaries.ts";
import { clusterArgument, type Location } from "./location.ts";
import { explainSpawnError, type ProgramOptions, startProgram } from "./programs.ts";

/** The only role that is used. */
export const ROLE = "toolplane";

const INITDB_TIMEOUT_MS = 120_000;

/**
 * Creates the cluster unless there is one. It is put together under another name and appears in one step, so being killed
 * half-way leaves nothing that looks like a cluster. Of several processes that do this at once, one wins.
 */
export async function ensureCluster(location: Location, binaries: Binaries): Promise<void> {
  if (existsSync(location.cluster)) {
    return;
  }
  const work = await mkdtemp(workPrefix(location));
  try {
    if (location.identity !== undefined) {
      await chown(work, location.identity.uid, location.identity.gid);
    }
    await initdb(work, location, binaries);
    await rename(work, location.cluster);
    const folder = await open(location.dataDir);
    await folder.sync().finally(() => folder.close());
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    if (!existsSync(location.cluster)) {
      throw error;
    }
  }
}

/** Removes what processes that were killed half-way left. Only the owner of the data directory may do this. */
export async function removeUnfinishedClusters(location: Location, logger: Logger): Promise<void> {
  const prefix = basename(workPrefix(location));
  for (const name of await readdir(location.dataDir)) {
    if (name.startsWith(prefix)) {
      const path = join(location.dataDir, name);
      await rm(path, { recursive: true, force: true }).catch((error: unknown) =>
        // The program that was creating it may still be at it. The next start tries again.
        logger.warn({ err: error, path }, "cannot remove an unfinished PostgreSQL cluster"),
      );
    }
  }
}

function workPrefix(location: Location): string {
  return `${location.cluster}.init-`;
}

async function initdb(work: string, location: Location, binaries: Binaries): Promise<void> {
  const args = [
    `--pgdata=${clusterArgument(work, location.identity)}`,
    `--username=${ROLE}`,
    // Whoever may enter the socket's folder may use the database; nothing listens on a network.
    "--auth-local=trust",
    "--auth-host=reject",
    "--encoding=UTF8",
    // Sorts and compares in the same way on every system, whatever its libraries are.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    // In MB. A quarter of the usual size keeps a small database small on disk.
    "--wal-segsize=4",
    "--no-instructions",
  ];
  const options: ProgramOptions = { identity: location.identity, cwd: work };
  const child = startProgram(binaries.initdb, args, options);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-4_000);
    });
  }
  const timer = setTimeout(() => child.kill("SIGKILL"), INITDB_TIMEOUT_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      child.on("error", (error) => reject(explainSpawnError(error, options)));
      child.on("close", (code) => (code === 0 ? resolve() : reject(initdbFailure(location, output))));
    });
  } finally {
    clearTimeout(timer);
  }
}

function initdbFailure(location: Location, output: string): Error {
  if (output.includes("No space left on device")) {
    return diskFull(new Error(output));
  }
  const reason = /(?:FATAL|PANIC|error): .*/.exec(output)?.[0] ?? output.trim().split("\n").at(-1);
  return storageConfigurationError(
    "DATABASE_NOT_CREATED",
    "TOOLPLANE_DATA_DIR",
    `the private PostgreSQL could not be created in ${location.dataDir}: ${reason}`,
    new Error(output),
  );
}
