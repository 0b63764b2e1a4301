/** Bounds of the waits between attempts, in milliseconds. */
export interface Backoff {
  /** The longest wait before the second attempt; it doubles with each further one. */
  readonly baseDelayMs: number;
  /** The longest wait before any attempt. */
  readonly maxDelayMs: number;
}

/**
 * How long to wait after a number of failed attempts, in milliseconds: anything from nothing to an upper bound that
 * doubles each time ("full jitter" of https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). With
 * 100 ms and 5 s the bounds are 100, 200, 400, 800, 1,600, 3,200, 5,000, 5,000 … ms.
 *
 * Callers that failed together come back spread over the whole interval. Among the variants that the article compares,
 * this one causes the least work.
 *
 * @param failures attempts that failed so far, from 1 up
 * @param random draws from [0, 1)
 */
export function backoffDelayMs(failures: number, bounds: Backoff, random: () => number): number {
  return random() * Math.min(bounds.maxDelayMs, bounds.baseDelayMs * 2 ** (failures - 1));
}
