import { type Clock, systemClock } from "../../clock.ts";
import { reportEvent } from "../report-event.ts";
import { createWaitingLine } from "./waiting-line.ts";

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
  /** Those of them that had to wait. */
  readonly waited: number;
  /** How long these have waited, together and at most, in milliseconds. */
  readonly totalWaitMs: number;
  readonly maxWaitMs: number;
  readonly refused: number;
}

interface Waiter {
  begin(): void;
  refuse(reason: FixedConcurrencyRefusal): void;
}

/**
 * A cap on what is done at once: a bulkhead (Nygard 2007, "Release It!"), with a bounded queue that can be left. p-limit keeps what nobody waits for any more until
 * its turn comes, which is never while the work before it hangs.
 */
export function createFixedConcurrency(options: FixedConcurrencyOptions = {}): FixedConcurrency {
  const { limit = 5, maxWaiting = 1_000, clock = systemClock, onEvent } = options;
  if (!(limit >= 1 && maxWaiting >= 0)) {
    throw new RangeError("a cap needs a limit from 1 and a queue from 0 up");
  }
  const waiting = createWaitingLine<Waiter>();
  let running = 0;
  let begun = 0;
  let refused = 0;
  const waits = { waited: 0, totalWaitMs: 0, maxWaitMs: 0 };
  let closed = false;

  function refusal(reason: FixedConcurrencyRefusal): ConcurrencyRefusedError {
    refused += 1;
    reportEvent(onEvent, { kind: "refused", reason });
    return new ConcurrencyRefusedError(reason);
  }

  async function perform<T>(work: () => Promise<T>): Promise<T> {
    running += 1;
    begun += 1;
    try {
      return await work();
    } finally {
      running -= 1;
      waiting.first?.item.begin();
    }
  }

  function wait<T>(work: () => Promise<T>, waitMs: number, signal: AbortSignal | undefined): Promise<T> {
    const since = clock.monotonic();
    return new Promise((resolve, reject) => {
      function leave(): void {
        waiting.leave(place);
        signal?.removeEventListener("abort", abort);
        cancelTimer?.();
      }
      function abort(): void {
        leave();
        reject(signal?.reason);
      }
      const waiter: Waiter = {
        begin() {
          leave();
          const waitedMs = clock.monotonic() - since;
          waits.waited += 1;
          waits.totalWaitMs += waitedMs;
          waits.maxWaitMs = Math.max(waits.maxWaitMs, waitedMs);
          resolve(perform(work));
        },
        refuse(reason) {
          leave();
          reject(refusal(reason));
        },
      };
      const cancelTimer = Number.isFinite(waitMs)
        ? clock.after(waitMs, () => waiter.refuse("deadline"))
        : undefined;
      signal?.addEventListener("abort", abort, { once: true });
      const place = waiting.join(waiter);
    });
  }

  return {
    async run(work, { signal, deadline } = {}) {
      signal?.throwIfAborted();
      if (closed) {
        throw refusal("closed");
      }
      const waitMs = deadline === undefined ? Number.POSITIVE_INFINITY : deadline - clock.now();
      if (waitMs <= 0) {
        throw refusal("deadline");
      }
      if (running < limit) {
        return perform(work);
      }
      if (waiting.size >= maxWaiting) {
        throw refusal("full");
      }
      return wait(work, waitMs, signal);
    },
    stats: () => ({ limit, running, waiting: waiting.size, begun, ...waits, refused }),
    close() {
      closed = true;
      for (let place = waiting.first; place !== undefined; place = waiting.first) {
        place.item.refuse("closed");
      }
    },
  };
}
