/**
 * The source of time. Passed in wherever time matters, so that tests can move it.
 *
 * `now` is wall-clock time in milliseconds since 1970 and may jump; `monotonic` is for measuring, in milliseconds.
 */
export interface Clock {
  now(): number;
  monotonic(): number;
  /** Calls back once after `ms` milliseconds; the returned function cancels. Never keeps the process alive. */
  after(ms: number, callback: () => void): () => void;
}

/** Node's setTimeout fires at once for anything longer: 2^31 - 1 ms, about 24.8 days. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(ms, 0), MAX_TIMER_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
