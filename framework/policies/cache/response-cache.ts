import { type Clock, systemClock } from "../../clock.ts";
import { type CoalescerStats, createCoalescer, type Flight } from "../coalesce/coalescer.ts";
import { demandAtLeast } from "../demand.ts";
import { reportEvent } from "../report-event.ts";
import { createByteLru } from "./byte-lru.ts";
import { withDeadline } from "./deadline.ts";
import {
  createDurableLayer,
  type DurableEvent,
  type DurableLayer,
  type DurableStats,
} from "./durable-layer.ts";
import type { DurableStore, PurgeScope } from "./durable-store.ts";
import type { CacheEntry } from "./sealed-entry.ts";

export interface ResponseCacheOptions {
  /** Names the cache in the store, in events and statistics. */
  readonly name: string;
  /** How long an answer is fresh, in milliseconds, where neither the call nor the loader says. Default: 24 h. */
  readonly ttlMs?: number;
  /** The most bytes in memory. Default: 100 MiB. */
  readonly maxBytes?: number;
  /** Larger answers are not kept, in bytes. Default: 4 MiB. */
  readonly maxEntryBytes?: number;
  /**
   * How long after its time an answer is still given while a new one is loaded in the background, in milliseconds; the
   * `stale-while-revalidate` of RFC 5861. Default: 0, nothing is given after its time.
   */
  readonly staleWhileRevalidateMs?: number;
  /** How long after its time an answer is kept for `lastGood`, in milliseconds. Default: 1 h. */
  readonly maxStaleMs?: number;
  /**
   * How eagerly an answer is loaded anew before its time is over. Each hit draws whether it is the one to do it, more
   * likely the closer the end and the longer loading takes, so that not all replicas load at the same moment: XFetch of
   * Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB 2015), whose beta this
   * is. 0 leaves it out. Default: 1.
   */
  readonly earlyRefresh?: number;
  /** A load that takes longer fails, in milliseconds; no caller's leaving or deadline ends it before. Default: 5 min. */
  readonly loadTimeoutMs?: number;
  /** Keeps answers beyond this process. */
  readonly durable?: {
    readonly store: DurableStore;
    /** Sign what is stored; see `createSealer`. */
    readonly secrets: readonly Uint8Array[];
    /** A read that takes longer is a miss, in milliseconds. Default: 50. */
    readonly readTimeoutMs?: number;
  };
  /**
   * Whether a load may have failed because the caller whose load it was had little time; those with more then load
   * again. See `Coalescer`. Default: never.
   */
  readonly mayOutlive?: (error: unknown) => boolean;
  /** Whether answers with this tag are neither kept nor given. Asked for each call. Default: none. */
  readonly excluded?: (tag: string) => boolean;
  readonly clock?: Clock;
  /** Draws from [0, 1). Default: `Math.random`. */
  readonly random?: () => number;
  readonly onEvent?: (event: ResponseCacheEvent) => void;
}

export type ResponseCacheEvent =
  /** An answer could not be loaded anew in the background; the old one is kept. */
  | { readonly kind: "refresh-failed"; readonly key: string; readonly error: unknown }
  /** So many answers were dropped from memory. */
  | { readonly kind: "purged"; readonly scope: PurgeScope; readonly entries: number }
  | { readonly kind: "durable"; readonly event: DurableEvent };

/** A new answer. */
export interface Loaded {
  /** Kept as it is: not to be changed any more. */
  readonly value: Uint8Array;
  /** How long it is fresh, in milliseconds; 0: it is not kept. Default: what the call says. */
  readonly ttlMs?: number;
  /** What a hit saves. Default: 0. */
  readonly tokens?: number;
  readonly costUsd?: number;
}

/** An answer and where it comes from. */
export interface Answer {
  /** Shared with other callers: not to be changed. */
  readonly value: Uint8Array;
  /** `miss`: loaded for this call, or for others at the same time. `excluded`: loaded for this call alone. */
  readonly state: "hit" | "stale" | "miss" | "excluded";
  readonly source: "memory" | "durable" | "load";
  /** Time since it was loaded, in milliseconds. */
  readonly ageMs: number;
  readonly tokens: number;
  readonly costUsd: number;
}

/** Gets a new answer. Its signal is aborted when nobody waits any more, or it takes too long. */
export type Load = (signal: AbortSignal, flight: Flight) => Promise<Loaded>;

export interface CallOptions {
  /** How long a new answer is fresh, in milliseconds. Default: that of the cache. */
  readonly ttlMs?: number | undefined;
  /** By what the answer can be purged or excluded, such as its tool, agent and service. */
  readonly tags?: readonly string[] | undefined;
  /** The caller leaves when it is aborted. Loading goes on as long as anyone waits. */
  readonly signal?: AbortSignal | undefined;
  /** When the caller is going to leave, on a scale that all callers share; see `mayOutlive`. */
  readonly deadline?: number | undefined;
}

export interface ResponseCacheStats {
  readonly name: string;
  readonly entries: number;
  readonly bytes: number;
  readonly maxBytes: number;
  /** Answers given from memory, stale ones included. */
  readonly memoryHits: number;
  /** Answers given from the store, stale ones included. */
  readonly durableHits: number;
  /** Of all hits, those past their time. */
  readonly staleHits: number;
  /** Calls that had to wait for an answer to be loaded. */
  readonly misses: number;
  /** Hits as a share of hits and misses, from 0 to 1. */
  readonly hitRate: number;
  /** Answers loaded, in the background too. */
  readonly loads: number;
  readonly loadFailures: number;
  /** Misses that waited for a load that another call had begun. */
  readonly loadWaits: number;
  /** How calls have shared loads, and reads of the store. */
  readonly sharing: CoalescerStats & { readonly maxInFlight: number };
  /** Loads in the background, of which failed: `refreshFailures`. */
  readonly refreshes: number;
  readonly refreshFailures: number;
  /** Calls past the cache. */
  readonly excluded: number;
  /** Answers given by `lastGood`. */
  readonly lastGoodHits: number;
  readonly evictions: number;
  /** Answers in memory that were found to be past their use. */
  readonly expired: number;
  /** Answers that were too large to be kept. */
  readonly tooLarge: number;
  readonly purged: number;
  /** What hits, and sharing of loads, have saved. */
  readonly tokensSaved: number;
  readonly costSavedUsd: number;
  /** Undefined: there is no store. */
  readonly durable: DurableStats | undefined;
}

/** Keeps answers for a while, in memory and in a store beyond it. */
export interface ResponseCache {
  /**
   * The answer that is kept under a key, else the one that `load` gives. Of calls for one key at the same time, one
   * loads. A failure goes to all that wait, and is not kept.
   *
   * The key must name everything that the answer depends on, also who may see it.
   */
  getOrLoad(key: string, load: Load, options?: CallOptions): Promise<Answer>;
  /** An answer that may be past its time, for want of a better one; not older than `maxAgeMs`. Never rejects. */
  lastGood(key: string, options?: { readonly maxAgeMs?: number | undefined }): Promise<Answer | undefined>;
  /**
   * Forgets answers, also those that are being loaded now. Resolves with how many were kept here and in the store; rejects
   * when they are gone from memory and the store cannot be reached.
   */
  purge(scope?: PurgeScope): Promise<number>;
  /** Writes to the store what waits for it. */
  flush(): Promise<void>;
  stats(): ResponseCacheStats;
  /** Writes what waits, and leaves the store alone from then on. */
  close(): Promise<void>;
}

/** An answer in memory. Times are monotonic. */
interface Kept {
  readonly entry: CacheEntry;
  readonly loadedAt: number;
  /** A background load that failed is not repeated before. */
  nextRefresh: number;
}

/** A load that callers wait for, or that goes on in the background. */
interface PendingLoad {
  readonly id: string;
  readonly tags: readonly string[];
  /** Its answer was purged before it came. */
  purged: boolean;
  /** How many wait for it. */
  waiting: number;
}

/** What a load brings. */
interface Landed {
  readonly kept: Kept;
  readonly source: "durable" | "load";
}

interface FetchOptions {
  readonly ttlMs: number | undefined;
  readonly pendingLoad: PendingLoad;
  /** The answer in memory that is to be replaced. */
  readonly replaced: Kept | undefined;
}

const DAY = 24 * 60 * 60_000;
/** What an entry takes in memory besides its value and texts, roughly. */
const ENTRY_BYTES = 400;
const REFRESH_RETRY_MS = 1_000;
/** Loads that others can wait for. */
const MAX_LOADING = 10_000;

/**
 * Creates a cache of answers.
 *
 * @example
 * const cache = createResponseCache({ name: "tools" });
 * const { value, state } = await cache.getOrLoad(key, async (signal) => ({ value: await call(signal) }));
 */
export function createResponseCache(options: ResponseCacheOptions): ResponseCache {
  const {
    name,
    ttlMs: defaultTtlMs = DAY,
    maxBytes = 100 * 1024 * 1024,
    maxEntryBytes = 4 * 1024 * 1024,
    staleWhileRevalidateMs = 0,
    maxStaleMs = 60 * 60_000,
    earlyRefresh = 1,
    loadTimeoutMs = 5 * 60_000,
    excluded = () => false,
    clock = systemClock,
    random = Math.random,
    onEvent,
  } = options;
  demandAtLeast(`the cache ${name}`, 0, {
    ttlMs: defaultTtlMs,
    maxBytes,
    maxEntryBytes,
    staleWhileRevalidateMs,
    maxStaleMs,
    earlyRefresh,
    loadTimeoutMs,
  });
  const keepMs = Math.max(staleWhileRevalidateMs, maxStaleMs);
  const memory = createByteLru<Kept>({ maxBytes });
  const pending = new Map<string, PendingLoad>();
  const coalescer = createCoalescer<Landed>({
    windowMs: loadTimeoutMs,
    maxInFlight: MAX_LOADING,
    clock,
    ...(options.mayOutlive && { mayOutlive: options.mayOutlive }),
  });
  const durable: DurableLayer | undefined =
    options.durable &&
    createDurableLayer({
      name,
      keepMs,
      readTimeoutMs: 50,
      ...options.durable,
      clock,
      random,
      onEvent: (event) => reportEvent(onEvent, { kind: "durable", event }),
    });
  const unfollow = options.durable?.store.follow(name, purgeMemory);
  const counts = {
    memoryHits: 0,
    durableHits: 0,
    staleHits: 0,
    misses: 0,
    loads: 0,
    loadFailures: 0,
    loadWaits: 0,
    refreshes: 0,
    refreshFailures: 0,
    excluded: 0,
    lastGoodHits: 0,
    expired: 0,
    tooLarge: 0,
    purged: 0,
    tokensSaved: 0,
    costSavedUsd: 0,
  };
  let loadNumber = 0;
  let isClosed = false;

  function toAnswer({ entry, loadedAt }: Kept, source: Answer["source"]): Answer {
    const { value, tokens, costUsd, ttlMs } = entry;
    const ageMs = clock.monotonic() - loadedAt;
    const state = source === "load" ? "miss" : ageMs < ttlMs ? "hit" : "stale";
    return { value, state, source, ageMs, tokens, costUsd };
  }

  function countHit(answer: Answer): Answer {
    counts[answer.source === "durable" ? "durableHits" : "memoryHits"]++;
    counts.staleHits += answer.state === "stale" ? 1 : 0;
    countSaved(answer);
    return answer;
  }

  function countSaved({ tokens, costUsd }: Answer): void {
    counts.tokensSaved += tokens;
    counts.costSavedUsd += costUsd;
  }

  /** Whether an answer may be given now, past its time or not. */
  function isUsable({ entry, loadedAt }: Kept): boolean {
    return clock.monotonic() - loadedAt < entry.ttlMs + staleWhileRevalidateMs;
  }

  /** Whether a hit is to load the answer anew. */
  function isDue({ entry, loadedAt, nextRefresh }: Kept): boolean {
    const now = clock.monotonic();
    // The logarithm of a number from (0, 1] is not positive.
    const early = entry.loadMs * earlyRefresh * -Math.log(1 - random());
    return now >= nextRefresh && now - loadedAt + early >= entry.ttlMs;
  }

  function keep(key: string, kept: Kept): void {
    const { value, tags } = kept.entry;
    const texts = tags.reduce((sum, tag) => sum + tag.length, key.length);
    memory.set(key, kept, value.byteLength + 2 * texts + ENTRY_BYTES);
  }

  function find(key: string): Kept | undefined {
    const kept = memory.get(key);
    if (kept === undefined || isUsable(kept)) {
      return kept;
    }
    counts.expired++;
    if (clock.monotonic() - kept.loadedAt >= kept.entry.ttlMs + keepMs) {
      memory.delete(key);
    }
    return undefined;
  }

  async function readStore(key: string): Promise<Kept | undefined> {
    const entry = isClosed ? undefined : await durable?.read(key);
    if (entry === undefined) {
      return undefined;
    }
    const ageMs = Math.max(0, clock.now() - entry.loadedAt);
    return { entry, loadedAt: clock.monotonic() - ageMs, nextRefresh: Number.NEGATIVE_INFINITY };
  }

  /** Gets what is not in memory, or is to be replaced there. */
  async function fetch(
    key: string,
    { ttlMs = defaultTtlMs, pendingLoad, replaced }: FetchOptions,
    load: (signal: AbortSignal) => Promise<Loaded>,
    signal: AbortSignal,
  ): Promise<Landed> {
    const position = durable?.position() ?? 0;
    const stored = await readStore(key);
    // Another replica may have been faster.
    const isNews = stored && !(replaced && stored.entry.loadedAt <= replaced.entry.loadedAt);
    if (stored && isNews) {
      const isBetter = stored.loadedAt > (memory.peek(key)?.loadedAt ?? Number.NEGATIVE_INFINITY);
      if (isBetter && !pendingLoad.purged) {
        keep(key, stored);
      }
      if (isUsable(stored)) {
        return { kept: stored, source: "durable" };
      }
    }

    counts.loads++;
    const begin = clock.monotonic();
    let loaded: Loaded;
    try {
      loaded = await withDeadline(clock, loadTimeoutMs, load, signal);
    } catch (error) {
      counts.loadFailures++;
      throw error;
    }
    const now = clock.monotonic();
    const { value, tokens = 0, costUsd = 0 } = loaded;
    const entry: CacheEntry = {
      value: owned(value),
      tags: pendingLoad.tags,
      loadedAt: clock.now(),
      ttlMs: loaded.ttlMs ?? ttlMs,
      loadMs: now - begin,
      tokens,
      costUsd,
    };
    const kept: Kept = { entry, loadedAt: now, nextRefresh: Number.NEGATIVE_INFINITY };
    if (value.byteLength > maxEntryBytes) {
      counts.tooLarge++;
    } else if (entry.ttlMs > 0 && !pendingLoad.purged) {
      keep(key, kept);
      if (!isClosed) {
        durable?.write(key, entry, position);
      }
    }
    return { kept, source: "load" };
  }

  /** Loads, or waits for the load that goes on. */
  function join(
    key: string,
    load: Load,
    { ttlMs, tags = [], signal, deadline }: CallOptions,
    replaced?: Kept,
  ): { readonly landed: Promise<Landed>; readonly joined: boolean } {
    const known = pending.get(key);
    const pendingLoad = known ?? { id: `${++loadNumber} ${key}`, tags, purged: false, waiting: 0 };
    pending.set(key, pendingLoad);
    pendingLoad.waiting++;
    const work = (shared: AbortSignal, flight: Flight) =>
      fetch(key, { ttlMs, pendingLoad, replaced }, (own) => load(own, flight), shared);
    const landed = coalescer.run(pendingLoad.id, work, { signal, deadline }).finally(() => {
      pendingLoad.waiting--;
      if (pendingLoad.waiting === 0 && pending.get(key) === pendingLoad) {
        pending.delete(key);
      }
    });
    return { landed, joined: known !== undefined };
  }

  function refresh(key: string, load: Load, call: CallOptions, kept: Kept) {
    if (pending.has(key)) {
      return;
    }
    counts.refreshes++;
    kept.nextRefresh = clock.monotonic() + REFRESH_RETRY_MS;
    // Nobody's leaving ends it.
    join(key, load, { ttlMs: call.ttlMs, tags: call.tags }, kept).landed.catch((error: unknown) => {
      counts.refreshFailures++;
      reportEvent(onEvent, { kind: "refresh-failed", key, error });
    });
  }

  function purgeMemory(scope: PurgeScope): number {
    let entries = 0;
    for (const [key, { entry }] of memory.entries()) {
      if (isMeant(scope, key, entry.tags)) {
        memory.delete(key);
        entries++;
      }
    }
    for (const [key, load] of pending) {
      if (isMeant(scope, key, load.tags)) {
        load.purged = true;
        pending.delete(key); // who comes now does not want what was asked for before
      }
    }
    counts.purged += entries;
    reportEvent(onEvent, { kind: "purged", scope, entries });
    return entries;
  }

  return {
    async getOrLoad(key, load, call = {}) {
      call.signal?.throwIfAborted();
      if (call.tags?.some(excluded)) {
        counts.excluded++;
        const signal = call.signal ?? new AbortController().signal;
        const { value, tokens = 0, costUsd = 0 } = await load(signal, { deadline: call.deadline });
        return { value, state: "excluded", source: "load", ageMs: 0, tokens, costUsd };
      }
      const kept = find(key);
      if (kept !== undefined) {
        if (isDue(kept)) {
          refresh(key, load, call, kept);
        }
        return countHit(toAnswer(kept, "memory"));
      }
      const { landed, joined } = join(key, load, call);
      const { kept: found, source } = await landed;
      const answer = toAnswer(found, source);
      if (source === "durable") {
        if (isDue(found)) {
          refresh(key, load, call, found);
        }
        return countHit(answer);
      }
      counts.misses++;
      if (joined) {
        counts.loadWaits++;
        countSaved(answer);
      }
      return answer;
    },

    async lastGood(key, { maxAgeMs = Number.POSITIVE_INFINITY } = {}) {
      const inMemory = memory.peek(key);
      const found = inMemory ?? (await readStore(key));
      if (found === undefined) {
        return undefined;
      }
      const answer = toAnswer(found, inMemory ? "memory" : "durable");
      if (answer.ageMs >= Math.min(maxAgeMs, found.entry.ttlMs + keepMs)) {
        return undefined;
      }
      counts.lastGoodHits++;
      return answer;
    },

    async purge(scope = { kind: "all" }) {
      const inMemory = purgeMemory(scope);
      if (durable === undefined || isClosed) {
        return inMemory;
      }
      const inStore = await durable.purge(scope);
      // What was read from the store meanwhile.
      return inStore + inMemory + purgeMemory(scope);
    },

    flush: async () => durable?.flush(),

    stats() {
      const hits = counts.memoryHits + counts.durableHits;
      const asked = hits + counts.misses;
      return {
        name,
        ...counts,
        entries: memory.size,
        bytes: memory.bytes,
        maxBytes,
        evictions: memory.evictions,
        sharing: { ...coalescer.stats(), maxInFlight: MAX_LOADING },
        hitRate: asked === 0 ? 0 : hits / asked,
        durable: durable?.stats(),
      };
    },

    async close() {
      isClosed = true;
      unfollow?.();
      await durable?.close();
    },
  };
}

function isMeant(scope: PurgeScope, key: string, tags: readonly string[]): boolean {
  switch (scope.kind) {
    case "all":
      return true;
    case "tag":
      return tags.includes(scope.tag);
    case "key":
      return key === scope.key;
  }
}

/** The value in memory of its own, so that no larger buffer is kept for its sake. */
function owned(value: Uint8Array): Uint8Array {
  return value.byteLength === value.buffer.byteLength ? value : new Uint8Array(value);
}
