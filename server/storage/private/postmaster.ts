import { execFile } from "node:child_process";
import { open, readFile, rename, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { codeOf } from "../error-code.ts";
import type { Binaries } from "./binaries.ts";
import { clusterArgument, digestOf, type Identity } from "./location.ts";
import { explainSpawnError, startProgram } from "./programs.ts";

/** The number in the socket's name. Nothing listens on TCP. */
export const PORT = 5432;

/** A log that has grown beyond this is set aside when the server starts; the one set aside before it goes. */
const MAX_LOG_BYTES = 1024 * 1024;

/** A server process to start. */
export interface PostmasterOptions {
  readonly binaries: Binaries;
  /** The real path. */
  readonly cluster: string;
  readonly socketDir: string;
  readonly logFile: string;
  readonly identity: Identity | undefined;
  readonly maxConnections: number;
}

/**
 * Durable first, then small, then quick to start. What is not named here keeps PostgreSQL's default; autovacuum does too,
 * since tables that every heartbeat updates need it.
 */
function settings({ cluster, socketDir, maxConnections }: PostmasterOptions): Record<string, string> {
  return {
    // An acknowledged change survives the loss of power. These are the defaults; nothing else may be said here.
    fsync: "on",
    synchronous_commit: "on",
    full_page_writes: "on",
    // Only we can reach it.
    listen_addresses: "",
    port: String(PORT),
    unix_socket_directories: socketDir === cluster ? "." : socketDir,
    unix_socket_permissions: "0700",
    cluster_name: clusterName(cluster),
    max_connections: String(maxConnections),
    shared_buffers: "32MB",
    max_wal_size: "256MB",
    min_wal_size: "16MB",
    // No replicas, hence less to write ahead and fewer helper processes.
    wal_level: "minimal",
    max_wal_senders: "0",
    max_worker_processes: "0",
    max_logical_replication_workers: "0",
    max_parallel_workers_per_gather: "0",
    io_method: "sync",
    huge_pages: "off",
    jit: "off",
    // Statements of a client that was killed end within this time instead of running on.
    client_connection_check_interval: "1s",
    timezone: "UTC",
    log_timezone: "UTC",
    // Failing statements are reported to us, who log them; here belongs what concerns the server.
    log_min_messages: "log",
    log_checkpoints: "off",
  };
}

/** Tells a server's process from others that have been given its number. */
function clusterName(cluster: string): string {
  return `toolplane_${digestOf(cluster)}`;
}

/** A server process that we started. It outlives us, so that killing us does not take the database down. */
export interface StartedPostmaster {
  readonly pid: number | undefined;
  /** Where in the log its messages begin. */
  readonly logOffset: number;
  /** Why it could not be started at all. */
  failure(): unknown;
  exited(): boolean;
  /** What ended it, when that was a signal: somebody killed it, or it crashed. */
  signal(): NodeJS.Signals | null;
}

export async function startPostmaster(options: PostmasterOptions): Promise<StartedPostmaster> {
  const { cluster, identity, logFile, binaries } = options;
  const logOffset = await rotate(logFile);
  const log = await open(logFile, "a", 0o600);
  try {
    const args = ["-D", clusterArgument(cluster, identity)];
    for (const [name, value] of Object.entries(settings(options))) {
      args.push("-c", `${name}=${value}`);
    }
    const programOptions = { identity, cwd: cluster, output: log.fd };
    const child = startProgram(binaries.postgres, args, programOptions);
    let failure: unknown;
    child.on("error", (error) => {
      failure = explainSpawnError(error, programOptions);
    });
    child.unref();
    return {
      pid: child.pid,
      logOffset,
      failure: () => failure,
      exited: () => child.exitCode !== null || child.signalCode !== null,
      signal: () => child.signalCode,
    };
  } finally {
    await log.close();
  }
}

/** Returns the size of the log that is to be continued. */
async function rotate(logFile: string): Promise<number> {
  const size = await stat(logFile).then(
    (found) => found.size,
    () => 0,
  );
  if (size <= MAX_LOG_BYTES) {
    return size;
  }
  await rename(logFile, `${logFile}.1`);
  return 0;
}

/** What a server writes about itself into its cluster. */
export interface PidFile {
  readonly pid: number;
  readonly socketDir: string;
  readonly ready: boolean;
}

/** Lines of `postmaster.pid`: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/utils/pidfile.h */
export async function readPidFile(cluster: string): Promise<PidFile | undefined> {
  const text = await readFile(join(cluster, "postmaster.pid"), "utf8").catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") {
      return "";
    }
    throw error;
  });
  const lines = text.split("\n");
  const pid = Number(lines[0]);
  return Number.isInteger(pid) && pid > 0
    ? { pid, socketDir: resolve(cluster, lines[4] ?? ""), ready: lines[7]?.trim() === "ready" }
    : undefined;
}

/** Whether a process is alive and is the server of a cluster; numbers are reused, above all in containers. */
export async function isPostmasterOf(pid: number, cluster: string): Promise<boolean> {
  const marker = `cluster_name=${clusterName(cluster)}`;
  if (process.platform === "linux") {
    // A process that has ended but was not waited for has an empty command line.
    const args = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    return args.split("\0").includes(marker);
  }
  const ps = promisify(execFile)("ps", ["-ww", "-o", "args=", "-p", String(pid)]);
  const { stdout } = await ps.catch(() => ({ stdout: "" }));
  return stdout.includes(marker);
}

/**
 * Removes lock files that name a process which is not the server of this cluster. PostgreSQL does so itself unless another
 * process has been given that number since; then it refuses to start.
 */
export async function removeStaleLocks(cluster: string, socketDir: string): Promise<void> {
  for (const file of [join(cluster, "postmaster.pid"), join(socketDir, `.s.PGSQL.${PORT}.lock`)]) {
    const pid = Number.parseInt(await readFile(file, "utf8").catch(() => ""), 10);
    if (pid > 0 && !(await isPostmasterOf(pid, cluster))) {
      await rm(file, { force: true });
    }
  }
}

/** What a log complains about from an offset on. */
export async function readComplaints(logFile: string, offset: number): Promise<string> {
  const text = (await readFile(logFile)).subarray(offset).toString("utf8");
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const telling = lines.filter((line) => /\b(FATAL|PANIC|DETAIL|HINT)\b/.test(line));
  return (telling.length > 0 ? telling : lines)
    .slice(-6)
    .map((line) => line.replace(/^\S+ \S+ \S+ \[\d+\] /, ""))
    .join("; ");
}
