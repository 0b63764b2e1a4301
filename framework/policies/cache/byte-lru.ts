export interface ByteLruOptions<V> {
  /** The most bytes held. Default: 100 MiB. */
  readonly maxBytes?: number;
  /** The most entries held. Default: no limit. */
  readonly maxEntries?: number;
  /** What a value takes, by the caller's reckoning, where `set` is not told. Default: 1, so that entries are counted. */
  readonly bytesOf?: (value: V) => number;
  /** Called with each entry that has to make room for another one. */
  readonly onEvict?: (key: string, value: V) => void;
}

/** Forgets what was used longest ago when there would be too much. Every operation takes constant time. */
export interface ByteLru<V> {
  readonly size: number;
  readonly bytes: number;
  readonly evictions: number;
  /** Counts as a use. */
  get(key: string): V | undefined;
  /** Does not count as a use. */
  peek(key: string): V | undefined;
  /**
   * Keeps a value. False: it alone takes more than there may be, and was not kept; what was there under its key is gone
   * all the same.
   */
  set(key: string, value: V, bytes?: number): boolean;
  delete(key: string): boolean;
  clear(): void;
  /** The entries, those used longest ago first. The one that was given last may be deleted on the way. */
  entries(): IterableIterator<[key: string, value: V]>;
}

interface Node<V> {
  readonly key: string;
  value: V;
  bytes: number;
  older: Node<V> | undefined;
  newer: Node<V> | undefined;
}

/**
 * Creates a cache that is bounded in bytes.
 *
 * A doubly linked list beside the map keeps the order. A map alone would do, since it iterates in the order of
 * insertion, but V8 leaves a hole where an entry was, and finding the first entry steps over all of them.
 */
export function createByteLru<V>(options: ByteLruOptions<V> = {}): ByteLru<V> {
  const {
    maxBytes = 100 * 1024 * 1024,
    maxEntries = Number.POSITIVE_INFINITY,
    bytesOf = () => 1,
    onEvict,
  } = options;
  const nodes = new Map<string, Node<V>>();
  let oldest: Node<V> | undefined;
  let newest: Node<V> | undefined;
  let bytes = 0;
  let evictions = 0;

  function unlink(node: Node<V>): void {
    if (node.older === undefined) {
      oldest = node.newer;
    } else {
      node.older.newer = node.newer;
    }
    if (node.newer === undefined) {
      newest = node.older;
    } else {
      node.newer.older = node.older;
    }
  }

  function append(node: Node<V>): void {
    node.older = newest;
    node.newer = undefined;
    if (newest === undefined) {
      oldest = node;
    } else {
      newest.newer = node;
    }
    newest = node;
  }

  function remove(node: Node<V>): void {
    unlink(node);
    nodes.delete(node.key);
    bytes -= node.bytes;
  }

  function evict(): void {
    while (oldest !== undefined && (bytes > maxBytes || nodes.size > maxEntries)) {
      const { key, value } = oldest;
      remove(oldest);
      evictions++;
      onEvict?.(key, value);
    }
  }

  return {
    get size() {
      return nodes.size;
    },
    get bytes() {
      return bytes;
    },
    get evictions() {
      return evictions;
    },
    get(key) {
      const node = nodes.get(key);
      if (node !== undefined && node !== newest) {
        unlink(node);
        append(node);
      }
      return node?.value;
    },
    peek: (key) => nodes.get(key)?.value,
    set(key, value, size = bytesOf(value)) {
      const known = nodes.get(key);
      if (size > maxBytes || maxEntries < 1) {
        if (known !== undefined) {
          remove(known);
        }
        return false;
      }
      if (known === undefined) {
        const node: Node<V> = { key, value, bytes: size, older: undefined, newer: undefined };
        nodes.set(key, node);
        append(node);
        bytes += size;
      } else {
        bytes += size - known.bytes;
        known.value = value;
        known.bytes = size;
        if (known !== newest) {
          unlink(known);
          append(known);
        }
      }
      evict();
      return true;
    },
    delete(key) {
      const node = nodes.get(key);
      if (node !== undefined) {
        remove(node);
      }
      return node !== undefined;
    },
    clear() {
      nodes.clear();
      oldest = undefined;
      newest = undefined;
      bytes = 0;
    },
    *entries() {
      for (let node = oldest; node !== undefined; ) {
        // An entry that is deleted meanwhile still knows what came after it.
        const { newer } = node;
        yield [node.key, node.value];
        node = newer;
      }
    },
  };
}
