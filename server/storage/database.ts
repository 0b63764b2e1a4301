import { type Clock, systemClock } from "@toolplane/framework";
import { Kysely, sql } from "kysely";
import pg from "pg";
import type { Logger } from "pino";
import { databaseUnavailable } from "./database-error.ts";
import { createDialect } from "./dialect.ts";
import { Listener } from "./listener.ts";
import { migrate } from "./migrate.ts";
import { type Migration, migrations } from "./migrations/index.ts";
import { type PrivatePostgres, startPrivatePostgres } from "./private-postgres.ts";
import { explainConnectError, parseDatabaseUrl } from "./shared-postgres.ts";
import type { Tables } from "./tables.ts";

const POOL_SIZE = 10;
/** Both for opening a connection and for waiting until one is free. */
const CONNECTION_TIMEOUT_MS = 5_000;
/** How long one statement may run, wait for a lock, or leave its transaction idle. */
const STATEMENT_TIMEOUT_MS = 30_000;
const LOCK_TIMEOUT_MS = 10_000;
/** Shorter than others wait for a lock: a process that is frozen in a transaction must not hold up those that are well. */
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 8_000;
/** When the server has not ended a statement by itself, the connection is given up. */
const QUERY_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 5_000;
const IDLE_CONNECTION_TIMEOUT_MS = 60_000;
const PING_TIMEOUT_MS = 2_000;
/** How long statements that still run may hold up closing. */
const CLOSE_TIMEOUT_MS = 5_000;

export interface DatabaseOptions {
  /** A shared PostgreSQL. Undefined: a private one that lives in `dataDir`. */
  readonly url?: string | undefined;
  /** The folder of the private PostgreSQL; created when missing. */
  readonly dataDir: string;
  readonly logger: Logger;
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** The schema. Default: that of all domains. */
  readonly migrations?: readonly Migration[] | undefined;
}

/** An open database with the schema that the code wants. */
export interface Database {
  /** Every error of its queries has gone through `toDatabaseError`. */
  readonly kysely: Kysely<Tables>;
  readonly kind: "private" | "shared";
  /** The connections, for libraries that write their own statements. Errors are the driver's. */
  readonly connections: Pick<pg.Pool, "query">;
  /**
   * Calls back for every notification on a channel. `onReconnect` is called after the connection was lost and is back:
   * notifications may have been missed, so the listener has to read what it follows again.
   */
  listen(
    channel: string,
    onPayload: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<{ close(): Promise<void> }>;
  /** Resolves if the database answers within 2 s; otherwise throws UNAVAILABLE. */
  ping(): Promise<void>;
  /** Closes all connections and stops the private server. */
  close(): Promise<void>;
}

/**
 * Opens the database and brings its schema up to date. A mistake in the configuration throws FAILED_PRECONDITION that names
 * what to change.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { logger, dataDir, url } = options;
  const clock = options.clock ?? systemClock;
  const server = url === undefined ? await startPrivatePostgres({ dataDir, logger, clock }) : undefined;
  const config: pg.ClientConfig = url === undefined ? { ...server?.address } : parseDatabaseUrl(url);
  const database = new OpenDatabase(config, server, logger, clock);
  try {
    await database.connect();
    // Migrations know nothing of the present tables.
    const untyped = database.kysely as unknown as Kysely<unknown>;
    await migrate(config, untyped, options.migrations ?? migrations, logger);
  } catch (error) {
    await database.close();
    throw error;
  }
  return database;
}

class OpenDatabase implements Database {
  readonly kysely: Kysely<Tables>;
  readonly kind: "private" | "shared";
  readonly connections: Pick<pg.Pool, "query">;
  readonly #config: pg.ClientConfig;
  readonly #server: PrivatePostgres | undefined;
  readonly #pool: pg.Pool;
  readonly #listener: Listener;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #closing: Promise<void> | undefined;

  constructor(config: pg.ClientConfig, server: PrivatePostgres | undefined, logger: Logger, clock: Clock) {
    this.kind = server === undefined ? "shared" : "private";
    this.#config = config;
    this.#server = server;
    this.#logger = logger;
    this.#clock = clock;
    this.#pool = new pg.Pool({
      ...config,
      max: POOL_SIZE,
      application_name: "toolplane",
      connectionTimeoutMillis: CONNECTION_TIMEOUT_MS,
      idleTimeoutMillis: IDLE_CONNECTION_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      lock_timeout: LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
      keepAlive: true,
    });
    // An error that nobody listens to would end the process, and the pool listens only while a connection is idle.
    const lost = (error: Error) => logger.debug({ err: error }, "lost a database connection");
    this.#pool.on("error", lost);
    this.#pool.on("connect", (client) => client.on("error", lost));
    this.connections = this.#pool;
    this.kysely = new Kysely<Tables>({ dialect: createDialect(this.#pool, () => server?.outage()) });
    this.#listener = new Listener(config, logger, clock);
  }

  /** Opens the first connection, so that mistakes in a URL show at once. */
  async connect(): Promise<void> {
    try {
      (await this.#pool.connect()).release();
    } catch (error) {
      throw this.#server === undefined ? explainConnectError(error, this.#config) : error;
    }
  }

  listen(
    channel: string,
    onPayload: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<{ close(): Promise<void> }> {
    return this.#listener.listen(channel, onPayload, onReconnect);
  }

  async ping(): Promise<void> {
    const answer = sql`select 1`.execute(this.kysely);
    await this.#within(PING_TIMEOUT_MS, answer, () => {
      throw databaseUnavailable(`the database did not answer within ${PING_TIMEOUT_MS} ms`);
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#within(CLOSE_TIMEOUT_MS, Promise.all([this.#listener.close(), this.#pool.end()]), () =>
      this.#logger.warn("closing the database although statements still run"),
    );
    await this.#server?.stop();
  }

  /** Waits for work no longer than `ms`; after that `onTimeout` decides. */
  async #within(ms: number, work: Promise<unknown>, onTimeout: () => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const cancel = this.#clock.after(ms, () => {
      try {
        resolve(onTimeout());
      } catch (error) {
        reject(error);
      }
    });
    work.then(() => resolve(), reject);
    await promise.finally(cancel);
  }
}
