import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { storageConfigurationError } from "../configuration-error.ts";
import { databaseUnavailable } from "../database-error.ts";
import { codeOf } from "../error-code.ts";
import type { Identity } from "./location.ts";

/** Nothing of our own environment: `PGPORT` and the like would change what the programs do. */
const environment = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };

export interface ProgramOptions {
  readonly identity: Identity | undefined;
  readonly cwd: string;
  /** A file descriptor for what the program prints; undefined: it can be read from the process. */
  readonly output?: number;
}

/** Starts one of PostgreSQL's programs in a session of its own, so that Ctrl-C in a terminal reaches only us. */
export function startProgram(file: string, args: readonly string[], options: ProgramOptions): ChildProcess {
  const output = options.output ?? "pipe";
  return spawn(file, args, {
    cwd: options.cwd,
    detached: true,
    env: environment,
    stdio: ["ignore", output, output],
    ...options.identity,
  });
}

/** Explains why a program could not be started at all. */
export function explainSpawnError(error: unknown, options: ProgramOptions): unknown {
  const code = codeOf(error);
  const advice = "or set TOOLPLANE_DATABASE_URL to use another PostgreSQL";
  if (code === "ENOENT" && !existsSync(options.cwd)) {
    return databaseUnavailable(`${options.cwd}, which the database is kept in, does not exist`, error);
  }
  if (code === "ENOENT") {
    // The file is there, so it is the loader that it names which is not.
    return storageConfigurationError(
      "PRIVATE_DATABASE_UNSUPPORTED",
      "TOOLPLANE_DATABASE_URL",
      `the private PostgreSQL cannot run on this system, for instance because it lacks glibc; install that, ${advice}`,
      error,
    );
  }
  if ((code === "EPERM" || code === "EINVAL" || code === "EACCES") && options.identity !== undefined) {
    return storageConfigurationError(
      "PRIVATE_DATABASE_UNSUPPORTED",
      "TOOLPLANE_DATABASE_URL",
      `the private PostgreSQL cannot run as root, and running it as user ${options.identity.uid} failed (${code}); start as an ordinary user, ${advice}`,
      error,
    );
  }
  return error;
}
