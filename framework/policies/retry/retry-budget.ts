import { type Clock, systemClock } from "../../clock.ts";

export interface RetryBudgetOptions {
  /** Repetitions as a share of first attempts. Default: 0.2, those of Finagle and Linkerd. */
  readonly ratio?: number;
  /** Repetitions a second that are allowed besides, for callers with few calls. Default: 3. */
  readonly minPerSecond?: number;
  /** The span over which both are counted, in milliseconds. Default: 10,000. */
  readonly windowMs?: number;
  readonly clock?: Clock;
}

/** A source of permission to repeat, to be shared by everyone who calls the same target. */
export interface RetryBudget {
  /** Counts a first attempt. */
  count(): void;
  /** Takes permission for one repetition, if there is one. */
  trySpend(): boolean;
  stats(): RetryBudgetStats;
}

export interface RetryBudgetStats {
  /** First attempts and repetitions within the window. */
  readonly calls: number;
  readonly retries: number;
  /** Repetitions that are possible now. */
  readonly available: number;
  /** Repetitions denied since the start. */
  readonly denied: number;
}

/** The window moves on by one of as many parts of its length. */
const PARTS = 10;

/**
 * Keeps repetitions to a share of the calls, so that a target that is down gets at most that much more load, not a
 * multiple of it (Finagle's `RetryBudget`; "Addressing Cascading Failures" in Google's SRE book).
 *
 * A repetition is allowed as long as the window that ends with it has at most `ratio × calls + minPerSecond × seconds` of
 * them. Unlike in a bucket of tokens, what was not spent in quiet times is not saved for bad ones.
 */
export function createRetryBudget(options: RetryBudgetOptions = {}): RetryBudget {
  const { ratio = 0.2, minPerSecond = 3, windowMs = 10_000, clock = systemClock } = options;
  if (!(ratio >= 0 && minPerSecond >= 0 && windowMs > 0)) {
    throw new RangeError(
      "a retry budget needs a ratio and a minimum from 0 up, and a window longer than that",
    );
  }
  const partMs = windowMs / PARTS;
  const reserve = (minPerSecond * windowMs) / 1_000;
  const callsIn = new Float64Array(PARTS);
  const retriesIn = new Float64Array(PARTS);
  let calls = 0;
  let retries = 0;
  let denied = 0;
  /** The number of the part that is being filled, counted from the clock's beginning. */
  let current = Math.floor(clock.monotonic() / partMs);

  /** Forgets the parts that have left the window; returns where the current one is. */
  function moveOn(): number {
    const now = Math.floor(clock.monotonic() / partMs);
    for (let left = Math.min(now - current, PARTS); left > 0; left--) {
      const oldest = (now - left + 1) % PARTS;
      calls -= callsIn[oldest] ?? 0;
      retries -= retriesIn[oldest] ?? 0;
      callsIn[oldest] = 0;
      retriesIn[oldest] = 0;
    }
    current = Math.max(current, now);
    return current % PARTS;
  }

  // A ratio that is no binary fraction makes sums that fall short by a trifle.
  const available = () => Math.floor(ratio * calls + reserve - retries + 1e-9);

  return {
    count() {
      const part = moveOn();
      calls += 1;
      callsIn[part] = (callsIn[part] ?? 0) + 1;
    },
    trySpend() {
      const part = moveOn();
      if (available() < 1) {
        denied += 1;
        return false;
      }
      retries += 1;
      retriesIn[part] = (retriesIn[part] ?? 0) + 1;
      return true;
    },
    stats() {
      moveOn();
      return { calls, retries, available: Math.max(0, available()), denied };
    },
  };
}
