import { fromBinary } from "@bufbuild/protobuf";
import { type Clock, systemClock } from "@toolplane/framework";
import { type RunEvent, RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { onTestFinished } from "vitest";
import type { EventLog } from "../../../event-log/event-log.ts";
import { openTestLog } from "../../../event-log/testing.ts";
import type { Database } from "../../../storage/database.ts";
import { silentLogger } from "../../../storage/silent-logger.ts";
import type { ClaimedRun, Journal } from "../../engine/journal.ts";
import type { NewRun } from "../../runs.ts";
import { openRunStore, type RunStore, type RunStoreOptions } from "../run-store.ts";
import { createMemoryJobs, type MemoryJobs } from "./memory-jobs.ts";
import { newRun } from "./runs.ts";

/** The runs of one replica. */
export interface TestStore extends RunStore {
  readonly eventLog: EventLog;
  readonly jobs: MemoryJobs;
  /** A new run that this worker has claimed. */
  start(run?: Partial<NewRun>): Promise<{ run: ClaimedRun; journal: Journal }>;
  /** The run of the last job that was sent. */
  claim(runId: string, worker?: string, retryCount?: number): Promise<{ run: ClaimedRun; journal: Journal }>;
  /** Everything that was told of a run. */
  events(runId: string): Promise<RunEvent[]>;
  /** The kinds of these. */
  told(runId: string): Promise<string[]>;
}

const defaults = { secrets: () => [], maxQueuedRuns: 10_000, maxEventsPerRun: 100_000 };

/** A replica, closed when the test is over. Replicas that share `jobs` fetch from the same queue. */
export async function openTestStore(
  database: Database,
  options: Partial<Omit<RunStoreOptions, "jobs">> & {
    readonly jobs?: MemoryJobs;
    readonly clock?: Clock;
  } = {},
): Promise<TestStore> {
  const eventLog = await openTestLog(database);
  const jobs = options.jobs ?? createMemoryJobs();
  const store = await openRunStore({
    database,
    eventLog,
    clock: systemClock,
    logger: silentLogger,
    ...defaults,
    ...options,
    jobs,
  });
  onTestFinished(() => store.close());

  async function claim(runId: string, worker = "worker-1", retryCount = 0) {
    const claimed = await store.claims.claim(jobs.lastOf(runId, retryCount), worker);
    if (claimed === undefined) {
      throw new Error(`run ${runId} could not be claimed`);
    }
    return claimed;
  }

  async function events(runId: string): Promise<RunEvent[]> {
    const found: RunEvent[] = [];
    for (;;) {
      const page = await eventLog.read(runId, found.length, 1_000);
      if (page.events.length === 0) {
        return found;
      }
      found.push(...page.events.map((bytes) => fromBinary(RunEventSchema, bytes)));
    }
  }

  return {
    ...store,
    eventLog,
    jobs,
    claim,
    events,
    async start(run) {
      const { id } = await store.runs.create(newRun(run));
      return await claim(id);
    },
    told: async (runId) => (await events(runId)).map(({ kind }) => kind.case ?? ""),
  };
}
