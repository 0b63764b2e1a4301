import type { Clock } from "@toolplane/framework";
import {
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { sql } from "kysely";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import type { RunOutcome, Runs } from "./runs.ts";

/** Time between two looks. */
const LOOK_INTERVAL_MS = 2_000;
/** A look that comes so late was held up by something that may have held up reports too. */
const LATE_MS = 5_000;
/** How many runs are ended after one look; the others are for the next one. */
const ENDED_AT_ONCE = 100;
/** How long a run may wait for a server that runs its project. */
const MAX_WAIT = "1 day";

export interface ReaperOptions {
  readonly database: Pick<Database, "kysely">;
  readonly runs: Pick<Runs, "finish">;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface Reaper {
  /** Ends every run now that is lost. Returns how many. */
  look(): Promise<number>;
  close(): Promise<void>;
}

/** A run of which nothing was heard for too long. */
interface LostRun {
  readonly id: string;
  readonly origin: number;
  readonly owner: string | null;
  readonly lease_ms: number;
  readonly cancel_message: string | null;
}

/**
 * Ends runs that nobody reports or runs any more, on whichever replica notices first. A run is lost when its lease ran
 * out and this server could have heard of it for as long: after a start, or when the database was away, everyone gets the
 * time of a lease to speak up.
 */
export function startReaper({ database, runs, clock, logger }: ReaperOptions): Reaper {
  let hearsSince = clock.monotonic();
  let lastLook = clock.monotonic();
  let closed = false;
  let cancel = () => {};
  let looking: Promise<unknown> = Promise.resolve();

  async function look(): Promise<number> {
    const now = clock.monotonic();
    if (now - lastLook > LOOK_INTERVAL_MS + LATE_MS) {
      hearsSince = now;
    }
    lastLook = now;
    let ended = 0;
    for (const run of await findLost(now - hearsSince)) {
      try {
        await runs.finish(run.id, outcomeOf(run));
        ended += 1;
      } catch (error) {
        // The others are not to wait for this one.
        logger.warn({ err: error, run: run.id }, "could not end a lost test run");
      }
    }
    if (ended > 0) {
      logger.info({ runs: ended }, "ended test runs of which nothing was heard");
    }
    return ended;
  }

  async function findLost(hearingMs: number): Promise<readonly LostRun[]> {
    const query = sql<LostRun>`
      SELECT id, origin, owner, lease_ms, cancel_message FROM test_runs
      WHERE end_time IS NULL AND (
        (lease_until < now() AND lease_ms <= ${hearingMs}::float8)
        OR (state = ${TestRunState.QUEUED} AND owner IS NULL AND create_time < now() - ${MAX_WAIT}::interval)
      )
      ORDER BY number LIMIT ${ENDED_AT_ONCE}
    `;
    try {
      return (await query.execute(database.kysely)).rows;
    } catch (error) {
      // While the database is away, nobody can report.
      hearsSince = clock.monotonic();
      throw error;
    }
  }

  function schedule(): void {
    if (!closed) {
      cancel = clock.after(LOOK_INTERVAL_MS, () => {
        looking = look()
          .catch((error: unknown) => logger.warn({ err: error }, "could not look for lost test runs"))
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

function outcomeOf({ origin, owner, lease_ms, cancel_message }: LostRun): RunOutcome {
  if (cancel_message !== null) {
    return { reason: TestRunEndReason.CANCELLED, message: cancel_message };
  }
  if (origin !== TestRunOrigin.SERVER) {
    return {
      reason: TestRunEndReason.SILENT,
      message: `Nothing was reported for ${lease_ms / 1_000} s`,
    };
  }
  return owner === null
    ? {
        reason: TestRunEndReason.NOT_STARTED,
        message: "No server that is configured to run the project took it within a day",
      }
    : {
        reason: TestRunEndReason.SERVER_LOST,
        message: `The server that ran it was not heard of for ${lease_ms / 1_000} s`,
      };
}
