import type { Clock } from "../clock.ts";

/** Somebody who waits. */
export interface Waiting {
  /** On the monotonic clock. */
  readonly due: number;
  readonly onTimeout: () => void;
}

/** Timeouts of one length for many, of whom hardly any comes to it. */
export interface DeadlineQueue {
  /** Calls back when the time is over. */
  add(onTimeout: () => void): Waiting;
  /** It has come in time. */
  remove(waiting: Waiting): void;
}

/**
 * Makes a queue with one timer, for the one who waits longest: whoever comes later is due later. A timer for each takes ten
 * times as long to be made and cancelled.
 */
export function createDeadlineQueue(clock: Clock, timeoutMs: number): DeadlineQueue {
  // A Set keeps the order in which they came.
  const queue = new Set<Waiting>();
  let armed = false;

  function arm(ms: number): void {
    armed = true;
    clock.after(ms, expire);
  }

  function expire(): void {
    armed = false;
    const now = clock.monotonic();
    for (const waiting of queue) {
      if (waiting.due > now) {
        arm(waiting.due - now);
        return;
      }
      queue.delete(waiting);
      waiting.onTimeout();
    }
  }

  return {
    add(onTimeout) {
      const waiting = { due: clock.monotonic() + timeoutMs, onTimeout };
      queue.add(waiting);
      if (!armed) {
        arm(timeoutMs);
      }
      return waiting;
    },
    remove: (waiting) => queue.delete(waiting),
  };
}
