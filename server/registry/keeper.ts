import type { Clock } from "@toolplane/framework";
import { type Kysely, sql } from "kysely";
import type { Logger } from "pino";
import type { Tables } from "../storage/tables.ts";

/** The pair of numbers that stands for keeping house in the registry. */
const KEEPER_LOCK = [0x746f6f6c, 3] as const;
/** How often a replica without the lock asks for it, and the one with it checks that it still has it. */
const TURN_MS = 1_000;

/** What one replica at a time does for all: checks, refreshes, expiry. */
export interface Duties {
  /** Called when this replica takes over: at its start, or after the one before is gone or was cut off. */
  begin(): Promise<void>;
  /** Called about every second in between. */
  turn(): Promise<void>;
  /** Called when it is not this replica's turn any more. Resolves when nothing goes on. */
  end(): Promise<void>;
}

export interface KeeperOptions {
  readonly kysely: Kysely<Tables>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly duties: Duties;
}

/**
 * Elects one of the replicas that share a database: the one whose session holds an advisory lock. PostgreSQL lets go of
 * the lock when the session ends, so another replica takes over about a second after one has died.
 */
export function startKeeper({ kysely, clock, logger, duties }: KeeperOptions): { close(): Promise<void> } {
  const closing = Promise.withResolvers<void>();
  let closed = false;

  /** Waits for the next turn, or for the end. */
  async function pause(): Promise<void> {
    if (closed) {
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.after(TURN_MS, resolve);
    await Promise.race([promise, closing.promise]);
    cancel();
  }

  async function serve(): Promise<void> {
    await kysely.connection().execute(async (session) => {
      const { rows } = await sql<{ held: boolean }>`
        SELECT pg_try_advisory_lock(${KEEPER_LOCK[0]}::int, ${KEEPER_LOCK[1]}::int) AS held
      `.execute(session);
      if (!rows[0]?.held) {
        return;
      }
      try {
        await duties.begin();
        while (!closed) {
          await pause();
          // Fails when the session, and with it the lock, is lost.
          await sql`SELECT 1`.execute(session);
          await duties.turn();
        }
      } finally {
        await duties.end();
        await sql`SELECT pg_advisory_unlock(${KEEPER_LOCK[0]}::int, ${KEEPER_LOCK[1]}::int)`.execute(session);
      }
    });
  }

  async function run(): Promise<void> {
    while (!closed) {
      try {
        await serve();
      } catch (error) {
        if (!closed) {
          logger.warn({ err: error }, "leases and health are not looked after now; trying again");
        }
      }
      await pause();
    }
  }

  const running = run();
  return {
    async close() {
      closed = true;
      closing.resolve();
      await running;
    },
  };
}
