import { type Dialect, PostgresDialect, type PostgresPool, type PostgresPoolClient } from "kysely";
import pg from "pg";
import { databaseUnavailable, endsSession, toDatabaseError } from "./database-error.ts";

/** How many callers may wait for one of the pool's connections. Each waits no longer than the pool's deadline. */
const MAX_WAITING = 2_000;

/**
 * PostgreSQL through `pg`, with every error passed through `toDatabaseError`. While `outage` returns an error, statements
 * fail with it at once instead of waiting for a connection.
 */
export function createDialect(pool: pg.Pool, outage: () => Error | undefined): Dialect {
  // Kysely recognises a connection by its client, so a client keeps its wrapper.
  const wrappers = new WeakMap<pg.PoolClient, PostgresPoolClient>();
  const translating: PostgresPool = {
    Client: pg.Client,
    options: pool.options,
    end: () => pool.end(),
    async connect() {
      const error = outage();
      if (error !== undefined) {
        throw error;
      }
      if (pool.waitingCount >= MAX_WAITING) {
        throw databaseUnavailable("too many requests wait for the database");
      }
      const client = await translated(pool.connect());
      const known = wrappers.get(client);
      if (known !== undefined) {
        return known;
      }
      const wrapper = translatingClient(client);
      wrappers.set(client, wrapper);
      return wrapper;
    },
  };
  return new PostgresDialect({ pool: translating });
}

function translatingClient(client: pg.PoolClient): PostgresPoolClient {
  // What ended the session. It is repeated for later statements: otherwise the failing ROLLBACK that follows would hide
  // the reason from the caller of a transaction.
  let ended: unknown;
  return {
    release: (destroy) => client.release(destroy === true || ended !== undefined),
    // The cast hides the overload that takes a cursor, which the dialect is made without.
    query: (async (sql: string, parameters: unknown[]) => {
      if (ended !== undefined) {
        throw ended;
      }
      try {
        return await client.query(sql, parameters);
      } catch (error) {
        const translation = toDatabaseError(error);
        if (endsSession(error)) {
          ended = translation;
        }
        throw translation;
      }
    }) as unknown as PostgresPoolClient["query"],
  };
}

async function translated<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw toDatabaseError(error);
  }
}
