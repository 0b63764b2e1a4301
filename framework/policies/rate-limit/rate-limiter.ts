import { type Clock, systemClock } from "../../clock.ts";
import { reportEvent } from "../report-event.ts";
import { createGcra, type Gcra, type RateLimit, remaining, resetMs, spend, waitMs } from "./gcra.ts";

export interface RateLimiterOptions extends RateLimit {
  /** Keys with limits of their own. */
  readonly overrides?: Iterable<readonly [key: string, limit: RateLimit]>;
  /** How many keys are remembered, at about 120 bytes each. Default: 1,000,000. */
  readonly maxKeys?: number;
  readonly clock?: Clock;
  readonly onEvent?: (event: RateLimiterEvent) => void;
}

export type RateLimiterEvent =
  /** A call of the key was refused, here or in a store that replicas share. */
  | { readonly kind: "refused"; readonly key: string; readonly retryAfterMs: number }
  /** All of `maxKeys` were in use: a new key has taken the place of this one, and its debt. */
  | { readonly kind: "displaced"; readonly key: string; readonly by: string };

/** What a limiter says about one call. */
export interface RateDecision {
  readonly allowed: boolean;
  /** The limit that the key is under. */
  readonly limit: Required<RateLimit>;
  /** How many more calls may come at once. */
  readonly remaining: number;
  /** How long to wait before the next call, in milliseconds; 0 when this one is allowed. */
  readonly retryAfterMs: number;
  /** How long until all of `burst` may come at once again, in milliseconds, when no more calls come. */
  readonly resetMs: number;
}

/** How a key was used since it is remembered. */
export interface KeyUse {
  readonly key: string;
  readonly allowed: number;
  readonly refused: number;
  readonly remaining: number;
  readonly resetMs: number;
  readonly limit: Required<RateLimit>;
}

export interface RateLimiterStats {
  /** Keys that are remembered: those that are not as good as new, and a few that are. */
  readonly keys: number;
  readonly allowed: number;
  readonly refused: number;
  /** How many keys had to give their place to others, because all of `maxKeys` were in use. */
  readonly displaced: number;
}

/**
 * A token bucket for each key.
 *
 * Keys that are as good as new are forgotten: a few with every new key, all within seconds by a timer. When `maxKeys`
 * are in use, a new key takes the place of the one that is closest to new among a few, *and its debt with it*, as in
 * the Space-Saving algorithm (Metwally et al. 2005, "Efficient computation of frequent and top-k elements"). So debts
 * are never lost: however many keys come, all together get no more than `maxKeys` of them could, and nobody gets rid of
 * a debt by flooding the limiter with other keys. Nor are new keys kept out, as long as one among those few has a token
 * left.
 */
export interface RateLimiter {
  /** The limit of keys without one of their own. */
  readonly limit: Required<RateLimit>;
  /** What `take` would say. Spends nothing. */
  check(key: string, now?: number): RateDecision;
  /** Lets a call through, or refuses it and spends nothing. */
  take(key: string, now?: number): RateDecision;
  /** How long a call of the key would have to wait, in milliseconds; 0: not at all. `check` for those in a hurry. */
  waitMs(key: string, now?: number): number;
  /** Takes back that a call was let through: it was refused elsewhere. */
  refund(key: string): void;
  /** Counts a call as refused that was not refused by `take`, but for so many milliseconds by someone else. */
  refuse(key: string, retryAfterMs: number): void;
  /** Gives a key a limit of its own; undefined: takes it away. What it has used stays used. */
  setLimit(key: string, limit: RateLimit | undefined): void;
  limitOf(key: string): Required<RateLimit>;
  /** The keys that were used most, of those that are remembered. */
  top(count: number): KeyUse[];
  stats(): RateLimiterStats;
  /** Stops the timer. The limiter keeps working, and forgets less eagerly. */
  close(): void;
}

const DEFAULT_MAX_KEYS = 1_000_000;
const INITIAL_CAPACITY = 64;
/** How many keys are looked at for one that is as good as new, whenever a new key comes. */
const LOOKS_PER_KEY = 2;
/** How many keys are looked at for the one to displace. */
const LOOKS_WHEN_FULL = 16;
/** How many keys the timer looks at in one go, which takes a few milliseconds at most. */
const SWEEP_CHUNK = 10_000;
/** Pause between two chunks, in milliseconds. */
const CHUNK_PAUSE_MS = 50;
/** Pause between two sweeps, in milliseconds. */
const SWEEP_PAUSE_MS = 1_000;
const MAX_COUNT = 2 ** 32 - 1;

export function createRateLimiter(options: RateLimiterOptions): RateLimiter {
  return new KeyedLimiter(options);
}

/**
 * A key has a slot: an index into columns that hold a number for each key. Slots are kept dense, the last one moves
 * into the place of one that is freed. An object for each key would take several times as much memory, and each change
 * of a number in a Map an allocation.
 */
class KeyedLimiter implements RateLimiter {
  readonly #gcra: Gcra;
  readonly #overrides = new Map<string, Gcra>();
  readonly #maxKeys: number;
  readonly #clock: Clock;
  readonly #onEvent: ((event: RateLimiterEvent) => void) | undefined;
  readonly #slots = new Map<string, number>();
  readonly #keys: string[] = [];
  #tats = new Float64Array(INITIAL_CAPACITY);
  #allowedOf = new Uint32Array(INITIAL_CAPACITY);
  #refusedOf = new Uint32Array(INITIAL_CAPACITY);
  #allowed = 0;
  #refused = 0;
  #displaced = 0;
  /** Where to look for keys as good as new. */
  #hand = 0;
  /** How many slots this sweep has still to look at. */
  #toSweep = 0;
  #cancelSweep: (() => void) | undefined;
  #closed = false;

  constructor({
    maxKeys = DEFAULT_MAX_KEYS,
    clock = systemClock,
    overrides = [],
    onEvent,
    ...limit
  }: RateLimiterOptions) {
    if (!(Number.isSafeInteger(maxKeys) && maxKeys >= 1)) {
      throw new RangeError(`maxKeys must be a whole number of 1 or more, not ${maxKeys}`);
    }
    this.#gcra = createGcra(limit);
    this.#maxKeys = maxKeys;
    this.#clock = clock;
    this.#onEvent = onEvent;
    for (const [key, own] of overrides) {
      this.setLimit(key, own);
    }
  }

  get limit(): Required<RateLimit> {
    return this.#gcra;
  }

  check(key: string, now = this.#clock.monotonic()): RateDecision {
    const gcra = this.#gcraOf(key);
    const tat = this.#tatOf(key, now);
    return decision(gcra, tat, now, waitMs(gcra, tat, now));
  }

  take(key: string, now = this.#clock.monotonic()): RateDecision {
    const gcra = this.#gcraOf(key);
    let slot = this.#slots.get(key);
    const before = slot === undefined ? this.#tatOfNew(now) : (this.#tats[slot] ?? 0);
    const wait = waitMs(gcra, before, now);
    if (wait > 0) {
      this.#countRefused(key, slot, wait);
      return decision(gcra, before, now, wait);
    }
    const tat = spend(gcra, before, now);
    slot ??= this.#addKey(key, now);
    this.#tats[slot] = tat;
    this.#allowedOf[slot] = Math.min((this.#allowedOf[slot] ?? 0) + 1, MAX_COUNT);
    this.#allowed++;
    return decision(gcra, tat, now, 0);
  }

  waitMs(key: string, now = this.#clock.monotonic()): number {
    return waitMs(this.#gcraOf(key), this.#tatOf(key, now), now);
  }

  refund(key: string): void {
    const slot = this.#slots.get(key);
    this.#allowed--;
    if (slot !== undefined) {
      this.#tats[slot] = (this.#tats[slot] ?? 0) - this.#gcraOf(key).intervalMs;
      this.#allowedOf[slot] = Math.max(0, (this.#allowedOf[slot] ?? 0) - 1);
    }
  }

  refuse(key: string, retryAfterMs: number): void {
    this.#countRefused(key, this.#slots.get(key), retryAfterMs);
  }

  setLimit(key: string, limit: RateLimit | undefined): void {
    if (limit === undefined) {
      this.#overrides.delete(key);
    } else {
      this.#overrides.set(key, createGcra(limit));
    }
  }

  limitOf(key: string): Required<RateLimit> {
    return this.#gcraOf(key);
  }

  top(count: number): KeyUse[] {
    if (count <= 0) {
      return [];
    }
    const now = this.#clock.monotonic();
    const uses = (slot: number) => (this.#allowedOf[slot] ?? 0) + (this.#refusedOf[slot] ?? 0);
    const best: number[] = [];
    for (let slot = 0; slot < this.#keys.length; slot++) {
      if (best.length < count || uses(slot) > uses(best[best.length - 1] ?? slot)) {
        const place = best.findIndex((other) => uses(slot) > uses(other));
        best.splice(place === -1 ? best.length : place, 0, slot);
        best.length = Math.min(best.length, count);
      }
    }
    return best.map((slot) => {
      const key = this.#keys[slot] ?? "";
      const tat = this.#tats[slot] ?? 0;
      const gcra = this.#gcraOf(key);
      return {
        key,
        allowed: this.#allowedOf[slot] ?? 0,
        refused: this.#refusedOf[slot] ?? 0,
        remaining: remaining(gcra, tat, now),
        resetMs: resetMs(tat, now),
        limit: gcra,
      };
    });
  }

  stats(): RateLimiterStats {
    return {
      keys: this.#keys.length,
      allowed: this.#allowed,
      refused: this.#refused,
      displaced: this.#displaced,
    };
  }

  close(): void {
    this.#closed = true;
    this.#cancelSweep?.();
    this.#cancelSweep = undefined;
  }

  #gcraOf(key: string): Gcra {
    return this.#overrides.size === 0 ? this.#gcra : (this.#overrides.get(key) ?? this.#gcra);
  }

  #tatOf(key: string, now: number): number {
    const slot = this.#slots.get(key);
    return slot === undefined ? this.#tatOfNew(now) : (this.#tats[slot] ?? 0);
  }

  /** What a key that is not remembered has to start with. */
  #tatOfNew(now: number): number {
    return this.#keys.length < this.#maxKeys ? now : (this.#tats[this.#slotToDisplace()] ?? 0);
  }

  #countRefused(key: string, slot: number | undefined, retryAfterMs: number): void {
    this.#refused++;
    if (this.#onEvent !== undefined) {
      reportEvent(this.#onEvent, { kind: "refused", key, retryAfterMs });
    }
    if (slot !== undefined) {
      this.#refusedOf[slot] = Math.min((this.#refusedOf[slot] ?? 0) + 1, MAX_COUNT);
    }
  }

  /** The slot of a new key, whose TAT the caller sets. */
  #addKey(key: string, now: number): number {
    if (this.#keys.length >= this.#maxKeys) {
      const slot = this.#slotToDisplace();
      if ((this.#tats[slot] ?? 0) > now) {
        this.#displaced++;
        reportEvent(this.#onEvent, { kind: "displaced", key: this.#keys[slot] ?? "", by: key });
      }
      this.#forget(slot);
      // The next newcomer is to displace another one.
      this.#hand += LOOKS_WHEN_FULL;
    } else {
      this.#sweep(LOOKS_PER_KEY, now);
    }
    const slot = this.#keys.length;
    if (slot === this.#tats.length) {
      this.#resize(Math.min(slot * 2, this.#maxKeys));
    }
    this.#keys.push(key);
    this.#slots.set(key, slot);
    this.#allowedOf[slot] = 0;
    this.#refusedOf[slot] = 0;
    this.#scheduleSweep();
    return slot;
  }

  /** Which one of the next few has the least debt. The same until a key is added. */
  #slotToDisplace(): number {
    const size = this.#keys.length;
    let least = this.#hand % size;
    for (let look = 1; look < Math.min(LOOKS_WHEN_FULL, size); look++) {
      const slot = (this.#hand + look) % size;
      if ((this.#tats[slot] ?? 0) < (this.#tats[least] ?? 0)) {
        least = slot;
      }
    }
    return least;
  }

  /** Looks at some slots and forgets those keys that are as good as new. */
  #sweep(looks: number, now: number): void {
    for (let look = 0; look < looks && this.#keys.length > 0; look++) {
      if (this.#hand >= this.#keys.length) {
        this.#hand = 0;
      }
      if ((this.#tats[this.#hand] ?? 0) <= now) {
        // Another key takes its place and is looked at next.
        this.#forget(this.#hand);
      } else {
        this.#hand++;
      }
    }
  }

  #forget(slot: number): void {
    const last = this.#keys.length - 1;
    const moved = this.#keys[last];
    const gone = this.#keys[slot];
    if (moved === undefined || gone === undefined) {
      return;
    }
    this.#slots.delete(gone);
    if (slot !== last) {
      this.#slots.set(moved, slot);
      this.#keys[slot] = moved;
      this.#tats[slot] = this.#tats[last] ?? 0;
      this.#allowedOf[slot] = this.#allowedOf[last] ?? 0;
      this.#refusedOf[slot] = this.#refusedOf[last] ?? 0;
    }
    this.#keys.pop();
    const capacity = this.#tats.length;
    if (capacity > INITIAL_CAPACITY && last < capacity / 4) {
      this.#resize(Math.max(INITIAL_CAPACITY, Math.ceil(capacity / 2)));
    }
  }

  #resize(capacity: number): void {
    this.#tats = copyOf(this.#tats, new Float64Array(capacity));
    this.#allowedOf = copyOf(this.#allowedOf, new Uint32Array(capacity));
    this.#refusedOf = copyOf(this.#refusedOf, new Uint32Array(capacity));
  }

  #scheduleSweep(): void {
    if (this.#closed || this.#cancelSweep !== undefined || this.#keys.length === 0) {
      return;
    }
    const pause = this.#toSweep > 0 ? CHUNK_PAUSE_MS : SWEEP_PAUSE_MS;
    this.#cancelSweep = this.#clock.after(pause, () => {
      this.#cancelSweep = undefined;
      if (this.#toSweep <= 0) {
        this.#toSweep = this.#keys.length;
      }
      const looks = Math.min(this.#toSweep, SWEEP_CHUNK);
      this.#toSweep -= looks;
      this.#sweep(looks, this.#clock.monotonic());
      this.#scheduleSweep();
    });
  }
}

function decision(gcra: Gcra, tat: number, now: number, wait: number): RateDecision {
  return {
    allowed: wait === 0,
    limit: gcra,
    remaining: wait === 0 ? remaining(gcra, tat, now) : 0,
    retryAfterMs: wait,
    resetMs: resetMs(tat, now),
  };
}

function copyOf<Column extends Float64Array | Uint32Array>(from: Column, to: Column): Column {
  to.set(from.subarray(0, to.length));
  return to;
}
