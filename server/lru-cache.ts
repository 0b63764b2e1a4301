/** A cache that forgets what was used longest ago when it holds more than `capacity`. */
export interface LruCache<V> {
  get(key: string): V | undefined;
  /** `weight` counts towards the capacity. What alone exceeds it is not kept. */
  set(key: string, value: V, weight?: number): void;
}

export function createLruCache<V>(capacity: number): LruCache<V> {
  // A Map iterates in the order of insertion, so the first entry is the one used longest ago.
  const entries = new Map<string, { value: V; weight: number }>();
  let total = 0;

  function remove(key: string): void {
    total -= entries.get(key)?.weight ?? 0;
    entries.delete(key);
  }

  return {
    get(key) {
      const entry = entries.get(key);
      if (!entry) {
        return undefined;
      }
      entries.delete(key);
      entries.set(key, entry);
      return entry.value;
    },
    set(key, value, weight = 1) {
      remove(key);
      if (weight > capacity) {
        return;
      }
      entries.set(key, { value, weight });
      total += weight;
      for (const oldest of entries.keys()) {
        if (total <= capacity) {
          return;
        }
        remove(oldest);
      }
    },
  };
}
