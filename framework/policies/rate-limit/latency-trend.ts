/** Tells whether calls take longer than usual. */
export interface LatencyTrend {
  /** Takes a latency in milliseconds; true: calls take too long now. */
  observe(latencyMs: number): boolean;
  /** How long calls take now, in milliseconds; undefined before the first. */
  readonly nowMs: number | undefined;
  /** How long they usually take. */
  readonly usualMs: number | undefined;
}

/** Weight of a new latency in what calls take now, and in what is usual: when it is less than that, and when more. */
const NOW_WEIGHT = 0.2;
const FALL_WEIGHT = 0.3;
const RISE_WEIGHT = 0.02;
/** How many latencies are needed before they are judged. */
const MIN_LATENCIES = 10;
/** Latencies below this are never too long, in milliseconds: they are made of this machine's noise. */
const NEGLIGIBLE_MS = 5;

/**
 * Compares moving averages: a fast one of what calls take now with one of what is usual, which follows falling latency
 * quickly and rising latency slowly. So it is a rise that counts, and what lasts becomes usual.
 *
 * @param tolerance how many times as long as usual is too long
 */
export function createLatencyTrend(tolerance: number): LatencyTrend {
  let count = 0;
  let now = 0;
  let usual = 0;
  return {
    observe(latencyMs) {
      if (count === 0) {
        now = latencyMs;
        usual = latencyMs;
      }
      count++;
      now += (latencyMs - now) * NOW_WEIGHT;
      const tooLong = count > MIN_LATENCIES && now > Math.max(usual, NEGLIGIBLE_MS) * tolerance;
      usual += (latencyMs - usual) * (latencyMs < usual ? FALL_WEIGHT : RISE_WEIGHT);
      return tooLong;
    },
    get nowMs() {
      return count === 0 ? undefined : now;
    },
    get usualMs() {
      return count === 0 ? undefined : usual;
    },
  };
}
