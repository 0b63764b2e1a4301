/** How many calls are let through. */
export interface RateLimit {
  /** Calls a period, 1 or more, whole. */
  readonly limit: number;
  /** In milliseconds, 1 or more. */
  readonly periodMs: number;
  /** How many may come at once after a quiet time, 1 or more, whole. Default: 20, or `limit` where that is less. */
  readonly burst?: number;
}

/** Default of `RateLimit.burst`. */
export const DEFAULT_BURST = 20;

/**
 * A token bucket as the generic cell rate algorithm: ITU-T I.371, annex A ("virtual scheduling"), the same as a leaky
 * bucket used as a meter. A bucket of `burst` tokens is filled at `limit` tokens a period; a call takes one.
 *
 * All there is to remember of a bucket is one number, its *theoretical arrival time* (TAT): when it will be full again,
 * in the milliseconds of whatever clock `now` comes from. Whoever is past that time is as good as new.
 *
 * Whatever the order of calls, any period, both ends included, sees at most `limit + burst` of them.
 */
export interface Gcra {
  readonly limit: number;
  readonly periodMs: number;
  readonly burst: number;
  /** Milliseconds in which one token comes. */
  readonly intervalMs: number;
  /** How far ahead of time a call may come and still conform: the filling time of all tokens but its own. */
  readonly toleranceMs: number;
}

/**
 * Calls may come this much early, in milliseconds. Sums of fractions are not exact, and whoever waited as long as told
 * must get through. It is less than the time of one token, and so can add no call to what a period may see.
 */
const SLACK_MS = 1e-4;
/** The shortest time of one token, in milliseconds: ten million calls a second. */
const MIN_INTERVAL_MS = 2 * SLACK_MS;

/** Checks a limit and works out what each decision needs. Throws a RangeError that says what is wrong. */
export function createGcra({ limit, periodMs, burst = Math.min(DEFAULT_BURST, limit) }: RateLimit): Gcra {
  for (const [name, value] of Object.entries({ limit, burst })) {
    if (!(Number.isSafeInteger(value) && value >= 1)) {
      throw new RangeError(`${name} must be a whole number of 1 or more, not ${value}`);
    }
  }
  if (!(Number.isFinite(periodMs) && periodMs >= 1)) {
    throw new RangeError(`periodMs must be 1 or more, not ${periodMs}`);
  }
  const intervalMs = periodMs / limit;
  if (intervalMs < MIN_INTERVAL_MS) {
    throw new RangeError(`${limit} calls in ${periodMs} ms are more than can be counted`);
  }
  return { limit, periodMs, burst, intervalMs, toleranceMs: (burst - 1) * intervalMs };
}

/** How long a call has to wait, in milliseconds; 0: not at all. */
export function waitMs(gcra: Gcra, tat: number, now: number): number {
  const early = tat - gcra.toleranceMs - now;
  return early > SLACK_MS ? early : 0;
}

/** The TAT after a call that conforms. */
export function spend(gcra: Gcra, tat: number, now: number): number {
  return Math.max(tat, now) + gcra.intervalMs;
}

/** How many calls may come at once. */
export function remaining(gcra: Gcra, tat: number, now: number): number {
  const debtMs = Math.max(0, tat - now);
  return Math.max(0, Math.floor((gcra.burst * gcra.intervalMs - debtMs + SLACK_MS) / gcra.intervalMs));
}

/** How long until the bucket is full, in milliseconds, when no more calls come. */
export function resetMs(tat: number, now: number): number {
  return Math.max(0, tat - now);
}
