import { create } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import { type TestCounts, TestCountsSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type TestRunProgress,
  TestRunProgressSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { toDuration } from "../config/durations.ts";
import type { RunState } from "./run-state.ts";
import type { RunWriter } from "./run-writer.ts";

/** As many running tests as are named; see toolplane.testing.v1.TestRunProgress. */
const MAX_NAMED = 100;

/** How far a run is, worked out once for all who watch it. */
export interface Progress {
  /** How far the run was after an event, or later. */
  after(sequence: number): Promise<TestRunProgress>;
}

export interface ProgressBoard {
  /** The progress of a run; `leave` when it is no longer needed. */
  join(runId: string): Progress & { leave(): void };
}

interface Shared {
  watchers: number;
  latest: { readonly progress: TestRunProgress; readonly startTime: number | undefined } | undefined;
  working: Promise<void> | undefined;
}

export function createProgressBoard(writer: Pick<RunWriter, "read">, clock: Clock): ProgressBoard {
  const runs = new Map<string, Shared>();

  async function after(runId: string, shared: Shared, sequence: number): Promise<TestRunProgress> {
    while (shared.latest === undefined || shared.latest.progress.sequence < sequence) {
      shared.working ??= writer
        .read(runId, sequence, (state) => {
          shared.latest = { progress: progressOf(state), startTime: state.startTime };
        })
        .finally(() => {
          shared.working = undefined;
        });
      await shared.working;
    }
    const { progress, startTime } = shared.latest;
    const elapsed = toDuration(startTime === undefined ? 0 : Math.max(clock.now() - startTime, 0));
    return { ...progress, elapsed };
  }

  return {
    join(runId) {
      const shared = runs.get(runId) ?? { watchers: 0, latest: undefined, working: undefined };
      runs.set(runId, shared);
      shared.watchers += 1;
      return {
        after: (sequence) => after(runId, shared, sequence),
        leave() {
          shared.watchers -= 1;
          if (shared.watchers === 0) {
            runs.delete(runId);
          }
        },
      };
    },
  };
}

function progressOf({ counts, running, lastSequence }: RunState): TestRunProgress {
  const ended = counts.total === 0 ? undefined : endedOf(create(TestCountsSchema, counts));
  return create(TestRunProgressSchema, {
    sequence: BigInt(lastSequence),
    counts,
    ...(ended === undefined ? {} : { percent: (ended / counts.total) * 100 }),
    runningTests: [...running.values()].slice(0, MAX_NAMED).map(({ test }) => test),
    running: running.size,
  });
}

function endedOf(counts: TestCounts): number {
  const { passed, failed, skipped, expectedFailures, errors, interrupted, notRun } = counts;
  return passed + failed + skipped + expectedFailures + errors + interrupted + notRun;
}
