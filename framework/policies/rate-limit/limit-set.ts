import { type Clock, systemClock } from "../../clock.ts";
import type { KeyUse, RateDecision, RateLimiter, RateLimiterStats } from "./rate-limiter.ts";

/** One of several limits that a call is under. */
export interface LimitLevel<Request> {
  /** Such as `global`, `service` or `caller`. */
  readonly name: string;
  readonly limiter: RateLimiter;
  /** Whose tokens the call takes; undefined: it is not under this limit. */
  readonly keyOf: (request: Request) => string | undefined;
}

/** What a set of limits says about one call: the word of the level that matters most. */
export interface LimitDecision extends RateDecision {
  /** The level's name. */
  readonly level: string;
  readonly key: string;
}

export interface LevelSnapshot extends RateLimiterStats {
  readonly name: string;
  readonly limit: RateDecision["limit"];
  /** The keys that were used most. */
  readonly top: readonly KeyUse[];
}

/** Limits that a call is under at the same time. */
export interface LimitSet<Request> {
  /**
   * Lets a call through and spends a token at every level, or refuses it and spends nothing anywhere. Says what the
   * tightest level says: of those that refuse, the one with the longest wait, else the one with the least remaining.
   * Undefined when no level applies.
   */
  take(request: Request): LimitDecision | undefined;
  /** Counters and limits of each level, with the `top` keys that were used most. */
  snapshot(top: number): LevelSnapshot[];
  /** Closes the limiters. */
  close(): void;
}

/**
 * Several limits as one: all are checked first, then all are spent, so that a refusal costs nothing anywhere. ITU-T
 * I.371 calls that the coordinated mode of several GCRAs.
 *
 * @param levels from the widest to the narrowest, such as global, service, caller. Each has a limiter of its own.
 */
export function createLimitSet<Request>(
  levels: readonly LimitLevel<Request>[],
  { clock = systemClock }: { readonly clock?: Clock } = {},
): LimitSet<Request> {
  checkLevels(levels);
  return {
    take: (request) => takeKeys(levels, keysOf(levels, request), clock.monotonic()),
    snapshot: (top) => snapshotLevels(levels, top),
    close: () => closeLevels(levels),
  };
}

/** Throws when two levels share a limiter: what one has checked, the other could spend. */
export function checkLevels(levels: readonly LimitLevel<never>[]): void {
  if (new Set(levels.map(({ limiter }) => limiter)).size < levels.length) {
    throw new RangeError("each level of limits needs a limiter of its own");
  }
}

/** The keys of a call, one for each level. */
export type LevelKeys = readonly (string | undefined)[];

export function keysOf<Request>(levels: readonly LimitLevel<Request>[], request: Request): LevelKeys {
  return levels.map((level) => level.keyOf(request));
}

/** Takes a token at every level, or at none. */
export function takeKeys(
  levels: readonly LimitLevel<never>[],
  keys: LevelKeys,
  now: number,
): LimitDecision | undefined {
  let longestMs = 0;
  let refusing = -1;
  for (let index = 0; index < levels.length; index++) {
    const key = keys[index];
    const wait = key === undefined ? 0 : (levels[index]?.limiter.waitMs(key, now) ?? 0);
    if (wait > longestMs) {
      longestMs = wait;
      refusing = index;
    }
  }
  if (refusing >= 0) {
    return takeAt(levels[refusing], keys[refusing], now);
  }
  let tightest: RateDecision | undefined;
  let at = 0;
  for (let index = 0; index < levels.length; index++) {
    const key = keys[index];
    const decision = key === undefined ? undefined : levels[index]?.limiter.take(key, now);
    if (decision !== undefined && (tightest === undefined || decision.remaining < tightest.remaining)) {
      tightest = decision;
      at = index;
    }
  }
  return tightest === undefined ? undefined : named(tightest, levels[at]?.name, keys[at]);
}

/** Takes back what a call was let through with: it was refused elsewhere. */
export function refundKeys(levels: readonly LimitLevel<never>[], keys: LevelKeys): void {
  levels.forEach(({ limiter }, index) => {
    const key = keys[index];
    if (key !== undefined) {
      limiter.refund(key);
    }
  });
}

export function snapshotLevels(levels: readonly LimitLevel<never>[], top: number): LevelSnapshot[] {
  return levels.map(({ name, limiter }) => ({
    name,
    limit: limiter.limit,
    ...limiter.stats(),
    top: limiter.top(top),
  }));
}

export function closeLevels(levels: readonly LimitLevel<never>[]): void {
  for (const { limiter } of levels) {
    limiter.close();
  }
}

function takeAt(
  level: LimitLevel<never> | undefined,
  key: string | undefined,
  now: number,
): LimitDecision | undefined {
  const decision = key === undefined ? undefined : level?.limiter.take(key, now);
  return decision === undefined ? undefined : named(decision, level?.name, key);
}

function named(
  { allowed, limit, remaining, retryAfterMs, resetMs }: RateDecision,
  level = "",
  key = "",
): LimitDecision {
  return { level, key, allowed, limit, remaining, retryAfterMs, resetMs };
}
