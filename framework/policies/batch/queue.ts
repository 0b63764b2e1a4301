/** An item that waits to be written. */
export interface Waiting<T> {
  readonly item: T;
  readonly bytes: number;
  /** Counts up from 1 in the order in which items were added. */
  readonly number: number;
  /** Monotonic time. */
  readonly addedAt: number;
  resolve(): void;
  reject(error: unknown): void;
}

/** First in, first out, in constant time. */
export interface Queue<T> {
  readonly length: number;
  readonly bytes: number;
  /** The number of the item that was added last, whether or not it is still here; 0: none was. */
  readonly lastNumber: number;
  first(): Waiting<T> | undefined;
  /** The promise is settled by whoever takes the item out. */
  push(item: T, bytes: number, now: number): Promise<void>;
  /** Takes out what comes first: one item, and as many more as stay within both limits. */
  take(maxItems: number, maxBytes: number): Waiting<T>[];
}

/** As many places of taken items are kept before the others are moved up. */
const MAX_GAP = 1_024;

export function createQueue<T>(): Queue<T> {
  let items: Waiting<T>[] = [];
  /** Where the first item is. */
  let head = 0;
  let bytes = 0;
  let lastNumber = 0;

  return {
    get length() {
      return items.length - head;
    },
    get bytes() {
      return bytes;
    },
    get lastNumber() {
      return lastNumber;
    },
    first: () => items[head],

    push(item, size, now) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      // Whoever does not look at the result must not be ended by an unhandled rejection.
      promise.catch(() => undefined);
      items.push({ item, bytes: size, number: ++lastNumber, addedAt: now, resolve, reject });
      bytes += size;
      return promise;
    },

    take(maxItems, maxBytes) {
      let end = head;
      let size = 0;
      for (; end < items.length && end - head < maxItems; end++) {
        const next = items[end]?.bytes ?? 0;
        if (end > head && size + next > maxBytes) {
          break;
        }
        size += next;
      }
      const taken = items.slice(head, end);
      bytes -= size;
      // Moving the rest up costs as much as there is left, so it is done for many at once.
      if (end === items.length) {
        items = [];
        head = 0;
      } else if (end > MAX_GAP && end > items.length / 2) {
        items = items.slice(end);
        head = 0;
      } else {
        items.fill(undefined as never, head, end); // nobody reads there any more; lets go of what was taken
        head = end;
      }
      return taken;
    },
  };
}
