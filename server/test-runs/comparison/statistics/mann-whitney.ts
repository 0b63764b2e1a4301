import { normalAbove } from "./normal.ts";

/** Up to so many values on the smaller side, and four times as many in all, probabilities are counted, not approximated. */
const MAX_EXACT = 20;

export interface MannWhitney {
  /** In how many pairs the value of `second` is above that of `first`; equal ones count half. */
  readonly u: number;
  /** The probability, two-sided, of such a difference between samples of one population. */
  readonly p: number;
  /** Cliff's delta (1993): the share of pairs in which `second` is above, less the share in which it is below. */
  readonly effect: number;
}

/**
 * Whether the values of two samples differ in height, whatever their distribution. Mann and Whitney 1947; exact for small
 * samples without ties, else approximated by the normal distribution, corrected for ties and continuity (Hollander, Wolfe
 * and Chicken 2014, section 4.1).
 */
export function mannWhitney(first: readonly number[], second: readonly number[]): MannWhitney {
  const n = first.length;
  const m = second.length;
  const { u, tieTerm } = rankBoth(first, second);
  const effect = n * m === 0 ? 0 : (2 * u) / (n * m) - 1;
  if (n === 0 || m === 0) {
    return { u, p: 1, effect };
  }
  const exact = tieTerm === 0 && Math.min(n, m) <= MAX_EXACT && n + m <= 4 * MAX_EXACT;
  const p = exact ? exactProbability(u, n, m) : approximateProbability(u, n, m, tieTerm);
  return { u, p, effect };
}

/** U of the second sample, and the sum of t³ - t over groups of t equal values. */
function rankBoth(first: readonly number[], second: readonly number[]): { u: number; tieTerm: number } {
  const a = Float64Array.from(first).sort();
  const b = Float64Array.from(second).sort();
  let u = 0;
  let tieTerm = 0;
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const value = Math.min(a[i] ?? Number.POSITIVE_INFINITY, b[j] ?? Number.POSITIVE_INFINITY);
    const fromA = i;
    const fromB = j;
    while (a[i] === value) i++;
    while (b[j] === value) j++;
    const equal = i - fromA + (j - fromB);
    u += (j - fromB) * (fromA + (i - fromA) / 2);
    tieTerm += equal ** 3 - equal;
  }
  return { u, tieTerm };
}

function exactProbability(u: number, n: number, m: number): number {
  const cumulative = cumulativeCounts(Math.min(n, m), Math.max(n, m));
  const all = cumulative.at(-1) ?? 1;
  const extreme = cumulative[Math.min(u, n * m - u)] ?? all;
  return Math.min(1, (2 * extreme) / all);
}

const countsBySize = new Map<number, Float64Array>();

/**
 * How many orders of n and m values have a U of at most each value. The counts are the coefficients of the Gaussian
 * binomial [n + m over n], a product of (1 - q^(m + i)) / (1 - q^i). Kept: at most 20 x 79 sizes ask for it.
 */
function cumulativeCounts(n: number, m: number): Float64Array {
  const key = n * 4 * MAX_EXACT + m;
  const known = countsBySize.get(key);
  if (known !== undefined) {
    return known;
  }
  const counts = new Float64Array(n * m + 1);
  counts[0] = 1;
  for (let i = 1; i <= n; i++) {
    for (let u = n * m; u >= m + i; u--) {
      counts[u] = (counts[u] ?? 0) - (counts[u - m - i] ?? 0);
    }
    for (let u = i; u <= n * m; u++) {
      counts[u] = (counts[u] ?? 0) + (counts[u - i] ?? 0);
    }
  }
  for (let u = 1; u <= n * m; u++) {
    counts[u] = (counts[u] ?? 0) + (counts[u - 1] ?? 0);
  }
  countsBySize.set(key, counts);
  return counts;
}

function approximateProbability(u: number, n: number, m: number, tieTerm: number): number {
  const all = n + m;
  const deviation = Math.sqrt(((n * m) / 12) * (all + 1 - tieTerm / (all * (all - 1))));
  if (deviation === 0 || Number.isNaN(deviation)) {
    return 1;
  }
  const distance = Math.abs(u - (n * m) / 2) - 0.5;
  return Math.min(1, 2 * normalAbove(distance / deviation));
}
