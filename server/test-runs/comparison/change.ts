import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import {
  type DurationComparisonSchema,
  TestChangeKind,
  type TestChangeSchema,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import {
  type TestFailure,
  type TestFailureSchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { toDuration } from "../../config/durations.ts";
import { fullName } from "../test-id.ts";
import type { AlignedTest } from "./aligned-test.ts";
import type { StatusChange } from "./classify.ts";
import type { DurationJudgement } from "./judge-durations.ts";

const MAX_FAILURE_CHARS = 2_000;

/** A test with all that is known about how it differs. Kept small: messages are made of those that are told. */
export interface Difference {
  readonly aligned: AlignedTest;
  /** Undefined: it is the same on both sides. */
  readonly kind: TestChangeKind | undefined;
  readonly regression: boolean;
  readonly verdict: StatusChange["verdict"] | undefined;
  /** Set where the test passed on both sides. */
  readonly duration: DurationJudgement | undefined;
}

/** The most serious first. */
const bySeriousness: readonly TestChangeKind[] = [
  TestChangeKind.NEWLY_FAILING,
  TestChangeKind.LOST,
  TestChangeKind.ADDED_FAILING,
  TestChangeKind.SLOWER,
  TestChangeKind.UNSTABLE,
  TestChangeKind.STATUS_CHANGED,
  TestChangeKind.REMOVED,
  TestChangeKind.NEWLY_SKIPPED,
  TestChangeKind.STILL_FAILING,
  TestChangeKind.FIXED,
  TestChangeKind.FASTER,
  TestChangeKind.NO_LONGER_SKIPPED,
  TestChangeKind.ADDED,
];

/** Those that differ: regressions first, then by how serious their kind is, then by file and name. */
export function sortDifferences(all: readonly Difference[]): Difference[] {
  return all
    .flatMap((difference) => {
      const { kind, regression, aligned } = difference;
      const rank = kind === undefined ? -1 : bySeriousness.indexOf(kind);
      return rank < 0
        ? []
        : { difference, rank: regression ? rank - bySeriousness.length : rank, name: nameOf(aligned) };
    })
    .sort((a, b) => a.rank - b.rank || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
    .map(({ difference }) => difference);
}

function nameOf({ test, testId }: AlignedTest): string {
  return `${test.file}\0${fullName(test)}\0${testId}`;
}

export function toTestChange(difference: Difference): MessageInitShape<typeof TestChangeSchema> {
  const { aligned, kind, regression, verdict, duration } = difference;
  const { failure } = aligned.head;
  const failed = aligned.head.outcome === "bad" || kind === TestChangeKind.UNSTABLE;
  return {
    test: aligned.test,
    testId: aligned.testId,
    kind: kind ?? TestChangeKind.UNSPECIFIED,
    baseStatus: aligned.base.status,
    headStatus: aligned.head.status,
    regression,
    ...(verdict && { verdict }),
    ...(duration &&
      hasBoth(duration) && { duration: toDurationComparison(duration.baseMs, duration.headMs) }),
    ...(failed && failure && { failure: shorten(failure) }),
  };
}

/** Whether a test passed on both sides, the more often than it did not. */
export function passedOnBoth({ base, head }: AlignedTest): boolean {
  return base.status === TestStatus.PASSED && head.status === TestStatus.PASSED;
}

function hasBoth({ baseMs, headMs }: DurationJudgement): boolean {
  return Number.isFinite(baseMs) && Number.isFinite(headMs);
}

export function toDurationComparison(
  baseMs: number,
  headMs: number,
): MessageInitShape<typeof DurationComparisonSchema> {
  return {
    base: toDuration(baseMs),
    head: toDuration(headMs),
    delta: signedDuration(headMs - baseMs),
    ...(baseMs > 0 && { deltaPercent: (100 * (headMs - baseMs)) / baseMs }),
  };
}

/** A Duration that may be below zero: then both of its parts are. */
export function signedDuration(ms: number): Duration {
  const { seconds, nanos } = toDuration(Math.abs(ms));
  return create(DurationSchema, ms < 0 ? { seconds: -seconds, nanos: -nanos } : { seconds, nanos });
}

/** Shares 2,000 characters between the parts of a failure; those that matter most take theirs first. */
function shorten(failure: TestFailure): MessageInitShape<typeof TestFailureSchema> {
  let left = MAX_FAILURE_CHARS;
  const take = (text: string) => {
    const taken = text.length <= left ? text : `${text.slice(0, Math.max(0, left - 1)).toWellFormed()}…`;
    left = Math.max(0, left - text.length);
    return left === 0 && taken === "…" ? "" : taken;
  };
  const { type, message, expected, actual, stack } = failure;
  return {
    type: take(type),
    message: take(message),
    expected: take(expected),
    actual: take(actual),
    stack: take(stack),
  };
}
