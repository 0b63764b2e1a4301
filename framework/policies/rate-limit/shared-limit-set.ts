import { type Clock, systemClock } from "../../clock.ts";
import type { Count, Counter, CounterStore } from "./counter-store.ts";
import type { RateLimit } from "./gcra.ts";
import {
  checkLevels,
  closeLevels,
  keysOf,
  type LevelKeys,
  type LevelSnapshot,
  type LimitDecision,
  type LimitLevel,
  refundKeys,
  snapshotLevels,
  takeKeys,
} from "./limit-set.ts";
import { sharedWindow } from "./shared-window.ts";
import { createStoreHealth, type StoreHealth, type StoreHealthOptions } from "./store-health.ts";

export interface SharedLimitSetOptions<Request> extends Omit<StoreHealthOptions, "probe"> {
  /**
   * From the widest to the narrowest, such as global, service, caller. Their limiters are those of this process: each
   * call has to pass them too, and they decide alone while the store is lost.
   */
  readonly levels: readonly LimitLevel<Request>[];
  readonly store: CounterStore;
}

export interface SharedLimitStats {
  /** Whether calls are counted in the store now. */
  readonly store: "up" | "lost";
  /** Decisions with the store's part in them. */
  readonly shared: number;
  /** Decisions of this process alone, because the store was lost. */
  readonly alone: number;
  /** Calls refused because the store was known to refuse them, without asking it. */
  readonly remembered: number;
}

/** Limits that several processes share. */
export interface SharedLimitSet<Request> {
  /** As with `createLimitSet`. Settles within the store's deadline; at once where the store need not be asked. */
  take(request: Request): LimitDecision | undefined | Promise<LimitDecision | undefined>;
  /** As with `createLimitSet`: what this process has let through and refused. */
  snapshot(top: number): LevelSnapshot[];
  stats(): SharedLimitStats;
  /** Closes the limiters. The store's client is the caller's to close. */
  close(): void;
}

/** How often a store is asked to delete what is over, in milliseconds. */
const SWEEP_EVERY_MS = 60_000;
/** How many refusals of the store a level remembers. */
const MAX_REMEMBERED = 10_000;
/** What tries whether the store can count. */
const probeWindow = { points: 1_000, windowMs: 1_000 };

/**
 * Several limits as one, counted in a store that several processes share.
 *
 * A call passes the token buckets of this process first, so that what one process can refuse by itself never reaches
 * the store, and then the store's windows, from the narrowest level to the widest. When one of them refuses, what the
 * others have counted is taken back. Until its window is over the refusal is remembered, and the store not asked again.
 *
 * What holds, for each key: with the store, all processes together let through at most `limit + burst` in any period,
 * and at most twice `burst` at once (see `sharedWindow`). Without it, each process by itself lets through at most
 * `limit + burst` in any period, also in one that the store was lost or came back in.
 *
 * The store is lost when it fails or does not answer within the deadline. Whoever waits then is let go at once, and
 * nobody waits again before a try in the background has succeeded.
 */
export function createSharedLimitSet<Request>(
  options: SharedLimitSetOptions<Request>,
): SharedLimitSet<Request> {
  checkLevels(options.levels);
  return new StoredLimitSet(options);
}

interface Taken {
  readonly counter: Counter;
  readonly key: string;
  /** When the window is over that the call was counted in. */
  readonly until: number;
}

/** The word of the store on one level. */
interface StoredCount extends Count {
  readonly level: number;
}

class StoredLimitSet<Request> implements SharedLimitSet<Request> {
  readonly #levels: readonly LimitLevel<Request>[];
  readonly #store: CounterStore;
  readonly #health: StoreHealth;
  readonly #clock: Clock;
  /** By level and limit: keys of one level may have limits of their own. */
  readonly #counters: readonly WeakMap<RateLimit, Counter>[];
  /** By level: until when the store refuses a key. */
  readonly #refusals: readonly Map<string, number>[];
  #cancelSweep: () => void;
  #closed = false;
  #shared = 0;
  #alone = 0;
  #remembered = 0;

  constructor({ levels, store, clock = systemClock, ...health }: SharedLimitSetOptions<Request>) {
    this.#levels = levels;
    this.#store = store;
    this.#clock = clock;
    this.#counters = levels.map(() => new WeakMap());
    this.#refusals = levels.map(() => new Map());
    const probe = store.counter("probe", probeWindow);
    this.#health = createStoreHealth({ ...health, clock, probe: () => probe.consume("probe") });
    this.#cancelSweep = clock.after(SWEEP_EVERY_MS, () => this.#sweep());
  }

  take(request: Request): LimitDecision | undefined | Promise<LimitDecision | undefined> {
    const keys = keysOf(this.#levels, request);
    const now = this.#clock.monotonic();
    const local = takeKeys(this.#levels, keys, now);
    if (local === undefined || !local.allowed) {
      return local;
    }
    if (!this.#health.up) {
      this.#alone++;
      return local;
    }
    const known = this.#knownRefusal(keys, now);
    if (known !== undefined) {
      this.#remembered++;
      return this.#refuse(keys, known);
    }
    return this.#takeShared(keys, local);
  }

  snapshot(top: number): LevelSnapshot[] {
    return snapshotLevels(this.#levels, top);
  }

  stats(): SharedLimitStats {
    return {
      store: this.#health.up ? "up" : "lost",
      shared: this.#shared,
      alone: this.#alone,
      remembered: this.#remembered,
    };
  }

  close(): void {
    this.#closed = true;
    this.#cancelSweep();
    this.#health.close();
    closeLevels(this.#levels);
  }

  async #takeShared(keys: LevelKeys, local: LimitDecision): Promise<LimitDecision> {
    const count = await this.#health.use(() => this.#consume(keys));
    if (count === undefined) {
      this.#alone++;
      return local;
    }
    this.#shared++;
    if (!count.allowed) {
      return this.#refuse(keys, count);
    }
    return count.remaining < local.remaining ? this.#decision(keys, count) : local;
  }

  /** Counts a call at every level, from the narrowest; or at none in the end. Says what the tightest one says. */
  async #consume(keys: LevelKeys): Promise<StoredCount | undefined> {
    const taken: Taken[] = [];
    let tightest: StoredCount | undefined;
    for (let level = keys.length - 1; level >= 0; level--) {
      const key = keys[level];
      if (key === undefined) {
        continue;
      }
      const counter = this.#counterOf(level, key);
      const count: StoredCount = { ...(await counter.consume(key)), level };
      if (!count.allowed) {
        this.#remember(level, key, count.resetMs);
        this.#takeBack(taken);
        return count;
      }
      taken.push({ counter, key, until: this.#clock.monotonic() + count.resetMs });
      if (tightest === undefined || count.remaining < tightest.remaining) {
        tightest = count;
      }
    }
    return tightest;
  }

  /** Nobody waits for that. A window that is about to end takes what was counted with it. */
  #takeBack(taken: readonly Taken[]): void {
    const now = this.#clock.monotonic();
    for (const { counter, key, until } of taken) {
      // In the next window it would let one call too many through.
      if (now + this.#health.deadlineMs < until) {
        counter.refund(key).catch((cause: unknown) => this.#health.lose(cause));
      }
    }
  }

  #counterOf(level: number, key: string): Counter {
    const { name, limiter } = this.#levels[level] as LimitLevel<Request>;
    const limit = limiter.limitOf(key);
    const counters = this.#counters[level] as WeakMap<RateLimit, Counter>;
    let counter = counters.get(limit);
    if (counter === undefined) {
      counter = this.#store.counter(name, sharedWindow(limit));
      counters.set(limit, counter);
    }
    return counter;
  }

  #refuse(keys: LevelKeys, count: StoredCount): LimitDecision {
    refundKeys(this.#levels, keys);
    this.#levels[count.level]?.limiter.refuse(keys[count.level] ?? "", count.resetMs);
    return this.#decision(keys, count);
  }

  #decision(keys: LevelKeys, { level, allowed, remaining, resetMs }: StoredCount): LimitDecision {
    const { name, limiter } = this.#levels[level] as LimitLevel<Request>;
    const key = keys[level] ?? "";
    return {
      level: name,
      key,
      allowed,
      limit: limiter.limitOf(key),
      remaining: allowed ? remaining : 0,
      retryAfterMs: allowed ? 0 : resetMs,
      resetMs,
    };
  }

  #remember(level: number, key: string, resetMs: number): void {
    const refusals = this.#refusals[level] as Map<string, number>;
    if (refusals.size >= MAX_REMEMBERED) {
      const [oldest] = refusals.keys();
      refusals.delete(oldest ?? key);
    }
    refusals.set(key, this.#clock.monotonic() + resetMs);
  }

  #knownRefusal(keys: LevelKeys, now: number): StoredCount | undefined {
    let longest: StoredCount | undefined;
    for (const [level, refusals] of this.#refusals.entries()) {
      const key = keys[level];
      const until = refusals.size === 0 || key === undefined ? undefined : refusals.get(key);
      if (key !== undefined && until !== undefined) {
        if (until <= now) {
          refusals.delete(key);
        } else if (longest === undefined || until - now > longest.resetMs) {
          longest = { level, allowed: false, remaining: 0, resetMs: until - now };
        }
      }
    }
    return longest;
  }

  async #sweep(): Promise<void> {
    if (this.#health.up) {
      // What is not deleted now is deleted next time; whether the store works, calls find out.
      await this.#store.sweep?.().catch(() => {});
    }
    if (!this.#closed) {
      this.#cancelSweep = this.#clock.after(SWEEP_EVERY_MS, () => this.#sweep());
    }
  }
}
