import type { Clock } from "@toolplane/framework";
import { sql } from "kysely";
import type { Logger } from "pino";
import type { EventLog } from "../event-log/event-log.ts";
import type { Database } from "../storage/database.ts";

/** Time between two looks. */
const LOOK_INTERVAL_MS = 60_000;
/** Runs that are deleted in one transaction. */
const DELETED_AT_ONCE = 10;
/** What is left then is for the next time. */
const MAX_PARTS = 50;

export interface RetentionOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: Pick<EventLog, "remove">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long runs are kept after their end, in milliseconds. */
  readonly retentionMs: number;
  /** How many runs of a project are kept. */
  readonly maxRunsPerProject: number;
}

export interface Retention {
  /** Deletes what is too old or too much. Returns how many runs. */
  look(): Promise<number>;
  close(): Promise<void>;
}

/** Deletes runs with their results and events: those that ended long ago, and the oldest where a project has too many. */
export function startRetention(options: RetentionOptions): Retention {
  const { database, eventLog, clock, logger, retentionMs, maxRunsPerProject } = options;
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
      await forgetCases();
      logger.info({ runs: deleted }, "deleted old test runs");
    }
    return deleted;
  }

  async function findOutdated(): Promise<readonly string[]> {
    const { rows } = await sql<{ id: string }>`
      SELECT id FROM test_runs WHERE end_time < now() - ${retentionMs}::float8 * interval '1 ms'
      UNION
      SELECT id FROM (
        SELECT id, end_time, row_number() OVER (PARTITION BY project ORDER BY number DESC) AS place FROM test_runs
      ) AS ranked
      WHERE place > ${maxRunsPerProject} AND end_time IS NOT NULL
      LIMIT ${DELETED_AT_ONCE}
    `.execute(database.kysely);
    return rows.map(({ id }) => id);
  }

  function deleteRuns(ids: readonly string[]): Promise<number> {
    return database.kysely.transaction().execute(async (transaction) => {
      // First the streams, as appends lock them: nobody writes to the runs from then on.
      await eventLog.remove(transaction, ids);
      const { numAffectedRows = 0n } = await sql`
        DELETE FROM test_runs WHERE id = ANY (${ids}::text[])
      `.execute(transaction);
      return Number(numAffectedRows);
    });
  }

  /** Tests of which no result can be left. */
  async function forgetCases(): Promise<void> {
    await sql`
      DELETE FROM test_cases WHERE NOT EXISTS (
        SELECT FROM test_results WHERE test_results.test_id = test_cases.test_id
      )
    `.execute(database.kysely);
  }

  function schedule(): void {
    if (!closed) {
      cancel = clock.after(LOOK_INTERVAL_MS, () => {
        looking = look()
          .catch((error: unknown) => logger.warn({ err: error }, "could not delete old test runs"))
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
