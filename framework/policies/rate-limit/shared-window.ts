import type { RateLimit } from "./gcra.ts";

/** So many calls in so long, counted from the first of them. */
export interface SharedWindow {
  readonly points: number;
  readonly windowMs: number;
}

/**
 * The fixed window that stands for a limit in a store that several processes count in: `limit` and `burst` are those of
 * the token bucket, in as few windows a period as keep each of them within `burst`.
 *
 * Windows of one key begin at least `windowMs` apart. Any period, both ends included, is touched by one more window
 * than fit into it, and so sees at most `limit + burst` calls, as with the token bucket. Calls at both sides of the
 * edge between two windows may be as many as twice `burst` at once.
 *
 * Where `burst` does not divide `limit`, windows are rounded so that less is let through rather than more: 200 a minute
 * with a burst of 23 are 22 in 6,667 ms, which is 198 a minute.
 */
export function sharedWindow({ limit, periodMs, burst }: Required<RateLimit>): SharedWindow {
  const windows = Math.ceil(limit / Math.min(burst, limit));
  return { points: Math.floor(limit / windows), windowMs: Math.ceil(periodMs / windows) };
}
