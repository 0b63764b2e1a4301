import { type Clock, systemClock } from "../../clock.ts";
import { reportEvent } from "../report-event.ts";

export type StoreEvent =
  /** The store failed or did not answer in time: limits are local from now on. */
  | { readonly kind: "store_lost"; readonly cause: unknown }
  /** The store works again, and is used again. */
  | { readonly kind: "store_back"; readonly lostMs: number };

export interface StoreHealthOptions {
  /** Does what calls do with the store. Rejects while that is not possible. */
  readonly probe: () => Promise<unknown>;
  /** How long a call may wait for the store, in milliseconds. Default: 250. */
  readonly deadlineMs?: number | undefined;
  /** How long after the store was lost it is tried again, in milliseconds; doubled after each try. Default: 500. */
  readonly minRetryMs?: number | undefined;
  /** The longest pause between two tries, in milliseconds. Default: 10,000. */
  readonly maxRetryMs?: number | undefined;
  readonly onEvent?: ((event: StoreEvent) => void) | undefined;
  readonly clock?: Clock | undefined;
}

/** Whether a store can be used. Once it is lost nobody waits for it, until a try in the background has succeeded. */
export interface StoreHealth {
  readonly up: boolean;
  readonly deadlineMs: number;
  /**
   * What `work` resolves to, or undefined as soon as the store is lost: because this work fails or takes too long, or
   * because any other does.
   */
  use<T>(work: () => Promise<T>): Promise<T | undefined>;
  /** Says that the store has failed. */
  lose(cause: unknown): void;
  /** Lets everyone go who waits, and tries no more. */
  close(): void;
}

export const DEFAULT_STORE_DEADLINE_MS = 250;

export function createStoreHealth(options: StoreHealthOptions): StoreHealth {
  const { probe, onEvent, clock = systemClock } = options;
  const { deadlineMs = DEFAULT_STORE_DEADLINE_MS, minRetryMs = 500, maxRetryMs = 10_000 } = options;
  /** Ends the waiting of everyone who uses the store now. */
  const waiting = new Set<() => void>();
  let lostAt: number | undefined;
  let retryMs = minRetryMs;
  let cancelRetry = () => {};
  let closed = false;

  function lose(cause: unknown): void {
    if (lostAt !== undefined || closed) {
      return;
    }
    lostAt = clock.monotonic();
    retryMs = minRetryMs;
    for (const letGo of waiting) {
      letGo();
    }
    reportEvent(onEvent, { kind: "store_lost", cause });
    cancelRetry = clock.after(retryMs, retry);
  }

  async function retry(): Promise<void> {
    try {
      await within(probe());
      if (lostAt !== undefined && !closed) {
        const lostMs = clock.monotonic() - lostAt;
        lostAt = undefined;
        reportEvent(onEvent, { kind: "store_back", lostMs });
      }
    } catch {
      if (!closed) {
        retryMs = Math.min(retryMs * 2, maxRetryMs);
        cancelRetry = clock.after(retryMs, retry);
      }
    }
  }

  /** Rejects when the work takes too long, or everyone who waits is let go. */
  function within<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let late: NodeJS.Immediate | undefined;
      const cancel = clock.after(deadlineMs, () => {
        // When this process itself has stood still, the answer may be here and not read yet.
        late = setImmediate(() => settle(() => reject(new Error(`no answer within ${deadlineMs} ms`))));
      });
      const letGo = () => settle(() => reject(new Error("the store is lost")));
      function settle(outcome: () => void): void {
        cancel();
        clearImmediate(late);
        waiting.delete(letGo);
        outcome();
      }
      waiting.add(letGo);
      work.then(
        (value) => settle(() => resolve(value)),
        (reason: unknown) => settle(() => reject(reason)),
      );
    });
  }

  return {
    get up() {
      return lostAt === undefined && !closed;
    },
    deadlineMs,
    async use(work) {
      if (lostAt !== undefined || closed) {
        return undefined;
      }
      try {
        return await within(work());
      } catch (cause) {
        lose(cause);
        return undefined;
      }
    },
    lose,
    close() {
      closed = true;
      cancelRetry();
      for (const letGo of waiting) {
        letGo();
      }
    },
  };
}
