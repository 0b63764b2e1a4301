import type { Clock, Logger } from "@toolplane/framework";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { type ClaimedRun, type Leases, OWNER_RENEWAL_MS, type ProjectCap } from "../leases.ts";
import type { RunExecution } from "./run-execution.ts";

export interface RunQueueOptions {
  readonly leases: Leases;
  readonly projects: readonly ProjectCap[];
  /** How many runs this replica runs at once. */
  readonly maxConcurrentRuns: number;
  readonly start: (claimed: ClaimedRun) => RunExecution;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Takes runs that wait, as many as this replica may run, and keeps them until they end. */
export interface RunQueue {
  /** Ends the runs that it runs, and takes no more. */
  close(): Promise<void>;
}

export function openRunQueue(options: RunQueueOptions): RunQueue {
  const { leases, projects, maxConcurrentRuns, start, clock, logger } = options;
  const running = new Map<string, RunExecution>();
  /** True: no more runs are taken. */
  let closed = false;
  /** True: none is left either. */
  let done = false;
  let claiming = false;
  let claimed = Promise.resolve();
  let again = false;

  function look(): void {
    again = true;
    if (!claiming) {
      claiming = true;
      claimed = claimAll();
    }
  }

  async function claimAll(): Promise<void> {
    while (again && !closed) {
      again = false;
      const free = maxConcurrentRuns - running.size;
      if (free > 0 && projects.length > 0) {
        try {
          for (const each of await leases.claimQueued(projects, free)) {
            take(each);
          }
        } catch (error) {
          logger.warn({ err: error }, "test runs that wait cannot be looked for now");
        }
      }
    }
    claiming = false;
  }

  function take(claimed: ClaimedRun): void {
    const { id } = claimed.run;
    const execution = start(claimed);
    running.set(id, execution);
    if (closed) {
      execution.stop(TestRunEndReason.SERVER_LOST, "the server was stopped");
    }
    void execution.done.then(() => {
      running.delete(id);
      look();
    });
  }

  async function renew(): Promise<void> {
    const mine = [...running];
    try {
      const { held } = await leases.renew(mine.map(([id]) => id));
      for (const [id, execution] of mine) {
        if (!held.has(id)) {
          execution.abandon();
        }
      }
    } catch (error) {
      logger.warn({ err: error }, "leases of test runs cannot be renewed now");
    }
  }

  let cancelTick = () => {};
  let ticking = Promise.resolve();
  function schedule(): void {
    cancelTick = clock.after(OWNER_RENEWAL_MS, () => {
      ticking = (async () => {
        if (running.size > 0) {
          await renew();
        }
        // Whatever was missed.
        look();
        if (!done) {
          schedule();
        }
      })();
    });
  }

  const unsubscribe = [
    leases.onQueued(look),
    leases.onCancel((runId, message) => {
      running.get(runId)?.stop(TestRunEndReason.CANCELLED, message || "the run was cancelled");
    }),
  ];
  schedule();
  look();

  return {
    async close() {
      closed = true;
      await claimed;
      for (const execution of running.values()) {
        execution.stop(TestRunEndReason.SERVER_LOST, "the server was stopped");
      }
      await Promise.all([...running.values()].map(({ done }) => done));
      for (const end of unsubscribe) {
        end();
      }
      done = true;
      cancelTick();
      await ticking;
    },
  };
}
