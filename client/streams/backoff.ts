/** How long to wait between attempts. */
export interface Backoff {
  /** The longest wait before the second attempt, in milliseconds. Default 250. */
  readonly initialMs?: number;
  /** The longest wait of all, in milliseconds. Default 10,000. */
  readonly maxMs?: number;
  /** Returns a number in [0, 1). Default `Math.random`. */
  readonly random?: () => number;
  /** Waits; ends early, without an error, when the signal aborts. Default: a timer. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/**
 * The wait before the attempt after `attempt` failed ones (1, 2, …): full jitter, so that clients that lost the same
 * server at the same moment do not come back at the same moment.
 * See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
export function backoffDelay(attempt: number, backoff: Backoff = {}): number {
  const { initialMs = 250, maxMs = 10_000, random = Math.random } = backoff;
  return random() * Math.min(maxMs, initialMs * 2 ** (attempt - 1));
}

/** Waits `ms` milliseconds, or until the signal aborts. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
