import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  Confidence,
  PerformanceTrend,
  QualityTrend,
  type VerdictSchema,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { countText, durationText, percentText } from "../comparison/duration-text.ts";
import { normalAbove } from "../comparison/statistics/normal.ts";
import { median } from "../comparison/statistics/quantile.ts";

/** Fewer runs have no trend. */
const MIN_RUNS = 8;
const SIGNIFICANT = 0.05;
/** From the older half of the runs to the newer, the pass rate must change by half a percentage point, the time by 10 %. */
const MIN_RATE = 0.005;
const MIN_SHARE = 0.1;

/** A run that counts, as far as trends need it. */
export interface TrendRun {
  /** From 0 to 1. */
  readonly passRate: number;
  /** The sum of durations of its tests. */
  readonly testTimeMs: number;
  /** How many tests ran. */
  readonly tests: number;
}

export interface ProjectTrend {
  readonly quality: QualityTrend;
  readonly performance: PerformanceTrend;
  /** Of quality, then of performance. */
  readonly verdicts: readonly [VerdictInit, VerdictInit];
}

type VerdictInit = MessageInitShape<typeof VerdictSchema>;

/**
 * Where a project goes, by its runs that count, the oldest first. A trend is what the test of Mann 1945 and Kendall 1975
 * finds with p <= 0.05, and what is worth telling. Time is that of a test in the mean: a suite that grows does not become
 * slower.
 */
export function projectTrend(runs: readonly TrendRun[]): ProjectTrend {
  const ran = runs.filter(({ tests }) => tests > 0);
  if (ran.length < MIN_RUNS) {
    const explanation = `${countText(ran.length, "run")} that count; ${MIN_RUNS} are needed`;
    const verdict = verdictOf(ran.length, { confidence: Confidence.INSUFFICIENT_DATA, explanation });
    return {
      quality: QualityTrend.UNSPECIFIED,
      performance: PerformanceTrend.UNSPECIFIED,
      verdicts: [verdict, verdict],
    };
  }
  const [quality, qualityVerdict] = qualityTrend(ran.map(({ passRate }) => passRate));
  const [performance, performanceVerdict] = performanceTrend(
    ran.map(({ testTimeMs, tests }) => testTimeMs / tests),
  );
  return { quality, performance, verdicts: [qualityVerdict, performanceVerdict] };
}

function qualityTrend(rates: readonly number[]): [QualityTrend, VerdictInit] {
  const { p, tau } = mannKendall(rates);
  const total = risenBy(rates);
  const points = `${total > 0 ? "+" : ""}${(100 * total).toFixed(1)} percentage points`;
  const explanation = `the pass rate changed by ${points} from the older half of ${countText(rates.length, "run")} to the newer, p = ${p.toFixed(3)}`;
  const verdict = verdictOf(rates.length, { pValue: p, effect: tau, explanation });
  if (p > SIGNIFICANT || Math.abs(total) < MIN_RATE) {
    return [QualityTrend.STABLE, verdict];
  }
  return [total > 0 ? QualityTrend.IMPROVING : QualityTrend.DECLINING, verdict];
}

function performanceTrend(times: readonly number[]): [PerformanceTrend, VerdictInit] {
  const { p, tau } = mannKendall(times);
  const middle = median(times);
  const share = middle > 0 ? risenBy(times) / middle : 0;
  const explanation = `the mean time of a test, ${durationText(middle)} in the median, changed by ${percentText(100 * share)} from the older half of ${countText(times.length, "run")} to the newer, p = ${p.toFixed(3)}`;
  const verdict = verdictOf(times.length, { pValue: p, effect: tau, explanation });
  if (p > SIGNIFICANT || Math.abs(share) < MIN_SHARE) {
    return [PerformanceTrend.STABLE, verdict];
  }
  return [share > 0 ? PerformanceTrend.SLOWER : PerformanceTrend.FASTER, verdict];
}

function verdictOf(runs: number, facts: VerdictInit): VerdictInit {
  return { rule: "mann-kendall", baseN: runs, headN: runs, confidence: Confidence.HIGH, ...facts };
}

/** The mean of the newer half less that of the older. */
function risenBy(values: readonly number[]): number {
  const half = Math.floor(values.length / 2);
  return mean(values.slice(-half)) - mean(values.slice(0, half));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export interface MannKendall {
  /** Two-sided, by the normal approximation with corrections for ties and continuity. */
  readonly p: number;
  /** From -1, always falling, to 1, always rising. */
  readonly tau: number;
}

export function mannKendall(values: readonly number[]): MannKendall {
  const n = values.length;
  let s = 0;
  values.forEach((later, j) => {
    for (let i = 0; i < j; i++) {
      s += Math.sign(later - (values[i] ?? 0));
    }
  });
  let variance = n * (n - 1) * (2 * n + 5);
  for (const { length: t } of Map.groupBy(values, (value) => value).values()) {
    variance -= t * (t - 1) * (2 * t + 5);
  }
  const z = variance <= 0 ? 0 : Math.max(0, Math.abs(s) - 1) / Math.sqrt(variance / 18);
  return { p: Math.min(1, 2 * normalAbove(z)), tau: n < 2 ? 0 : s / ((n * (n - 1)) / 2) };
}
