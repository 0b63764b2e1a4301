/** Buckets for each doubling of the latency: a quantile is wrong by less than 4.5 %. */
const PER_OCTAVE = 8;
/** The lowest bucket ends at 2^-6 ms, about 16 µs; the highest at 2^22 ms, about 70 minutes. What is longer counts there. */
const MIN_OCTAVE = -6;
const MAX_OCTAVE = 22;
const BUCKETS = (MAX_OCTAVE - MIN_OCTAVE) * PER_OCTAVE + 1;

/**
 * Latencies in buckets that grow with them, as in DDSketch (Masson, Rim, Lee 2019, "DDSketch: A fast and fully-mergeable
 * quantile sketch with relative-error guarantees"): 1.8 KB, whatever comes. Histograms can be subtracted, so that one
 * that only grows tells about any interval.
 */
export class LatencyHistogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sumMs = 0;

  /** How many latencies are in it. */
  get count(): number {
    return this.#count;
  }

  get sumMs(): number {
    return this.#sumMs;
  }

  record(ms: number): void {
    const index = bucketOf(ms);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#count++;
    this.#sumMs += ms;
  }

  /** The latency that the given share of all is not above, in milliseconds; 0 when there are none. */
  quantile(share: number): number {
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let index = 0; index < BUCKETS; index++) {
      seen += this.#counts[index] ?? 0;
      if (seen >= rank) {
        return middleOf(index);
      }
    }
    return 0;
  }

  /**
   * How many are not above each bound. Exact for powers of two of milliseconds.
   *
   * @param bounds in milliseconds, ascending
   */
  cumulative(bounds: readonly number[]): number[] {
    let index = 0;
    let seen = 0;
    return bounds.map((bound) => {
      for (const last = bucketOf(bound); index <= last; index++) {
        seen += this.#counts[index] ?? 0;
      }
      return seen;
    });
  }

  add(other: LatencyHistogram): void {
    for (let index = 0; index < BUCKETS; index++) {
      this.#counts[index] = (this.#counts[index] ?? 0) + (other.#counts[index] ?? 0);
    }
    this.#count += other.#count;
    this.#sumMs += other.#sumMs;
  }

  /** A histogram of what has come since `earlier`, which is a copy of this one as it was; undefined: it was empty. */
  since(earlier: LatencyHistogram | undefined): LatencyHistogram {
    const difference = this.copy();
    if (earlier !== undefined) {
      for (let index = 0; index < BUCKETS; index++) {
        difference.#counts[index] = (this.#counts[index] ?? 0) - (earlier.#counts[index] ?? 0);
      }
      difference.#count -= earlier.#count;
      difference.#sumMs -= earlier.#sumMs;
    }
    return difference;
  }

  copy(): LatencyHistogram {
    const copy = new LatencyHistogram();
    copy.#counts.set(this.#counts);
    copy.#count = this.#count;
    copy.#sumMs = this.#sumMs;
    return copy;
  }

  clear(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#sumMs = 0;
  }
}

/** A bucket holds what is above its lower end and not above its upper end, as buckets of Prometheus do. */
function bucketOf(ms: number): number {
  const index = Math.ceil((Math.log2(ms) - MIN_OCTAVE) * PER_OCTAVE);
  return index > 0 ? Math.min(index, BUCKETS - 1) : 0;
}

/** The middle of a bucket by ratio: its ends are equally far off. */
function middleOf(index: number): number {
  return 2 ** (MIN_OCTAVE + (index - 0.5) / PER_OCTAVE);
}
