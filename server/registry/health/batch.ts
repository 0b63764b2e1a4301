import type { Clock } from "@toolplane/framework";

export interface BatchOptions<T> {
  readonly clock: Clock;
  /** How long the first item waits for others, in milliseconds. */
  readonly delayMs: number;
  /** As many items are written at once. */
  readonly maxItems: number;
  /** As many items wait at most; the oldest are dropped for newer ones. */
  readonly maxWaiting: number;
  /** Takes care of its own errors. */
  write(items: readonly T[]): Promise<void>;
  /** Called with how many items were dropped. */
  onDrop(count: number): void;
}

/** Collects items and writes them together, one batch after the other. */
export interface Batch<T> {
  add(item: T): void;
  /** Writes everything that was added before the call. */
  flush(): Promise<void>;
}

export function createBatch<T>({
  clock,
  delayMs,
  maxItems,
  maxWaiting,
  write,
  onDrop,
}: BatchOptions<T>): Batch<T> {
  let waiting: T[] = [];
  let cancelTimer: (() => void) | undefined;
  let writing: Promise<void> | undefined;

  async function writeAll(): Promise<void> {
    while (waiting.length > 0) {
      await write(waiting.splice(0, maxItems));
    }
  }

  function start(): Promise<void> {
    cancelTimer?.();
    cancelTimer = undefined;
    writing ??= writeAll().finally(() => {
      writing = undefined;
    });
    return writing;
  }

  return {
    add(item) {
      waiting.push(item);
      if (waiting.length > maxWaiting) {
        // A tenth at once, so that dropping costs little however fast items come.
        const dropped = Math.ceil(maxWaiting / 10);
        waiting = waiting.slice(dropped);
        onDrop(dropped);
      }
      if (waiting.length >= maxItems) {
        void start();
      } else {
        cancelTimer ??= clock.after(delayMs, () => void start());
      }
    },
    flush: start,
  };
}
