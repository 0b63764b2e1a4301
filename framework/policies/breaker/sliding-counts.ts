/** How a window of time is counted. */
export interface SlidingCountsOptions {
  /** How far back counts reach, in milliseconds. */
  readonly windowMs: number;
  /** Into how many buckets the window is cut: counts are exact to within `windowMs / buckets`. */
  readonly buckets: number;
  /** How many things are counted side by side. */
  readonly columns: number;
}

/**
 * Counts of what happened within the last `windowMs`, in a ring of buckets: memory does not depend on how much happens,
 * adding costs the same at any load, and the sums are kept, not computed.
 */
export class SlidingCounts {
  readonly #bucketMs: number;
  readonly #buckets: number;
  readonly #columns: number;
  /** Bucket by bucket, the columns of each side by side. */
  readonly #counts: Float64Array;
  readonly #sums: Float64Array;
  /** The number of the newest bucket since the clock began. */
  #newest = 0;

  constructor({ windowMs, buckets, columns }: SlidingCountsOptions) {
    this.#bucketMs = windowMs / buckets;
    this.#buckets = buckets;
    this.#columns = columns;
    this.#counts = new Float64Array(buckets * columns);
    this.#sums = new Float64Array(columns);
  }

  /** Adds one to a column; `now` is in milliseconds, of a clock that only moves forward. */
  add(column: number, now: number): void {
    this.forget(now);
    const index = (this.#newest % this.#buckets) * this.#columns + column;
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#sums[column] = (this.#sums[column] ?? 0) + 1;
  }

  /** The sum of a column, as of the last `add` or `forget`. */
  sum(column: number): number {
    return this.#sums[column] ?? 0;
  }

  /** Drops what has become older than the window. */
  forget(now: number): void {
    const bucket = Math.floor(now / this.#bucketMs);
    if (bucket <= this.#newest) {
      return;
    }
    for (let passed = Math.min(bucket - this.#newest, this.#buckets); passed > 0; passed--) {
      const start = ((bucket - passed + 1) % this.#buckets) * this.#columns;
      for (let column = 0; column < this.#columns; column++) {
        this.#sums[column] = (this.#sums[column] ?? 0) - (this.#counts[start + column] ?? 0);
        this.#counts[start + column] = 0;
      }
    }
    this.#newest = bucket;
  }

  clear(): void {
    this.#counts.fill(0);
    this.#sums.fill(0);
  }
}
