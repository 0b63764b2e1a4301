import { type AlignedTest, knownDurations } from "./aligned-test.ts";
import { median } from "./statistics/quantile.ts";

/** Shorter tests say more about the timer than about the machine. */
const MEASURABLE_MS = 5;
/** Fewer tests say nothing about the machine. */
const MIN_TESTS = 10;
/** The share of tests that must lie on one side for a factor to be common to all. */
const AGREEMENT = 0.7;
/** For the environment to be held responsible, more must agree on more. */
const ENVIRONMENT_AGREEMENT = 0.8;
const ENVIRONMENT_FACTOR = 1.2;
/** Durations that round to nothing have no ratio; they count as this. */
const LEAST_MS = 0.01;

/** How much slower everything is on the head side. */
export interface CommonShift {
  /** The median over tests of head divided by base; 1: no shift. */
  readonly ratio: number;
  /** The share of tests that moved in the same direction. */
  readonly agreement: number;
  /** How many tests that is about. */
  readonly tests: number;
  /**
   * True when nearly all tests moved together, and by much. Code seldom does that; another machine, or a busy one, does.
   */
  readonly environment: boolean;
}

export interface MachineSpeed {
  readonly shift: CommonShift;
  /** What the durations of each run are to be divided by, to stand beside those of the others. */
  readonly baseFactors: readonly number[];
  readonly headFactors: readonly number[];
}

/**
 * What all tests of a run have in common is the machine's, not theirs. A run's factor is the median, over all tests that
 * take at least 5 ms, of its duration divided by the test's median over all runs; it is used when at least ten tests
 * know, and 70 % of them lie on the same side of 1. The median bears half of the tests to have really changed.
 */
export function machineSpeed(
  tests: readonly AlignedTest[],
  baseRuns: number,
  headRuns: number,
): MachineSpeed {
  const byRun = Array.from({ length: baseRuns + headRuns }, (): number[] => []);
  const between: number[] = [];
  for (const { base, head } of tests) {
    const before = knownDurations(base);
    const after = knownDurations(head);
    if (before.length === 0 || after.length === 0) {
      continue;
    }
    const baseLog = logOf(median(before));
    const headLog = logOf(median(after));
    // Symmetric, so that tests are not chosen by what happened to them.
    const middle = (baseLog + headLog) / 2;
    if (middle < Math.log(MEASURABLE_MS)) {
      continue;
    }
    between.push(headLog - baseLog);
    base.durations.forEach((ms, run) => {
      if (ms !== undefined) byRun[run]?.push(logOf(ms) - middle);
    });
    head.durations.forEach((ms, run) => {
      if (ms !== undefined) byRun[baseRuns + run]?.push(logOf(ms) - middle);
    });
  }
  const factors = byRun.map(commonFactor);
  return {
    shift: commonShift(between),
    baseFactors: factors.slice(0, baseRuns),
    headFactors: factors.slice(baseRuns),
  };
}

function logOf(ms: number): number {
  return Math.log(Math.max(LEAST_MS, ms));
}

function commonFactor(logs: readonly number[]): number {
  if (logs.length < MIN_TESTS) {
    return 1;
  }
  const common = median(logs);
  return agreementOn(common, logs) >= AGREEMENT ? Math.exp(common) : 1;
}

function commonShift(logs: readonly number[]): CommonShift {
  if (logs.length === 0) {
    return { ratio: 1, agreement: 0, tests: 0, environment: false };
  }
  const common = median(logs);
  const agreement = agreementOn(common, logs);
  const environment =
    logs.length >= MIN_TESTS &&
    agreement >= ENVIRONMENT_AGREEMENT &&
    Math.abs(common) >= Math.log(ENVIRONMENT_FACTOR);
  return { ratio: Math.exp(common), agreement, tests: logs.length, environment };
}

/** The share of values with the sign of the common one. */
function agreementOn(common: number, logs: readonly number[]): number {
  return logs.filter((log) => log * common > 0).length / logs.length;
}
