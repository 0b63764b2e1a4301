import { rmdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import pg from "pg";
import type { Logger } from "pino";
import { storageConfigurationError } from "./configuration-error.ts";
import { databaseUnavailable, diskFull, endsSession, toDatabaseError } from "./database-error.ts";
import { codeOf } from "./error-code.ts";
import { findBinaries, reachableBinaries } from "./private/binaries.ts";
import { ensureCluster, ROLE, removeUnfinishedClusters } from "./private/cluster.ts";
import { locate, prepareSocketDir, unusableDataDir } from "./private/location.ts";
import {
  isPostmasterOf,
  PORT,
  type PostmasterOptions,
  readComplaints,
  readPidFile,
  removeStaleLocks,
  type StartedPostmaster,
  startPostmaster,
} from "./private/postmaster.ts";

/** Recovery after a crash reads what was written since the last checkpoint, at most `max_wal_size`. */
const START_TIMEOUT_MS = 120_000;
/** How long a fast shutdown may take before it is made an immediate one, which costs a recovery at the next start. */
const FAST_STOP_TIMEOUT_MS = 10_000;
const IMMEDIATE_STOP_TIMEOUT_MS = 5_000;
/** A session of an owner that was killed ends within milliseconds; whoever holds the lock longer is alive. */
const LOCK_TIMEOUT_MS = 1_000;
/** The pair of numbers that stands for owning the server. */
const OWNER_LOCK = [0x746f6f6c, 1] as const;
/** Pause between two attempts to bring the server back. */
const MIN_RESTART_DELAY_MS = 50;
const MAX_RESTART_DELAY_MS = 5_000;

/** Where a PostgreSQL can be reached through its socket. */
export interface SocketAddress {
  /** The folder that the socket is in. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly ssl: false;
}

/** A PostgreSQL server of our own, kept alive until it is stopped. */
export interface PrivatePostgres {
  readonly address: SocketAddress;
  /** Why the server cannot be used now; undefined while it can. */
  outage(): DomainError | undefined;
  /** Shuts the server down so that its next start needs no recovery. */
  stop(): Promise<void>;
}

export interface PrivatePostgresOptions {
  /** Holds the cluster and its log; created when missing. */
  readonly dataDir: string;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Where root puts PostgreSQL's programs when the user who runs them cannot reach them. Default: `/var/lib/toolplane`. */
  readonly systemDir?: string;
  /** Our pool takes 10; each connection costs a process. Default: 30. */
  readonly maxConnections?: number;
}

/**
 * Starts the PostgreSQL of a data directory, or adopts the one that a killed owner left running.
 *
 * The owner holds an advisory lock in a session of its own. The lock ends with the session however the owner ends, so it
 * can neither be lost nor left behind.
 */
export async function startPrivatePostgres(options: PrivatePostgresOptions): Promise<PrivatePostgres> {
  const { location, binaries, socketDir } = await prepare(options).catch((error: unknown) => {
    throw explainFileError(error, options.dataDir);
  });
  const { cluster, identity, logFile } = location;
  const maxConnections = options.maxConnections ?? 30;
  const postmaster = { binaries, cluster, socketDir, logFile, identity, maxConnections };
  const server = new Server(postmaster, location.dataDir, options.logger, options.clock);
  await server.start().catch((error: unknown) => {
    throw explainFileError(error, options.dataDir);
  });
  await removeUnfinishedClusters(location, options.logger);
  return server;
}

async function prepare(options: PrivatePostgresOptions) {
  const location = await locate(options.dataDir);
  const { cluster, identity } = location;
  const systemDir = options.systemDir ?? "/var/lib/toolplane";
  const binaries = await reachableBinaries(findBinaries(), identity, systemDir);
  await ensureCluster(location, binaries);
  // A running server may have been started by a process that has another folder for temporary files.
  const file = await readPidFile(cluster);
  const running = file !== undefined && (await isPostmasterOf(file.pid, cluster));
  const socketDir = running ? file.socketDir : await prepareSocketDir(cluster, identity);
  return { location, binaries, socketDir };
}

/** `/proc` calls "not there" what cannot be created in it. */
const unwritable = new Set(["EACCES", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS"]);

function explainFileError(error: unknown, dataDir: string): unknown {
  const code = codeOf(error);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return diskFull(error);
  }
  return code !== undefined && unwritable.has(code)
    ? unusableDataDir(dataDir, `cannot be created or written to (${code})`, error)
    : error;
}

class Server implements PrivatePostgres {
  readonly address: SocketAddress;
  readonly #options: PostmasterOptions;
  readonly #dataDir: string;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #stopping = new AbortController();
  /** The process that we started and have not been able to use yet. */
  #started: StartedPostmaster | undefined;
  /** Whether we hold the lock. */
  #owning = false;
  #recovery: Promise<void> = Promise.resolve();
  #outage: DomainError | undefined;

  constructor(options: PostmasterOptions, dataDir: string, logger: Logger, clock: Clock) {
    this.#options = options;
    this.#dataDir = dataDir;
    this.#logger = logger;
    this.#clock = clock;
    this.address = { host: options.socketDir, port: PORT, user: ROLE, database: "postgres", ssl: false };
  }

  outage(): DomainError | undefined {
    return this.#outage;
  }

  async start(): Promise<void> {
    const begun = this.#clock.monotonic();
    const how = await this.#own();
    const ms = Math.round(this.#clock.monotonic() - begun);
    this.#logger.info({ dataDir: this.#dataDir, ms }, `private PostgreSQL ${how}`);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#recovery;
    const { cluster, socketDir } = this.#options;
    // A server that was lost and is being started again may not have written its file yet. One that has got another owner
    // meanwhile is not ours to stop.
    const pid = this.#started?.pid ?? (this.#owning ? (await readPidFile(cluster))?.pid : undefined);
    if (pid === undefined) {
      return;
    }
    if (await isPostmasterOf(pid, cluster)) {
      await this.#shutDown(pid);
    }
    if (socketDir !== cluster) {
      await rmdir(socketDir).catch((error: unknown) =>
        this.#logger.warn({ err: error, socketDir }, "cannot remove the folder of PostgreSQL's socket"),
      );
    }
  }

  async #shutDown(pid: number): Promise<void> {
    // The lock is held until the server ends it, so nobody adopts a server that is being shut down.
    process.kill(pid, "SIGINT");
    if (await this.#ended(pid, FAST_STOP_TIMEOUT_MS)) {
      return;
    }
    this.#logger.warn({ pid }, "private PostgreSQL does not stop; stopping it at once");
    process.kill(pid, "SIGQUIT");
    if (!(await this.#ended(pid, IMMEDIATE_STOP_TIMEOUT_MS))) {
      throw new Error(`PostgreSQL, process ${pid}, does not stop`);
    }
  }

  async #ended(pid: number, timeoutMs: number): Promise<boolean> {
    const deadline = this.#clock.monotonic() + timeoutMs;
    while (await isPostmasterOf(pid, this.#options.cluster)) {
      if (this.#clock.monotonic() > deadline) {
        return false;
      }
      await sleep(5);
    }
    return true;
  }

  /** Connects and takes the lock, starting the server when there is none. */
  async #own(): Promise<"started" | "adopted"> {
    const deadline = this.#clock.monotonic() + START_TIMEOUT_MS;
    for (;;) {
      const client = new pg.Client({
        ...this.address,
        application_name: `toolplane owner ${process.pid}`,
        connectionTimeoutMillis: 5_000,
        lock_timeout: LOCK_TIMEOUT_MS,
      });
      client.on("error", (error) =>
        this.#logger.debug({ err: error }, "lost the session that owns PostgreSQL"),
      );
      try {
        await client.connect();
        await takeLock(client, this.#dataDir);
      } catch (error) {
        void client.end().catch(() => undefined); // it may never have been connected
        if (!isTransient(error) || this.#clock.monotonic() > deadline) {
          throw error;
        }
        await this.#advance(error);
        continue;
      }
      client.once("end", () => {
        this.#owning = false;
        if (!this.#stopping.signal.aborted) {
          this.#recovery = this.#recover();
        }
      });
      const how = this.#started === undefined ? "adopted" : "started";
      this.#started = undefined;
      this.#owning = true;
      this.#outage = undefined;
      return how;
    }
  }

  /** Does what brings the server nearer to accepting connections. */
  async #advance(error: unknown): Promise<void> {
    this.#stopping.signal.throwIfAborted();
    if (this.#started === undefined) {
      if (!isNobodyListening(error)) {
        await sleep(10); // it starts or stops; both end by themselves
        return;
      }
      this.#started = await startPostmaster(this.#options);
    }
    await this.#readyOrEnded(this.#started);
  }

  async #readyOrEnded(started: StartedPostmaster): Promise<void> {
    for (let round = 0; ; round++) {
      await sleep(round < 100 ? 2 : 20);
      this.#stopping.signal.throwIfAborted();
      const failure = started.failure();
      if (failure !== undefined) {
        this.#started = undefined;
        throw failure;
      }
      if (started.exited()) {
        this.#started = undefined;
        const signal = started.signal();
        if (signal !== null) {
          // Nothing that is configured is to blame, so whoever asks is to try again.
          throw databaseUnavailable(`the private PostgreSQL was ended by ${signal} while it started`);
        }
        await this.#explainExit(started);
        return;
      }
      const file = await readPidFile(this.#options.cluster);
      if (file?.ready === true && file.pid === started.pid) {
        return;
      }
    }
  }

  /** Returns when starting again makes sense; throws the reason otherwise. */
  async #explainExit({ logOffset }: StartedPostmaster): Promise<void> {
    const text = await readComplaints(this.#options.logFile, logOffset);
    if (/lock file .* already exists|pre-existing shared memory block|shutting down|terminating/.test(text)) {
      // Another server of this cluster is there, or its last processes are just about to end.
      await removeStaleLocks(this.#options.cluster, this.#options.socketDir);
      await sleep(20);
      return;
    }
    if (text.includes("No space left on device")) {
      throw diskFull(new Error(text));
    }
    throw storageConfigurationError(
      "DATABASE_NOT_STARTED",
      "TOOLPLANE_DATA_DIR",
      `the private PostgreSQL in ${this.#dataDir} did not start: ${text || "it left no message"} (log: ${this.#options.logFile})`,
    );
  }

  async #recover(): Promise<void> {
    const begun = this.#clock.monotonic();
    this.#outage = databaseUnavailable("the database has stopped and is being restarted");
    this.#logger.warn("private PostgreSQL has stopped; restarting it");
    for (let delay = MIN_RESTART_DELAY_MS; !this.#stopping.signal.aborted; ) {
      try {
        await this.#own();
        const ms = Math.round(this.#clock.monotonic() - begun);
        this.#logger.info({ ms }, "private PostgreSQL is back");
        return;
      } catch (error) {
        if (this.#stopping.signal.aborted) {
          return;
        }
        const outage = toDatabaseError(error);
        this.#outage =
          outage instanceof DomainError ? outage : databaseUnavailable("the database is down", error);
        this.#logger.error({ err: error }, "private PostgreSQL could not be restarted");
        await this.#pause(delay);
        delay = Math.min(delay * 2, MAX_RESTART_DELAY_MS);
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    const { signal } = this.#stopping;
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.after(ms, () => {
        signal.removeEventListener("abort", stop);
        resolve();
      });
      const stop = () => {
        cancel();
        resolve();
      };
      signal.addEventListener("abort", stop, { once: true });
    });
  }
}

async function takeLock(client: pg.Client, dataDir: string): Promise<void> {
  try {
    await client.query("select pg_advisory_lock($1, $2)", [...OWNER_LOCK]);
  } catch (error) {
    if (!(error instanceof pg.DatabaseError) || error.code !== "55P03") {
      throw error;
    }
    const { rows } = await client.query<{ application_name: string }>(
      `select application_name from pg_locks join pg_stat_activity using (pid)
       where locktype = 'advisory' and granted and classid = $1 and objid = $2`,
      [...OWNER_LOCK],
    );
    const pid = rows[0]?.application_name.split(" ").at(-1) ?? "unknown";
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "DATA_DIRECTORY_IN_USE",
      message: `data directory ${dataDir} is in use by process ${pid}; stop it, or set TOOLPLANE_DATA_DIR to another folder`,
      metadata: { pid },
      preconditions: [
        {
          type: "CONFIGURATION",
          subject: "TOOLPLANE_DATA_DIR",
          description: `Stop process ${pid}, or choose another folder.`,
        },
      ],
    });
  }
}

/** Whether an error passes once the server has started, or has been started. */
function isTransient(error: unknown): boolean {
  if (error instanceof pg.DatabaseError) {
    // It starts or stops, or sessions of a killed owner still take up the connections.
    return error.code?.startsWith("57P") === true || error.code === "53300";
  }
  return codeOf(error) !== "EACCES" && endsSession(error);
}

function isNobodyListening(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ECONNREFUSED";
}
