import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ChangePointSchema,
  type HistoryEntrySchema,
  type TestHistory,
  TestHistorySchema,
} from "@toolplane/gen/toolplane/testing/v1/history_pb.js";
import { type TestIdentity, TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { toDuration } from "../../config/durations.ts";
import { countText, durationText } from "../comparison/duration-text.ts";
import { quantile } from "../comparison/statistics/quantile.ts";
import { changePoints } from "./change-points.ts";
import { flakinessOf } from "./flakiness.ts";
import { counts, isGood, type Observation } from "./observation.ts";
import type { HistoryResult, HistoryRun, KnownTest } from "./source.ts";

const MAX_MESSAGE_CHARS = 500;

/** A test's results in these runs. Both begin with the newest. */
export function testHistory(
  known: KnownTest,
  identity: TestIdentity | undefined,
  runs: readonly HistoryRun[],
  results: readonly HistoryResult[],
): TestHistory {
  const byRun = new Map(results.map((result) => [result.runNumber, result]));
  const seen = runs.flatMap((run) => {
    const result = byRun.get(run.number);
    return result === undefined ? [] : { run, result, observation: observe(run, result) };
  });
  const observations = seen.map(({ observation }) => observation);
  const ran = observations.filter(counts);
  const durations = timed(ran).map(({ ms }) => ms);
  return create(TestHistorySchema, {
    ...(identity && { test: identity }),
    testId: known.testId,
    firstSeen: timestampFromMs(known.firstSeenMs),
    lastSeen: timestampFromMs(known.lastSeenMs),
    entries: seen.map(({ observation, result }) => toEntry(observation, result)),
    runs: ran.length,
    passRate: ran.length === 0 ? 0 : ran.filter(({ status }) => isGood(status)).length / ran.length,
    flakiness: flakinessOf(observations),
    changePoints: durationChanges(ran),
    ...(durations.length > 0 && {
      medianDuration: toDuration(quantile(durations, 0.5)),
      p95Duration: toDuration(quantile(durations, 0.95)),
    }),
  });
}

export function observe({ run, excluded }: HistoryRun, result: HistoryResult): Observation {
  return {
    runId: run.id,
    timeMs: runTimeMs({ run }),
    commit: run.context?.commit ?? "",
    dirty: run.context?.dirty ?? false,
    branch: run.context?.branch ?? "",
    environment: run.environment,
    status: result.status,
    durationMs: result.durationMs,
    attempts: result.attempts,
    excluded,
  };
}

/** When a run began, or was asked for. */
export function runTimeMs({ run }: Pick<HistoryRun, "run">): number {
  const time = run.startTime ?? run.createTime;
  return time === undefined ? 0 : Number(time.seconds) * 1_000 + Math.floor(time.nanos / 1e6);
}

function toEntry(
  observation: Observation,
  { message }: HistoryResult,
): MessageInitShape<typeof HistoryEntrySchema> {
  const { runId, timeMs, commit, branch, environment, status, durationMs, attempts, excluded } = observation;
  return {
    runId,
    time: timestampFromMs(timeMs),
    commit,
    branch,
    environment,
    status,
    ...(durationMs !== undefined && { duration: toDuration(durationMs) }),
    attempts,
    excluded,
    message: (message.trimStart().split("\n", 1)[0] ?? "").slice(0, MAX_MESSAGE_CHARS).toWellFormed(),
  };
}

/** Passes of known duration. Failures end early or wait too long: their durations tell of the failure. */
function timed(ran: readonly Observation[]): TimedRun[] {
  return ran.flatMap(({ status, durationMs, ...run }) =>
    status === TestStatus.PASSED && durationMs !== undefined ? { ...run, ms: durationMs } : [],
  );
}

/** A run with a duration: of a test, or of a whole suite. */
export interface TimedRun {
  readonly runId: string;
  readonly timeMs: number;
  readonly commit: string;
  readonly environment: string;
  readonly ms: number;
}

function durationChanges(ran: readonly Observation[]): MessageInitShape<typeof ChangePointSchema>[] {
  return changesOf(timed(ran));
}

/** Where durations changed for good, the newest first. Each environment has its own durations. */
export function changesOf(runs: readonly TimedRun[]): MessageInitShape<typeof ChangePointSchema>[] {
  const lines = Map.groupBy(runs, ({ environment }) => environment);
  return [...lines]
    .flatMap(([environment, unordered]) => {
      const line = unordered.toSorted((a, b) => a.timeMs - b.timeMs);
      return changePoints(line.map(({ ms }) => ms)).flatMap((change) => {
        const run = line[change.index];
        return run === undefined ? [] : { run, change, environment };
      });
    })
    .sort((a, b) => b.run.timeMs - a.run.timeMs)
    .map(({ run, change, environment }) => ({
      runId: run.runId,
      time: timestampFromMs(run.timeMs),
      commit: run.commit,
      before: toDuration(change.beforeMs),
      after: toDuration(change.afterMs),
      ...(change.beforeMs > 0 && {
        percent: (100 * (change.afterMs - change.beforeMs)) / change.beforeMs,
      }),
      verdict: {
        rule: "change-point",
        baseN: change.beforeRuns,
        headN: change.afterRuns,
        pValue: change.pValue,
        effect: change.effect,
        confidence: change.confidence,
        explanation: `${durationText(change.beforeMs)} in the median of ${countText(change.beforeRuns, "run")}, then ${durationText(change.afterMs)} in ${countText(change.afterRuns, "run")}${lines.size > 1 ? ` in environment ${environment}` : ""}`,
      },
    }));
}
