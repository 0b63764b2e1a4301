import { acquireAll, type CombinedPermit } from "./acquire-all.ts";
import { type Breaker, createBreaker } from "./breaker.ts";
import type { BreakerOptions } from "./options.ts";
import type { BreakerRefusal, BreakerSnapshot } from "./state.ts";

export interface BreakerSetOptions {
  /** What all breakers of the set have in common. */
  readonly defaults?: Omit<BreakerOptions, "name"> | undefined;
  /** What is different for a name. Called once, when its breaker is made. */
  readonly optionsFor?: ((name: string) => Omit<BreakerOptions, "name"> | undefined) | undefined;
  /**
   * The most breakers to keep. Beyond that, closed ones that have not been used for long are dropped. Default: 10,000,
   * of about 1 KB each.
   */
  readonly maxBreakers?: number | undefined;
}

/** Breakers by name, made when they are first asked for. */
export interface BreakerSet {
  /** How many there are. */
  readonly size: number;
  /** How many breakers were dropped to make room. */
  readonly dropped: number;
  /** How many were handed out without being kept, since all that are kept were in use. */
  readonly unkept: number;
  /** The breaker of a name, which is made when there is none. */
  get(name: string): Breaker;
  /** Asks the breakers of several names for leave to make one call: all or none. See `acquireAll`. */
  acquire(names: readonly string[]): CombinedPermit | BreakerRefusal;
  /** All of them: those that do not let everything through first, then by name. */
  list(): readonly BreakerSnapshot[];
  /** Closes a breaker. False: there is none of that name. */
  reset(name: string): boolean;
  /** Refuses what this name stands for until it is reset, whether or not it was ever used. */
  isolate(name: string, reason?: string): void;
  /** Drops a breaker, whatever its state, when what it stands for is gone. */
  remove(name: string): boolean;
}

/** How many breakers are looked at to find one that can be dropped, so that a full set costs no more than this a call. */
const MAX_SEARCH = 64;

interface Entry {
  readonly breaker: Breaker;
  /** Used since it was last looked at. */
  used: boolean;
}

/**
 * Makes a set of breakers, bounded in memory. Room is made by second chance (the "clock" algorithm), which approximates
 * least recently used without reordering anything when a breaker is used. Only closed breakers are dropped: an open one
 * knows something. When all that can be looked at are open, a breaker is handed out and not kept: calls pass.
 */
export function createBreakerSet(options: BreakerSetOptions = {}): BreakerSet {
  const { defaults, optionsFor, maxBreakers = 10_000 } = options;
  if (!(maxBreakers >= 1)) {
    throw new RangeError("maxBreakers of a set of breakers must be at least 1");
  }
  const entries = new Map<string, Entry>();
  let dropped = 0;
  let unkept = 0;

  function make(name: string): Breaker {
    return createBreaker({ ...defaults, ...optionsFor?.(name), name });
  }

  function get(name: string): Breaker {
    const found = entries.get(name);
    if (found !== undefined) {
      found.used = true;
      return found.breaker;
    }
    const breaker = make(name);
    if (entries.size < maxBreakers || makeRoom()) {
      entries.set(name, { breaker, used: false });
    } else {
      unkept++;
    }
    return breaker;
  }

  function makeRoom(): boolean {
    let looked = 0;
    for (const [name, entry] of entries) {
      // Whatever is looked at and stays goes to the end of the map.
      entries.delete(name);
      if (entry.breaker.state === "closed" && !entry.used) {
        dropped++;
        return true;
      }
      entry.used = false;
      entries.set(name, entry);
      if (++looked >= MAX_SEARCH) {
        break;
      }
    }
    return dropAnyClosed();
  }

  /** For when all that were looked at had been used lately. */
  function dropAnyClosed(): boolean {
    let looked = 0;
    for (const [name, { breaker }] of entries) {
      if (breaker.state === "closed") {
        entries.delete(name);
        dropped++;
        return true;
      }
      if (++looked >= MAX_SEARCH) {
        break;
      }
    }
    return false;
  }

  return {
    get size() {
      return entries.size;
    },
    get dropped() {
      return dropped;
    },
    get unkept() {
      return unkept;
    },
    get,
    acquire: (names) => acquireAll(names.map(get)),
    list: () =>
      [...entries.values()]
        .map(({ breaker }) => breaker.snapshot())
        .sort(
          (one, other) =>
            Number(one.state.kind === "closed") - Number(other.state.kind === "closed") ||
            (one.name < other.name ? -1 : 1),
        ),
    reset(name) {
      const found = entries.get(name);
      found?.breaker.reset();
      return found !== undefined;
    },
    isolate(name, reason) {
      const found = entries.get(name);
      const breaker = found?.breaker ?? make(name);
      breaker.isolate(reason);
      if (found === undefined) {
        if (entries.size >= maxBreakers) {
          makeRoom();
        }
        // Someone asked for it by name: it is kept even when there is no room.
        entries.set(name, { breaker, used: true });
      }
    },
    remove: (name) => entries.delete(name),
  };
}
