import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type ComparisonSummarySchema,
  PerformanceTrend,
  QualityTrend,
  TestChangeKind,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { type Difference, signedDuration } from "./change.ts";
import type { ComparabilityCheck } from "./comparability.ts";
import { countText, percentText } from "./duration-text.ts";
import type { CommonShift } from "./machine-speed.ts";
import { outcomeOf } from "./outcome.ts";

/** The suite as a whole is slower when the tests that are add so much, or when half of all tests take so much longer. */
const TREND_SHARE = 0.05;
const TREND_MS = 20;
const TREND_RATIO = 1.2;
const TREND_TESTS = 10;

type SummaryInit = MessageInitShape<typeof ComparisonSummarySchema>;

/** How many differences there are of each kind. */
export type KindCounts = ReadonlyMap<TestChangeKind | undefined, number>;

export function countKinds(differences: readonly Difference[]): KindCounts {
  const counts = new Map<TestChangeKind | undefined, number>();
  for (const { kind } of differences) {
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return counts;
}

export function summarise(
  differences: readonly Difference[],
  check: ComparabilityCheck,
  shift: CommonShift,
): SummaryInit {
  const kinds = countKinds(differences);
  const of = (kind: TestChangeKind | undefined) => kinds.get(kind) ?? 0;
  const times = totalTimes(differences);
  const regression = differences.some((difference) => difference.regression);
  const numbers = {
    added: differences.filter(({ aligned }) => aligned.base.outcome === "absent").length,
    removed: of(TestChangeKind.REMOVED),
    newlyFailing: of(TestChangeKind.NEWLY_FAILING),
    fixed: of(TestChangeKind.FIXED),
    stillFailing: differences.filter(failsOnBoth).length,
    unstable: of(TestChangeKind.UNSTABLE),
    slower: of(TestChangeKind.SLOWER),
    faster: of(TestChangeKind.FASTER),
    unchanged: of(undefined),
  };
  const becameFaster = differences.some(
    ({ duration }) => duration?.direction === "faster" && duration.beyondNoise,
  );
  return {
    ...numbers,
    regression,
    improvement:
      check.comparable &&
      !regression &&
      (numbers.fixed > 0 || (speaksOfDurations(check, shift) && becameFaster)),
    quality: qualityOf(kinds, check),
    performance: performanceOf(differences, times, check, shift),
    durationDelta: signedDuration(times.head - times.base),
    ...(times.base > 0 && { durationDeltaPercent: (100 * (times.head - times.base)) / times.base }),
    basePassRate: passRate(differences, "base"),
    headPassRate: passRate(differences, "head"),
    headline: headlineOf(numbers, kinds, differences, check, shift),
  };
}

/** Whether a change of duration may be held against the code. */
export function speaksOfDurations(check: ComparabilityCheck, shift: CommonShift): boolean {
  return check.comparable && !check.weakened.has("duration") && !check.sameCode && !shift.environment;
}

function failsOnBoth({ aligned, kind }: Difference): boolean {
  return kind !== TestChangeKind.UNSTABLE && aligned.base.outcome === "bad" && aligned.head.outcome === "bad";
}

/** The sums of the durations of tests that passed on both sides, in milliseconds. */
function totalTimes(differences: readonly Difference[]): { base: number; head: number; tests: number } {
  let base = 0;
  let head = 0;
  let tests = 0;
  for (const { duration } of differences) {
    if (duration && Number.isFinite(duration.baseMs) && Number.isFinite(duration.headMs)) {
      base += duration.baseMs;
      head += duration.headMs;
      tests++;
    }
  }
  return { base, head, tests };
}

function passRate(differences: readonly Difference[], side: "base" | "head"): number {
  let good = 0;
  let ran = 0;
  for (const { aligned } of differences) {
    for (const status of aligned[side].statuses) {
      const outcome = outcomeOf(status);
      good += Number(outcome === "good");
      ran += Number(outcome === "good" || outcome === "bad");
    }
  }
  return ran === 0 ? 0 : good / ran;
}

function qualityOf(kinds: KindCounts, check: ComparabilityCheck): QualityTrend {
  if (!check.comparable) {
    return QualityTrend.UNSPECIFIED;
  }
  const broken =
    (kinds.get(TestChangeKind.NEWLY_FAILING) ?? 0) +
    (kinds.get(TestChangeKind.ADDED_FAILING) ?? 0) +
    (kinds.get(TestChangeKind.LOST) ?? 0);
  const fixed = kinds.get(TestChangeKind.FIXED) ?? 0;
  if (broken === fixed) {
    return QualityTrend.STABLE;
  }
  return broken > fixed ? QualityTrend.DECLINING : QualityTrend.IMPROVING;
}

function performanceOf(
  differences: readonly Difference[],
  times: { readonly base: number; readonly head: number; readonly tests: number },
  check: ComparabilityCheck,
  shift: CommonShift,
): PerformanceTrend {
  if (!check.comparable || times.tests === 0 || shift.environment) {
    return PerformanceTrend.UNSPECIFIED;
  }
  if (check.sameCode) {
    return PerformanceTrend.STABLE;
  }
  const net = differences.reduce(
    (sum, { duration }) =>
      sum + (duration?.direction && duration.beyondNoise ? duration.headMs - duration.baseMs : 0),
    0,
  );
  const relevant = Math.max(TREND_MS, TREND_SHARE * Math.min(times.base, times.head));
  const broad = shift.tests >= TREND_TESTS && Math.abs(Math.log(shift.ratio)) >= Math.log(TREND_RATIO);
  if (Math.abs(net) < relevant && !broad) {
    return PerformanceTrend.STABLE;
  }
  const slower = Math.abs(net) >= relevant ? net > 0 : shift.ratio > 1;
  return slower ? PerformanceTrend.SLOWER : PerformanceTrend.FASTER;
}

function headlineOf(
  numbers: { readonly [Name in "added" | "removed" | "slower" | "faster" | "unstable" | "fixed"]: number },
  kinds: KindCounts,
  differences: readonly Difference[],
  check: ComparabilityCheck,
  shift: CommonShift,
): string {
  if (!check.comparable) {
    return `Cannot be compared: ${check.issues
      .filter(({ blocks }) => blocks)
      .map(({ message }) => message)
      .slice(0, 3)
      .join("; ")}.`;
  }
  const of = (kind: TestChangeKind) => kinds.get(kind) ?? 0;
  const tests = differences.length;
  const doubtful = {
    slower: countDoubtful(differences, TestChangeKind.SLOWER),
    faster: countDoubtful(differences, TestChangeKind.FASTER),
  };
  const parts = [
    part(of(TestChangeKind.NEWLY_FAILING), "newly fails", "newly fail"),
    part(of(TestChangeKind.LOST), "was lost", "were lost"),
    part(of(TestChangeKind.ADDED_FAILING), "is new and fails", "are new and fail"),
    part(numbers.slower - doubtful.slower, "became slower", "became slower"),
    part(numbers.fixed, "was fixed", "were fixed"),
    part(numbers.faster - doubtful.faster, "became faster", "became faster"),
    part(numbers.added - of(TestChangeKind.ADDED_FAILING), "was added", "were added"),
    part(numbers.removed, "was removed", "were removed"),
    part(of(TestChangeKind.NEWLY_SKIPPED), "is skipped now", "are skipped now"),
    part(numbers.unstable, "is unstable", "are unstable"),
    part(of(TestChangeKind.STILL_FAILING), "still fails", "still fail"),
    part(doubtful.slower, "may be slower", "may be slower"),
    part(doubtful.faster, "may be faster", "may be faster"),
  ].flat();
  const environment = shift.environment
    ? [`all durations differ by about ${percentText(100 * (shift.ratio - 1))}, as on another machine`]
    : [];
  const said = [...parts, ...environment];
  return said.length === 0
    ? `Nothing differs between ${countText(tests, "test")}.`
    : `Of ${countText(tests, "test")}: ${said.join(", ")}.`;
}

/** Changes of duration that chance may have done. */
function countDoubtful(differences: readonly Difference[], kind: TestChangeKind): number {
  return differences.filter((each) => each.kind === kind && !each.duration?.beyondNoise).length;
}

function part(count: number, one: string, many: string): string[] {
  return count === 0 ? [] : [`${count.toLocaleString("en")} ${count === 1 ? one : many}`];
}
