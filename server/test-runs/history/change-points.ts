import { Confidence } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { mannWhitney } from "../comparison/statistics/mann-whitney.ts";
import { median } from "../comparison/statistics/quantile.ts";

/** A change lasts at least so many runs, and is preceded by so many. */
const MIN_RUNS = 5;
/** The probability of a split by chance, corrected for the number of places at which it could be. */
const SIGNIFICANT = 0.01;
/** What is worth telling: both, the percentage of the smaller median. */
const MIN_RATIO = 1.2;
const MIN_MS = 20;

export interface DurationChange {
  /** The place of the first duration with the new level. */
  readonly index: number;
  readonly beforeMs: number;
  readonly afterMs: number;
  readonly beforeRuns: number;
  readonly afterRuns: number;
  readonly pValue: number;
  readonly effect: number;
  readonly confidence: Confidence;
}

/**
 * Where a series of durations, the oldest first, changed its level for good. The oldest change first.
 *
 * Binary segmentation (Scott and Knott 1974) with the rank statistic of Pettitt 1979: the series is split where the ranks
 * before and after differ most for their numbers, if Mann and Whitney's test, with Bonferroni's correction for the places
 * that were looked at, gives at most 0.01; then both parts in turn. Neighbouring parts whose medians do not differ by 20 %
 * and 20 ms are put together again, the most alike first. Ranks let single slow runs pass.
 */
export function changePoints(durations: readonly number[]): DurationChange[] {
  const bounds = merge(durations, [0, ...split(durations, 0, durations.length), durations.length]);
  return bounds.slice(1, -1).flatMap((index, place) => {
    const before = durations.slice(bounds[place] ?? 0, index);
    const after = durations.slice(index, bounds[place + 2] ?? durations.length);
    const { p, effect } = mannWhitney(before, after);
    const pValue = Math.min(1, p * places(before.length + after.length));
    return pValue > SIGNIFICANT
      ? []
      : {
          index,
          beforeMs: median(before),
          afterMs: median(after),
          beforeRuns: before.length,
          afterRuns: after.length,
          pValue,
          effect,
          confidence: Confidence.HIGH,
        };
  });
}

function places(length: number): number {
  return Math.max(1, length - 2 * MIN_RUNS + 1);
}

/** Places between `from` and `to` at which the level changes, in order. */
function split(durations: readonly number[], from: number, to: number): number[] {
  const index = bestSplit(durations.slice(from, to));
  if (index === undefined) {
    return [];
  }
  const middle = from + index;
  return [...split(durations, from, middle), middle, ...split(durations, middle, to)];
}

function bestSplit(part: readonly number[]): number | undefined {
  const n = part.length;
  if (n < 2 * MIN_RUNS) {
    return undefined;
  }
  const ranks = ranksOf(part);
  let best = MIN_RUNS;
  let greatest = -1;
  let sum = 0;
  for (let k = 1; k <= n - MIN_RUNS; k++) {
    sum += ranks[k - 1] ?? 0;
    // How far the ranks before differ from what they would be by chance, in standard deviations.
    const distance = Math.abs(sum - (k * (n + 1)) / 2) / Math.sqrt(k * (n - k));
    if (k >= MIN_RUNS && distance > greatest) {
      greatest = distance;
      best = k;
    }
  }
  const { p } = mannWhitney(part.slice(0, best), part.slice(best));
  return p * places(n) <= SIGNIFICANT ? best : undefined;
}

/** The rank of each value from 1; equal ones share the mean of theirs. */
function ranksOf(values: readonly number[]): number[] {
  const order = values.map((value, index) => ({ value, index })).sort((a, b) => a.value - b.value);
  const ranks = new Array<number>(values.length).fill(0);
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (order[end]?.value === order[start]?.value && end < order.length) end++;
    for (const { index } of order.slice(start, end)) {
      ranks[index] = (start + 1 + end) / 2;
    }
    start = end;
  }
  return ranks;
}

/** Bounds of parts, without those between parts that are too much alike. */
function merge(durations: readonly number[], bounds: readonly number[]): readonly number[] {
  const medians = bounds.slice(1).map((end, place) => median(durations.slice(bounds[place], end)));
  let weakest: { place: number; ratio: number } | undefined;
  for (let place = 1; place < medians.length; place++) {
    const before = medians[place - 1] ?? 0;
    const after = medians[place] ?? 0;
    const ratio = Math.max(before, after) / Math.max(Math.min(before, after), Number.EPSILON);
    const alike = ratio < MIN_RATIO || Math.abs(after - before) < MIN_MS;
    if (alike && (weakest === undefined || ratio < weakest.ratio)) {
      weakest = { place, ratio };
    }
  }
  return weakest === undefined ? bounds : merge(durations, bounds.toSpliced(weakest.place, 1));
}
