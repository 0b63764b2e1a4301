import type { Clock } from "../../clock.ts";
import { type BatcherStats, createBatcher } from "../batch/batcher.ts";
import { createBreaker } from "../breaker/breaker.ts";
import type { BreakerEvent } from "../breaker/state.ts";
import { withDeadline } from "./deadline.ts";
import type { DurableStore, DurableWrite, PurgeScope } from "./durable-store.ts";
import { type CacheEntry, createSealer } from "./sealed-entry.ts";

export interface DurableLayerOptions {
  readonly name: string;
  readonly store: DurableStore;
  readonly secrets: readonly Uint8Array[];
  /** How long an entry is of use after it was fresh, in milliseconds. */
  readonly keepMs: number;
  readonly readTimeoutMs: number;
  readonly clock: Clock;
  readonly random: () => number;
  readonly onEvent: (event: DurableEvent) => void;
}

export type DurableEvent =
  /** An entry was not what had been sealed, and was dropped. */
  | { readonly kind: "tampered"; readonly key: string }
  /** An entry was sealed with a secret that is not known here. */
  | { readonly kind: "unknown-key"; readonly key: string }
  | { readonly kind: "read-failed"; readonly error: unknown }
  | { readonly kind: "write-failed"; readonly entries: number; readonly error: unknown }
  /** While the breaker is open, nothing is read from the store: each read would cost a call its time limit. */
  | { readonly kind: "store-breaker"; readonly event: BreakerEvent };

export interface DurableStats {
  readonly reads: number;
  /** Reads that failed or took too long. */
  readonly readFailures: number;
  /** Reads left out while the store was failing. */
  readonly readsSkipped: number;
  readonly tampered: number;
  readonly unknownKey: number;
  readonly writer: BatcherStats;
}

/** The entries of one cache in a store. Whatever happens to the store, no call fails or waits long for it. */
export interface DurableLayer {
  position(): number;
  /** Never rejects. */
  read(key: string): Promise<CacheEntry | undefined>;
  /** Written in the background. */
  write(key: string, entry: CacheEntry, position: number): void;
  purge(scope: PurgeScope): Promise<number>;
  flush(): Promise<void>;
  stats(): DurableStats;
  close(): Promise<void>;
}

/** How long a store that fails is left alone at first, and at most. */
const OPEN_MS = 1_000;
const MAX_OPEN_MS = 30_000;
/** What waits to be written takes no more memory than this. */
const MAX_PENDING_BYTES = 32 * 1024 * 1024;

export function createDurableLayer(options: DurableLayerOptions): DurableLayer {
  const { name, store, keepMs, readTimeoutMs, clock, random, onEvent } = options;
  const sealer = createSealer(options.secrets);
  const counts = { reads: 0, readFailures: 0, readsSkipped: 0, tampered: 0, unknownKey: 0 };
  const breaker = createBreaker({
    name: `${name} cache`,
    openMs: OPEN_MS,
    maxOpenMs: MAX_OPEN_MS,
    jitter: 0.2,
    clock,
    random,
    onEvent: (event) => onEvent({ kind: "store-breaker", event }),
  });

  const writer = createBatcher<DurableWrite>({
    name: `${name} cache`,
    maxItems: 200,
    maxBytes: 4 * 1024 * 1024,
    sizeOf: ({ sealed }) => sealed.byteLength,
    maxPending: 5_000,
    maxPendingBytes: MAX_PENDING_BYTES,
    // An answer that was not kept can be loaded again; the one before last is more likely to have been forgotten.
    whenFull: "drop-oldest",
    maxRetries: 2,
    clock,
    random,
    isTransient: (error) => store.isTransient(error),
    write: (entries) => store.write(onlyLast(entries)),
    onEvent(event) {
      if (event.kind === "rejected") {
        onEvent({ kind: "write-failed", entries: event.items, error: event.error });
      }
    },
  });

  function open(key: string, sealed: Uint8Array): CacheEntry | undefined {
    const opened = sealer.open(name, key, sealed);
    switch (opened.kind) {
      case "intact":
        return opened.entry;
      case "tampered":
        counts.tampered++;
        onEvent({ kind: "tampered", key });
        store.drop(name, key, sealed).catch((error: unknown) => {
          onEvent({ kind: "write-failed", entries: 1, error });
        });
        return undefined;
      case "unknown-key":
        // Another replica may know the secret, so the entry stays.
        counts.unknownKey++;
        onEvent({ kind: "unknown-key", key });
        return undefined;
    }
  }

  return {
    position: () => store.position(),

    async read(key) {
      const permit = breaker.tryAcquire();
      if (!permit.allowed) {
        counts.readsSkipped++;
        return undefined;
      }
      counts.reads++;
      try {
        const sealed = await withDeadline(clock, readTimeoutMs, (signal) => store.read(name, key, signal));
        permit.record("success");
        return sealed && open(key, sealed);
      } catch (error) {
        permit.record("failure", String(error));
        counts.readFailures++;
        onEvent({ kind: "read-failed", error });
        return undefined;
      }
    },

    write(key, entry, position) {
      void writer.add({
        cache: name,
        key,
        sealed: sealer.seal(name, key, entry),
        tags: entry.tags,
        keepUntil: entry.loadedAt + entry.ttlMs + keepMs,
        position,
      });
    },

    purge: (scope) => store.purge(name, scope),
    flush: () => writer.flush(),
    stats: () => ({ ...counts, writer: writer.stats() }),
    close: () => writer.close(),
  };
}

/** Of several entries for one key the last: a statement may touch each row only once. */
function onlyLast(entries: readonly DurableWrite[]): DurableWrite[] {
  return [...new Map(entries.map((entry) => [entry.key, entry])).values()];
}
