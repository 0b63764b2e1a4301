import { type Clock, MAX_TIMER_MS } from "../../clock.ts";

/**
 * Waits; rejects with the signal's reason as soon as it aborts.
 *
 * Timers of a clock let the process end. Here a call is under way, whose outcome someone waits for, and between two
 * attempts there need not be any connection that would keep a command line's process alive.
 */
export function pause(ms: number, clock: Clock, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const alive = setInterval(() => {}, MAX_TIMER_MS);
    const cancel = clock.after(ms, () => {
      clearInterval(alive);
      signal?.removeEventListener("abort", abort);
      resolve();
    });
    function abort() {
      clearInterval(alive);
      cancel();
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", abort, { once: true });
  });
}
