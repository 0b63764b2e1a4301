import type { Clock } from "@toolplane/framework";
import { sql } from "kysely";
import type { Logger } from "pino";
import type { EventLog } from "../../event-log/event-log.ts";
import type { Database } from "../../storage/database.ts";

/** Time between two looks. */
const LOOK_INTERVAL_MS = 60_000;
/** Runs that are deleted in one transaction. */
const DELETED_AT_ONCE = 10;
/** What is left then is for the next time. */
const MAX_PARTS = 500;

export interface RunRetentionOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: Pick<EventLog, "remove">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long runs are kept after their end, in milliseconds. */
  readonly retentionMs: number;
}

export interface RunRetention {
  /** Deletes what is too old. Returns how many runs. */
  look(): Promise<number>;
  close(): Promise<void>;
}

/** Deletes runs that ended long ago, with their steps and events. */
export function startRunRetention(options: RunRetentionOptions): RunRetention {
  const { database, eventLog, clock, logger, retentionMs } = options;
  const { kysely } = database;
  let closed = false;
  let cancel = () => {};
  let looking: Promise<unknown> = Promise.resolve();

  async function look(): Promise<number> {
    let deleted = 0;
    for (let part = 0; part < MAX_PARTS && !closed; part++) {
      const ids = await findOutdated();
      if (ids.length === 0) {
        break;
      }
      deleted += await deleteRuns(ids);
    }
    if (deleted > 0) {
      logger.info({ runs: deleted }, "deleted old runs");
    }
    return deleted;
  }

  async function findOutdated(): Promise<readonly string[]> {
    const rows = await kysely
      .selectFrom("runs")
      .select("id")
      .where("end_time", "<", sql<Date>`now() - ${retentionMs}::float8 * interval '1 ms'`)
      .orderBy("end_time")
      .limit(DELETED_AT_ONCE)
      .execute();
    return rows.map(({ id }) => id);
  }

  function deleteRuns(ids: readonly string[]): Promise<number> {
    return kysely.transaction().execute(async (transaction) => {
      // First the streams, as appends lock them. The steps go with the runs.
      await eventLog.remove(transaction, ids);
      const { numDeletedRows } = await transaction
        .deleteFrom("runs")
        .where("id", "in", ids)
        .executeTakeFirstOrThrow();
      return Number(numDeletedRows);
    });
  }

  function schedule(): void {
    if (!closed) {
      cancel = clock.after(LOOK_INTERVAL_MS, () => {
        looking = look()
          .catch((error: unknown) => logger.warn({ err: error }, "could not delete old runs"))
          .then(schedule);
      });
    }
  }
  schedule();

  return {
    look,
    async close() {
      closed = true;
      cancel();
      await looking;
    },
  };
}
