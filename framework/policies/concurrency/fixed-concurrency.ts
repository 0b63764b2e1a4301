import pLimit from "p-limit";
import { type Clock, systemClock } from "../../clock.ts";
import { reportEvent } from "../report-event.ts";

export interface FixedConcurrencyOptions {
  /** How much is done at once. Default: 5. */
  readonly limit?: number;
  /** How much may wait for its turn; more is refused. Default: 1,000. */
  readonly maxWaiting?: number;
  readonly clock?: Clock;
  readonly onEvent?: (event: FixedConcurrencyEvent) => void;
}

export type FixedConcurrencyRefusal =
  /** As much waits as may wait. */
  | "full"
  /** Its turn did not come before its deadline. */
  | "deadline"
  /** `close` was called. */
  | "closed";

export type FixedConcurrencyEvent = { readonly kind: "refused"; readonly reason: FixedConcurrencyRefusal };

/** Work that was not begun. */
export class ConcurrencyRefusedError extends Error {
  override readonly name = "ConcurrencyRefusedError";
  readonly reason: FixedConcurrencyRefusal;

  constructor(reason: FixedConcurrencyRefusal) {
    super(`the work was not begun: ${reason}`);
    this.reason = reason;
  }
}

/** The circumstances of one piece of work, as long as it waits. What it does afterwards is its own business. */
export interface WaitOptions {
  /** Gives up waiting. */
  readonly signal?: AbortSignal | undefined;
  /** Until when to wait at most, in milliseconds since 1970. */
  readonly deadline?: number | undefined;
}

export interface FixedConcurrency {
  /**
   * Does some work when its turn comes, in the order of the calls. Rejects with the work's own error, with the signal's
   * reason, or with a `ConcurrencyRefusedError`. One failure does nothing to the others.
   */
  run<T>(work: () => Promise<T>, options?: WaitOptions): Promise<T>;
  stats(): FixedConcurrencyStats;
  /** Refuses what waits and what comes. What is being done goes on. */
  close(): void;
}

export interface FixedConcurrencyStats {
  readonly limit: number;
  readonly running: number;
  readonly waiting: number;
  /** Pieces of work begun since the start. */
  readonly begun: number;
  readonly refused: number;
}

/** So many abandoned entries of the queue are tolerated, and as many as there are that still wait. */
const MAX_ABANDONED = 32;

/** A cap on what is done at once: p-limit with a bounded queue that can be left. */
export function createFixedConcurrency(options: FixedConcurrencyOptions = {}): FixedConcurrency {
  const { limit = 5, maxWaiting = 1_000, clock = systemClock, onEvent } = options;
  const queue = pLimit(limit);
  /** What has not begun, in the order in which it came. */
  const waiting = new Set<Waiter>();
  let running = 0;
  let begun = 0;
  let refused = 0;
  let closed = false;

  interface Waiter {
    readonly begin: () => Promise<void>;
    readonly refuse: (reason: FixedConcurrencyRefusal) => void;
  }

  function enqueue(waiter: Waiter): void {
    void queue(() => (waiting.has(waiter) ? waiter.begin() : undefined));
  }

  /**
   * p-limit keeps what nobody waits for any more until its turn comes, which is never while the work before it hangs:
   * when there is too much of it, the queue is made anew.
   */
  function forget(waiter: Waiter): void {
    waiting.delete(waiter);
    if (queue.pendingCount > 2 * waiting.size + MAX_ABANDONED) {
      queue.clearQueue();
      for (const other of waiting) {
        enqueue(other);
      }
    }
  }

  function refusal(reason: FixedConcurrencyRefusal): ConcurrencyRefusedError {
    refused += 1;
    reportEvent(onEvent, { kind: "refused", reason });
    return new ConcurrencyRefusedError(reason);
  }

  return {
    run<T>(work: () => Promise<T>, { signal, deadline }: WaitOptions = {}) {
      if (signal?.aborted) {
        return Promise.reject(signal.reason);
      }
      if (closed) {
        return Promise.reject(refusal("closed"));
      }
      // p-limit begins in a later turn: what it will begin then does not wait.
      if (waiting.size - Math.max(0, limit - running) >= maxWaiting) {
        return Promise.reject(refusal("full"));
      }
      const waitMs = deadline === undefined ? Number.POSITIVE_INFINITY : deadline - clock.now();
      if (waitMs <= 0) {
        return Promise.reject(refusal("deadline"));
      }
      return new Promise<T>((resolve, reject) => {
        function leave(): void {
          signal?.removeEventListener("abort", abort);
          cancelTimer?.();
        }
        const waiter: Waiter = {
          async begin() {
            leave();
            waiting.delete(waiter);
            running += 1;
            begun += 1;
            try {
              resolve(await work());
            } catch (error) {
              reject(error);
            } finally {
              running -= 1;
            }
          },
          refuse(reason) {
            leave();
            forget(waiter);
            reject(refusal(reason));
          },
        };
        function abort(): void {
          leave();
          forget(waiter);
          reject(signal?.reason);
        }
        const cancelTimer = Number.isFinite(waitMs)
          ? clock.after(waitMs, () => waiter.refuse("deadline"))
          : undefined;
        signal?.addEventListener("abort", abort, { once: true });
        waiting.add(waiter);
        enqueue(waiter);
      });
    },
    stats: () => ({ limit, running, waiting: waiting.size, begun, refused }),
    close() {
      closed = true;
      for (const waiter of [...waiting]) {
        waiter.refuse("closed");
      }
    },
  };
}
