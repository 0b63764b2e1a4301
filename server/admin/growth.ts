/** A slope over less than this is that of a start, in milliseconds. */
const MIN_SPAN_MS = 600_000;

/** Sizes over time, the latest ones. */
export class Growth {
  readonly #capacity: number;
  readonly #points: { readonly at: number; readonly size: number }[] = [];

  /** @param capacity how many sizes are kept */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** @param at in milliseconds, of any clock that does not jump */
  add(at: number, size: number): void {
    this.#points.push({ at, size });
    if (this.#points.length > this.#capacity) {
      this.#points.shift();
    }
  }

  get first(): number {
    return this.#points[0]?.size ?? 0;
  }

  get last(): number {
    return this.#points.at(-1)?.size ?? 0;
  }

  /** The time between the first and the last, in milliseconds. */
  get spanMs(): number {
    return (this.#points.at(-1)?.at ?? 0) - (this.#points[0]?.at ?? 0);
  }

  /** Whether as many sizes as are kept have come, none is below the one before, and more than half are above it. */
  get onlyGrew(): boolean {
    if (this.#points.length < this.#capacity) {
      return false;
    }
    const steps = this.#points.slice(1).map(({ size }, index) => size - (this.#points[index]?.size ?? 0));
    return steps.every((step) => step >= 0) && steps.filter((step) => step > 0).length > steps.length / 2;
  }

  /**
   * The slope of the straight line that fits best (least squares), in sizes per hour; 0 for fewer than four sizes or less
   * than ten minutes.
   */
  get perHour(): number {
    const n = this.#points.length;
    if (n < 4 || this.spanMs < MIN_SPAN_MS) {
      return 0;
    }
    const meanAt = this.#points.reduce((sum, { at }) => sum + at, 0) / n;
    const meanSize = this.#points.reduce((sum, { size }) => sum + size, 0) / n;
    let covariance = 0;
    let variance = 0;
    for (const { at, size } of this.#points) {
      covariance += (at - meanAt) * (size - meanSize);
      variance += (at - meanAt) ** 2;
    }
    return variance === 0 ? 0 : (covariance / variance) * 3_600_000;
  }
}
