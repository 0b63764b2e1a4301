import {
  type TestChange,
  TestChangeKind,
  type TestRunComparison,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { confidenceWords, durationWords, kindTitles, percentWords, statusWords, testName } from "./words.ts";

/** How a row should look, whatever the colours of a terminal are. */
export type RowTone = "bad" | "warning" | "good" | "neutral";

/** One test that differs. Texts are as the tests have them: make control characters harmless before printing. */
export interface ComparisonRow {
  readonly tone: RowTone;
  /** True when it makes the head worse. */
  readonly regression: boolean;
  readonly testId: string;
  readonly file: string;
  readonly name: string;
  /** How it ended on both sides, or its durations for a change of duration: `passed → failed`, `2 ms → 24 ms`. */
  readonly change: string;
  /** The change of duration, such as `+22 ms (+1100 %)`; empty where there is none to tell. */
  readonly delta: string;
  /** How far it can be trusted, such as `low`. */
  readonly confidence: string;
  /** The first line of the failure in head; else empty. */
  readonly message: string;
}

/** The tests of one kind of change. */
export interface ComparisonSection {
  readonly kind: TestChangeKind;
  /** Such as `newly failing`. */
  readonly title: string;
  readonly tone: RowTone;
  readonly rows: readonly ComparisonRow[];
}

/** The changes of a comparison as rows of tables, one table a kind, the most serious kind first. */
export function comparisonRows(comparison: TestRunComparison): ComparisonSection[] {
  const byKind = Map.groupBy(comparison.changes, ({ kind }) => kind);
  return [...kindTitles].flatMap(([kind, title]) => {
    const changes = byKind.get(kind) ?? [];
    return changes.length === 0 ? [] : [{ kind, title, tone: toneOf(kind), rows: changes.map(toRow) }];
  });
}

function toRow(change: TestChange): ComparisonRow {
  const { kind, test, duration, verdict, failure } = change;
  const timed = kind === TestChangeKind.SLOWER || kind === TestChangeKind.FASTER;
  const percent = duration?.deltaPercent;
  return {
    tone: change.regression ? "bad" : toneOf(kind),
    regression: change.regression,
    testId: change.testId,
    file: test?.file ?? "",
    name: testName(test),
    change:
      timed && duration
        ? `${durationWords(duration.base)} → ${durationWords(duration.head)}`
        : `${statusWords[change.baseStatus]} → ${statusWords[change.headStatus]}`,
    delta:
      timed && duration
        ? durationWords(duration.delta, true) + (percent === undefined ? "" : ` (${percentWords(percent)})`)
        : "",
    confidence: verdict ? confidenceWords[verdict.confidence] : "",
    message: firstLine(failure?.message || failure?.type || ""),
  };
}

function firstLine(text: string): string {
  return text.trimStart().split("\n", 1)[0]?.trimEnd() ?? "";
}

function toneOf(kind: TestChangeKind): RowTone {
  switch (kind) {
    case TestChangeKind.NEWLY_FAILING:
    case TestChangeKind.ADDED_FAILING:
    case TestChangeKind.LOST:
      return "bad";
    case TestChangeKind.SLOWER:
    case TestChangeKind.UNSTABLE:
    case TestChangeKind.STILL_FAILING:
    case TestChangeKind.STATUS_CHANGED:
    case TestChangeKind.REMOVED:
    case TestChangeKind.NEWLY_SKIPPED:
      return "warning";
    case TestChangeKind.FIXED:
    case TestChangeKind.FASTER:
    case TestChangeKind.NO_LONGER_SKIPPED:
      return "good";
    case TestChangeKind.ADDED:
    case TestChangeKind.UNSPECIFIED:
      return "neutral";
  }
}
