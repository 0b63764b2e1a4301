import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast } from "../demand.ts";
import { keepAlive } from "../keep-alive.ts";
import { reportEvent } from "../report-event.ts";
import { createQueue, type Waiting } from "./queue.ts";

export interface BatcherOptions<T> {
  /** Names the batcher in events, statistics and errors. */
  readonly name: string;
  /**
   * Makes items durable, all of them or, by rejecting, none. Items come in the order in which they were added, and there
   * is one call at a time.
   *
   * A write that was done but whose confirmation got lost is repeated, as for everyone who writes over a network: where a
   * doubled row matters, let the store recognise it by a key (`ON CONFLICT DO NOTHING`).
   *
   * @param signal aborted when `close` does not wait any longer
   */
  readonly write: (items: readonly T[], signal: AbortSignal) => Promise<void>;
  /** As many items are written at once. Default: 500. */
  readonly maxItems?: number;
  /** So many bytes are written at once, but one item at least. Default: no limit. */
  readonly maxBytes?: number;
  /** The size of an item in bytes. Default: 0, which leaves both limits on bytes without effect. */
  readonly sizeOf?: (item: T) => number;
  /** How long the first item waits for others, in milliseconds. Default: 100. */
  readonly maxDelayMs?: number;
  /** As many items wait at most, the ones being written included. Default: 10,000. */
  readonly maxPending?: number;
  /** So many bytes wait at most. Default: no limit. */
  readonly maxPendingBytes?: number;
  /**
   * What happens when there is no room for an item:
   * - `refuse` (default): `add` rejects it. Whoever awaits `add` is slowed down to the pace of the store by that alone.
   * - `drop-oldest`: it takes the place of those that have waited longest; their `add` rejects. For measurements, of
   *   which the newest matter most.
   */
  readonly whenFull?: "refuse" | "drop-oldest";
  /**
   * Whether a failed write may succeed when it is repeated as it is. Items of a write that failed for good are written in
   * halves, so that only those that are themselves at fault are rejected. Default, and where it throws: always.
   */
  readonly isTransient?: (error: unknown) => boolean;
  /** How often a write that failed is repeated before its items are rejected. Default: 5. */
  readonly maxRetries?: number;
  /** The longest wait before the first repetition, in milliseconds; it doubles with each further one. Default: 50. */
  readonly retryDelayMs?: number;
  /** The longest wait before any repetition, in milliseconds. Default: 5,000. */
  readonly maxRetryDelayMs?: number;
  readonly clock?: Clock;
  /** Draws from [0, 1). Default: `Math.random`. */
  readonly random?: () => number;
  readonly onEvent?: (event: BatcherEvent) => void;
}

export type BatcherEvent =
  | { readonly kind: "written"; readonly items: number; readonly durationMs: number }
  /** A write failed and is repeated after `delayMs`. */
  | { readonly kind: "retrying"; readonly items: number; readonly delayMs: number; readonly error: unknown }
  /** A write failed for good; its halves are written separately. */
  | { readonly kind: "split"; readonly items: number; readonly error: unknown }
  /** Items are given up; their `add` rejects. */
  | { readonly kind: "rejected"; readonly items: number; readonly error: unknown }
  /** The first item since the last write was refused for lack of room. */
  | { readonly kind: "full"; readonly pending: number }
  | { readonly kind: "dropped"; readonly items: number };

export interface BatcherStats {
  readonly name: string;
  /** Items that wait or are being written. */
  readonly pending: number;
  readonly pendingBytes: number;
  /** The most that may wait. */
  readonly maxPending: number;
  readonly written: number;
  /** Items that were accepted and given up after failed writes, or by `close`. */
  readonly rejected: number;
  /** Items that were not accepted, mostly for lack of room. */
  readonly refused: number;
  /** Items that gave way to newer ones. */
  readonly dropped: number;
  /** Writes that succeeded. */
  readonly batches: number;
  /** Writes that failed. */
  readonly failures: number;
  /** Items per successful write. */
  readonly averageItems: number;
  /** When the last write succeeded, in milliseconds since 1970; undefined: none has yet. */
  readonly lastWriteTime: number | undefined;
  /** Time from being added to being written, in milliseconds, over all items written. */
  readonly averageWaitMs: number;
  readonly maxWaitMs: number;
}

/** Collects items and writes them together. Nothing is acknowledged before it is written. */
export interface Batcher<T> {
  /**
   * Resolves when the item is durable. Rejects with the error of the write that failed for good, or with a
   * `BatcherError`. Nobody has to look at the result: failures are reported as events too.
   */
  add(item: T): Promise<void>;
  /** Writes everything that was added before the call. Resolves when each of those items is written or rejected. */
  flush(): Promise<void>;
  stats(): BatcherStats;
  /**
   * Accepts nothing any more, writes what waits, and rejects what is not written within `deadlineMs` (default: 5,000).
   * Of those that were being written then, nobody knows whether they are durable.
   */
  close(options?: { readonly deadlineMs?: number }): Promise<void>;
}

/** Why an item was not written, when it is not for what the store said. */
export class BatcherError extends Error {
  override readonly name = "BatcherError";
  readonly reason: "full" | "dropped" | "closed" | "unfinished";

  constructor(batcher: string, reason: BatcherError["reason"]) {
    super(`${batcher}: ${texts[reason]}`);
    this.reason = reason;
  }
}

const texts: Record<BatcherError["reason"], string> = {
  full: "too many items wait to be written",
  dropped: "the item gave way to newer ones",
  closed: "the batcher is closed",
  unfinished: "the batcher was closed before the item was known to be written",
};

/** So much of the queue is dropped at once, so that dropping costs little however fast items come. */
const DROPPED_SHARE = 0.1;

/**
 * Creates a batcher: group commit (DeWitt et al. 1984, "Implementation techniques for main memory database systems").
 *
 * Writes follow each other in order: while one fails and is repeated, everything behind it waits, and the queue fills up.
 * The wait before a repetition is drawn from the whole range up to its limit ("full jitter":
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 *
 * @example
 * const audit = createBatcher({ name: "audit", write: (rows) => store.append(rows) });
 * await audit.add({ who: "ada", what: "reset" }); // now it is stored
 */
export function createBatcher<T>(options: BatcherOptions<T>): Batcher<T> {
  const {
    name,
    write,
    maxItems = 500,
    maxBytes = Number.POSITIVE_INFINITY,
    sizeOf = () => 0,
    maxDelayMs = 100,
    maxPending = 10_000,
    maxPendingBytes = Number.POSITIVE_INFINITY,
    whenFull = "refuse",
    isTransient = () => true,
    maxRetries = 5,
    retryDelayMs = 50,
    maxRetryDelayMs = 5_000,
    clock = systemClock,
    random = Math.random,
    onEvent,
  } = options;
  demandAtLeast(`the batcher ${name}`, 1, { maxItems, maxPending });
  const limits = { maxBytes, maxDelayMs, maxPendingBytes, maxRetries, retryDelayMs, maxRetryDelayMs };
  demandAtLeast(`the batcher ${name}`, 0, limits);

  const queue = createQueue<T>();
  const stop = new AbortController();
  const flushes: { readonly last: number; readonly resolve: () => void }[] = [];
  /** What was taken from the queue and is not settled yet, in order. */
  let inFlight: readonly Waiting<T>[] = [];
  let inFlightBytes = 0;
  let isWriting = false;
  /** Items up to this number are written without waiting for more. */
  let urgent = 0;
  let cancelTimer: (() => void) | undefined;
  /** Ends the wait before a repetition. */
  let wake: (() => void) | undefined;
  let isFull = false;
  let closing: Promise<void> | undefined;

  const counts = { written: 0, rejected: 0, refused: 0, dropped: 0, batches: 0, failures: 0 };
  let lastWriteTime: number | undefined;
  let totalWaitMs = 0;
  let maxWaitMs = 0;

  function report(event: BatcherEvent): void {
    reportEvent(onEvent, event);
  }

  function pending(): number {
    return inFlight.length + queue.length;
  }

  function hasRoom(bytes: number): boolean {
    return (
      pending() < maxPending &&
      // What alone is too large waits alone.
      (inFlightBytes + queue.bytes + bytes <= maxPendingBytes || pending() === 0)
    );
  }

  function makeRoom(bytes: number): void {
    const dropped = queue.take(Math.ceil(queue.length * DROPPED_SHARE), Number.POSITIVE_INFINITY);
    while (queue.length > 0 && !hasRoom(bytes)) {
      dropped.push(...queue.take(1, Number.POSITIVE_INFINITY));
    }
    if (dropped.length > 0) {
      counts.dropped += dropped.length;
      const error = new BatcherError(name, "dropped");
      for (const { reject } of dropped) {
        reject(error);
      }
      report({ kind: "dropped", items: dropped.length });
      endFlushes();
    }
  }

  /** Begins to write when there is a reason to, else sees to it that there will be one. */
  function schedule(): void {
    const first = queue.first();
    if (isWriting || first === undefined) {
      return;
    }
    const waitMs = first.addedAt + maxDelayMs - clock.monotonic();
    if (waitMs <= 0 || queue.length >= maxItems || queue.bytes >= maxBytes || first.number <= urgent) {
      cancelTimer?.();
      cancelTimer = undefined;
      void writeNext();
    } else {
      cancelTimer ??= clock.after(waitMs, () => {
        cancelTimer = undefined;
        schedule();
      });
    }
  }

  async function writeNext(): Promise<void> {
    isWriting = true;
    inFlightBytes = queue.bytes;
    inFlight = queue.take(maxItems, maxBytes);
    inFlightBytes -= queue.bytes;
    await writeOut(inFlight);
    isWriting = false;
    schedule();
  }

  /** Settles every item of a batch, in order. Never rejects. */
  async function writeOut(batch: readonly Waiting<T>[]): Promise<void> {
    const items = batch.map(({ item }) => item);
    for (let retries = 0; !stop.signal.aborted; retries++) {
      const begin = clock.monotonic();
      try {
        await write(items, stop.signal);
        acknowledge(batch, begin);
        return;
      } catch (error) {
        counts.failures++;
        if (stop.signal.aborted) {
          return; // given up: its items have their answer
        }
        const transient = mayPass(error);
        if (!transient && batch.length > 1) {
          report({ kind: "split", items: batch.length, error });
          const middle = batch.length >> 1;
          await writeOut(batch.slice(0, middle));
          return writeOut(batch.slice(middle));
        }
        if (!transient || retries >= maxRetries) {
          reject(batch, error);
          return;
        }
        const delayMs = random() * Math.min(retryDelayMs * 2 ** retries, maxRetryDelayMs);
        report({ kind: "retrying", items: batch.length, delayMs, error });
        await pause(delayMs);
      }
    }
  }

  /** A hook that fails must not keep what waits from ever being settled. */
  function mayPass(error: unknown): boolean {
    try {
      return isTransient(error);
    } catch {
      return true;
    }
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = clock.after(ms, resolve);
      wake = () => {
        cancel();
        resolve();
      };
    });
  }

  function acknowledge(batch: readonly Waiting<T>[], begin: number): void {
    if (stop.signal.aborted) {
      return; // they were told otherwise
    }
    const now = clock.monotonic();
    lastWriteTime = clock.now();
    counts.batches++;
    counts.written += batch.length;
    for (const { addedAt, resolve } of batch) {
      totalWaitMs += now - addedAt;
      maxWaitMs = Math.max(maxWaitMs, now - addedAt);
      resolve();
    }
    settled(batch);
    report({ kind: "written", items: batch.length, durationMs: now - begin });
  }

  function reject(batch: readonly Waiting<T>[], error: unknown): void {
    if (stop.signal.aborted) {
      return;
    }
    rejectAll(batch, error);
    settled(batch);
  }

  function rejectAll(batch: readonly Waiting<T>[], error: unknown): void {
    counts.rejected += batch.length;
    for (const item of batch) {
      item.reject(error);
    }
    report({ kind: "rejected", items: batch.length, error });
  }

  function settled(batch: readonly Waiting<T>[]): void {
    inFlight = inFlight.slice(batch.length);
    inFlightBytes -= batch.reduce((sum, { bytes }) => sum + bytes, 0);
    isFull = false;
    endFlushes();
  }

  function endFlushes(): void {
    const oldest = (inFlight[0] ?? queue.first())?.number ?? Number.POSITIVE_INFINITY;
    while (flushes[0] !== undefined && flushes[0].last < oldest) {
      flushes.shift()?.resolve();
    }
  }

  function flush(): Promise<void> {
    return new Promise((resolve) => {
      urgent = queue.lastNumber;
      flushes.push({ last: urgent, resolve });
      schedule();
      endFlushes();
    });
  }

  async function drain(deadlineMs: number): Promise<void> {
    const cancel = clock.after(deadlineMs, giveUp);
    // Whoever closes as the last thing of all wants it written, however often that has to be tried.
    const letEnd = keepAlive();
    const written = flush();
    wake?.();
    await written;
    letEnd();
    cancel();
  }

  function giveUp(): void {
    const error = new BatcherError(name, "unfinished");
    const rest = [...inFlight, ...queue.take(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)];
    inFlight = [];
    inFlightBytes = 0;
    stop.abort(error);
    wake?.();
    rejectAll(rest, error);
    endFlushes();
  }

  return {
    add(item) {
      if (closing !== undefined) {
        counts.refused++;
        return rejected(new BatcherError(name, "closed"));
      }
      let bytes: number;
      try {
        // One size that is no number would make one of all sums.
        bytes = Math.max(sizeOf(item), 0) || 0;
      } catch (error) {
        counts.refused++;
        return rejected(error);
      }
      if (!hasRoom(bytes) && whenFull === "drop-oldest") {
        makeRoom(bytes);
      }
      if (!hasRoom(bytes)) {
        counts.refused++;
        if (!isFull) {
          isFull = true;
          report({ kind: "full", pending: pending() });
        }
        return rejected(new BatcherError(name, "full"));
      }
      const added = queue.push(item, bytes, clock.monotonic());
      schedule();
      return added;
    },

    flush,

    stats() {
      return {
        name,
        ...counts,
        pending: pending(),
        pendingBytes: inFlightBytes + queue.bytes,
        maxPending,
        averageItems: counts.batches === 0 ? 0 : counts.written / counts.batches,
        lastWriteTime,
        averageWaitMs: counts.written === 0 ? 0 : totalWaitMs / counts.written,
        maxWaitMs,
      };
    },

    close({ deadlineMs = 5_000 } = {}) {
      closing ??= drain(deadlineMs);
      return closing;
    },
  };
}

/** Rejected, and nobody has to look. */
function rejected(error: unknown): Promise<never> {
  const promise = Promise.reject(error);
  promise.catch(() => undefined);
  return promise;
}
