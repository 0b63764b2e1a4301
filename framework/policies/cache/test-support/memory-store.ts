import type { DurableStore, DurableWrite, PurgeScope } from "../durable-store.ts";

/** A store in memory, for several caches to share, that does as it is told. */
export interface MemoryStore extends DurableStore {
  readonly rows: Map<string, DurableWrite>;
  /** `down` rejects, `hanging` never answers. */
  state: "up" | "down" | "hanging";
  reads: number;
}

export function createMemoryStore(): MemoryStore {
  const rows = new Map<string, DurableWrite>();
  const purges: { cache: string; scope: PurgeScope; position: number }[] = [];
  const followers = new Set<{ cache: string; onPurge: (scope: PurgeScope) => void }>();

  function isPurged({ cache, key, tags, position }: DurableWrite): boolean {
    return purges.some(
      ({ cache: purged, scope, position: at }) =>
        purged === cache &&
        at > position &&
        (scope.kind === "all" ||
          (scope.kind === "key" && scope.key === key) ||
          (scope.kind === "tag" && tags.includes(scope.tag))),
    );
  }

  async function answer(): Promise<void> {
    switch (store.state) {
      case "up":
        return;
      case "down":
        throw new Error("the store is down");
      case "hanging":
        return new Promise(() => undefined);
    }
  }

  const idOf = (cache: string, key: string) => JSON.stringify([cache, key]);
  const store: MemoryStore = {
    rows,
    state: "up",
    reads: 0,
    position: () => purges.length,
    async read(cache, key) {
      store.reads++;
      await answer();
      const row = rows.get(idOf(cache, key));
      return row && !isPurged(row) ? row.sealed : undefined;
    },
    async write(entries) {
      await answer();
      for (const entry of entries) {
        rows.set(idOf(entry.cache, entry.key), entry);
      }
    },
    async drop(cache, key, sealed) {
      await answer();
      const id = idOf(cache, key);
      if (rows.get(id)?.sealed === sealed) {
        rows.delete(id);
      }
    },
    async purge(cache, scope) {
      await answer();
      const before = [...rows.values()].filter((row) => row.cache === cache && !isPurged(row)).length;
      purges.push({ cache, scope, position: purges.length + 1 });
      const after = [...rows.values()].filter((row) => row.cache === cache && !isPurged(row)).length;
      for (const follower of followers) {
        if (follower.cache === cache) {
          follower.onPurge(scope);
        }
      }
      return before - after;
    },
    follow(cache, onPurge) {
      const follower = { cache, onPurge };
      followers.add(follower);
      return () => followers.delete(follower);
    },
    isTransient: () => true,
  };
  return store;
}
