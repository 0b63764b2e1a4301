/** What a normal distribution's standard deviation is, in median absolute deviations. */
const DEVIATIONS = 1.4826;

/** The median of what is sorted; undefined of nothing. */
export function medianOfSorted(sorted: Float64Array): number | undefined {
  return medianOf(sorted.length, (rank) => sorted[rank] ?? Number.NaN);
}

/** The median of what is sorted without one of its values; undefined when nothing is left. */
export function medianOfOthers(sorted: Float64Array, value: number | undefined): number | undefined {
  const own = value === undefined ? -1 : sorted.indexOf(value);
  return own < 0
    ? medianOfSorted(sorted)
    : medianOf(sorted.length - 1, (rank) => sorted[rank < own ? rank : rank + 1] ?? Number.NaN);
}

function medianOf(count: number, at: (rank: number) => number): number | undefined {
  return count === 0 ? undefined : (at(Math.floor(count / 2)) + at(Math.floor((count - 1) / 2))) / 2;
}

/**
 * Below which success rate an instance is an outlier: `factor` deviations under the median, and at least `gap`.
 *
 * Envoy takes the mean and the standard deviation. The outlier is part of both, so that among n instances nothing can be
 * more than √(n − 1) deviations from the mean: with 1.9 deviations that finds nobody among three or four. The median
 * and the median absolute deviation (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993) do not move with
 * the outliers until those are half.
 */
export function outlyingRate(rates: Float64Array, factor: number, gap: number): number {
  const median = medianOfSorted(rates.toSorted()) ?? 0;
  const deviation = medianOfSorted(rates.map((rate) => Math.abs(rate - median)).toSorted()) ?? 0;
  return median - Math.max(factor * DEVIATIONS * deviation, gap);
}
