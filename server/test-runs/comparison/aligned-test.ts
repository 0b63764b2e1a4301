import {
  type TestFailure,
  type TestIdentity,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { ResultSummary, RunResults } from "../run-results.ts";
import { type Outcome, outcomeOf } from "./outcome.ts";

/** What a test did in the runs of one side. */
export interface Observations {
  /** One for each run that has the test, in the order of the runs. */
  readonly statuses: readonly TestStatus[];
  /** How long it took where it passed, by the number of the run; undefined where it did not, or nobody knows. */
  readonly durations: readonly (number | undefined)[];
  /** In how many runs it passed only after retries. */
  readonly retried: number;
  /** The failure of the last run that has one. */
  readonly failure: TestFailure | undefined;
  /** The most frequent status, the more serious of two that are as frequent; UNSPECIFIED: in no run. */
  readonly status: TestStatus;
  readonly outcome: Outcome;
}

/** One test with what it did on both sides. */
export interface AlignedTest {
  readonly testId: string;
  readonly test: TestIdentity;
  readonly base: Observations;
  readonly head: Observations;
}

/** Every test of either side once, those of base first. */
export function alignTests(base: readonly RunResults[], head: readonly RunResults[]): AlignedTest[] {
  const growing = new Map<string, { test: TestIdentity; base: Growing; head: Growing }>();
  for (const side of ["base", "head"] as const) {
    (side === "base" ? base : head).forEach(({ results }, run) => {
      for (const result of results) {
        let entry = growing.get(result.testId);
        if (entry === undefined) {
          entry = { test: result.test, base: emptyObservations(), head: emptyObservations() };
          growing.set(result.testId, entry);
        }
        observe(entry[side], run, result);
      }
    });
  }
  return Array.from(growing, ([testId, entry]) => ({
    testId,
    test: entry.test,
    base: settle(entry.base),
    head: settle(entry.head),
  }));
}

/** The durations that are known, in the order of the runs. */
export function knownDurations(side: Observations): number[] {
  return side.durations.filter((ms) => ms !== undefined);
}

/** Whether every run of the side that has the test says the same of it: all good, or all bad. */
export function isUnanimous(side: Observations, outcome: "good" | "bad"): boolean {
  return side.statuses.length > 0 && side.statuses.every((status) => outcomeOf(status) === outcome);
}

/** Whether a side alone shows that the test does not always end alike. */
export function isUnstable(side: Observations): boolean {
  const seen = new Set(side.statuses.map(outcomeOf));
  return side.retried > 0 || (seen.has("good") && seen.has("bad"));
}

interface Growing {
  statuses: TestStatus[];
  durations: (number | undefined)[];
  retried: number;
  failure: TestFailure | undefined;
}

function emptyObservations(): Growing {
  return { statuses: [], durations: [], retried: 0, failure: undefined };
}

function observe(side: Growing, run: number, result: ResultSummary): void {
  side.statuses.push(result.status);
  while (side.durations.length < run) {
    side.durations.push(undefined);
  }
  const known = result.durationMs !== undefined && Number.isFinite(result.durationMs);
  side.durations[run] = known && result.status === TestStatus.PASSED ? result.durationMs : undefined;
  if (result.attempts > 1 && outcomeOf(result.status) === "good") {
    side.retried++;
  }
  if (outcomeOf(result.status) === "bad" && result.failure !== undefined) {
    side.failure = result.failure;
  }
}

function settle(side: Growing): Observations {
  const status = mostFrequent(side.statuses);
  return { ...side, status, outcome: outcomeOf(status) };
}

/** From the least serious to the most. */
const seriousness: readonly TestStatus[] = [
  TestStatus.PASSED,
  TestStatus.EXPECTED_FAILURE,
  TestStatus.TODO,
  TestStatus.SKIPPED,
  TestStatus.NOT_RUN,
  TestStatus.INTERRUPTED,
  TestStatus.UNEXPECTED_PASS,
  TestStatus.FAILED,
  TestStatus.ERROR,
];

function mostFrequent(statuses: readonly TestStatus[]): TestStatus {
  const first = statuses[0];
  if (first === undefined || statuses.every((status) => status === first)) {
    return first ?? TestStatus.UNSPECIFIED;
  }
  const counts = new Map<TestStatus, number>();
  for (const status of statuses) {
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  const [best] = [...counts].sort(
    ([a, countA], [b, countB]) => countB - countA || seriousness.indexOf(b) - seriousness.indexOf(a),
  );
  return best?.[0] ?? TestStatus.UNSPECIFIED;
}
