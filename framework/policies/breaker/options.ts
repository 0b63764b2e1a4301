import type { Clock } from "../../clock.ts";
import type { BreakerEvent } from "./state.ts";

/** When a breaker opens, for how long, and how it closes again. */
export interface BreakerOptions {
  /** Names the breaker in events and snapshots, such as `instance/weather/i-1`. Default: `breaker`. */
  readonly name?: string | undefined;
  /** Failures in a row that open it. `Infinity`: they never do. Default: 3. */
  readonly consecutiveFailures?: number | undefined;
  /** The window over which rates are taken, in milliseconds. Default: 60,000. It moves on in steps of a twentieth. */
  readonly windowMs?: number | undefined;
  /**
   * The share of failures in the window that opens it, above 0 and up to 1. `Infinity`: none does, and unless slow calls
   * count there is no window at all, which saves looking at the clock. Default: 0.5.
   */
  readonly failureRate?: number | undefined;
  /** The share of slow calls in the window, failed ones included, that opens it, above 0 and up to 1. Default: 0.8. */
  readonly slowCallRate?: number | undefined;
  /** Calls that take at least this long count as slow, in milliseconds. Default: none does. */
  readonly slowCallMs?: number | undefined;
  /** Rates count from this many calls in the window on. Default: 10. */
  readonly minimumCalls?: number | undefined;
  /** How long it stays open at first, in milliseconds. Default: 30,000. */
  readonly openMs?: number | undefined;
  /** By how much that grows with each probing that fails. Default: 2. */
  readonly backoffFactor?: number | undefined;
  /** The longest that it stays open, in milliseconds, jitter aside. Default: 300,000. */
  readonly maxOpenMs?: number | undefined;
  /**
   * The share by which an open time is lengthened at random, from 0 to 1, so that many breakers on one backend do not
   * probe it in the same moment. Default: 0.
   */
  readonly jitter?: number | undefined;
  /** Calls that are let through at once to see whether it can close, and that must succeed for that. Default: 2. */
  readonly probes?: number | undefined;
  /**
   * After this time, in milliseconds, a probe that has not reported gives up its place to another one. Its result still
   * counts when it comes before the probing is over. Default: 30,000.
   */
  readonly probeTimeoutMs?: number | undefined;
  readonly clock?: Clock | undefined;
  /** For the jitter: at least 0 and below 1. Default: `Math.random`. */
  readonly random?: (() => number) | undefined;
  /** Told about every transition, after it. What it throws is ignored. */
  readonly onEvent?: ((event: BreakerEvent) => void) | undefined;
}

/** Options with their defaults, checked. */
export interface BreakerSettings {
  readonly consecutiveFailures: number;
  readonly windowMs: number;
  readonly failureRate: number;
  readonly slowCallRate: number;
  readonly slowCallMs: number;
  readonly minimumCalls: number;
  readonly openMs: number;
  readonly backoffFactor: number;
  readonly maxOpenMs: number;
  readonly jitter: number;
  readonly probes: number;
  readonly probeTimeoutMs: number;
}

/** @throws RangeError names the option that no breaker can work with. */
export function breakerSettings(options: BreakerOptions): BreakerSettings {
  const openMs = options.openMs ?? 30_000;
  const settings: BreakerSettings = {
    consecutiveFailures: options.consecutiveFailures ?? 3,
    windowMs: options.windowMs ?? 60_000,
    failureRate: options.failureRate ?? 0.5,
    slowCallRate: options.slowCallRate ?? 0.8,
    slowCallMs: options.slowCallMs ?? Number.POSITIVE_INFINITY,
    minimumCalls: options.minimumCalls ?? 10,
    openMs,
    backoffFactor: options.backoffFactor ?? 2,
    maxOpenMs: options.maxOpenMs ?? Math.max(300_000, openMs),
    jitter: options.jitter ?? 0,
    probes: options.probes ?? 2,
    probeTimeoutMs: options.probeTimeoutMs ?? 30_000,
  };
  const { consecutiveFailures, failureRate, slowCallRate, minimumCalls, probes, jitter } = settings;
  demand("consecutiveFailures", consecutiveFailures >= 1, "at least 1");
  demand("windowMs", settings.windowMs > 0 && Number.isFinite(settings.windowMs), "above 0");
  const noRate = failureRate === Number.POSITIVE_INFINITY;
  demand(
    "failureRate",
    failureRate > 0 && (failureRate <= 1 || noRate),
    "above 0 and at most 1, or Infinity",
  );
  demand("slowCallRate", slowCallRate > 0 && slowCallRate <= 1, "above 0 and at most 1");
  demand("slowCallMs", settings.slowCallMs > 0, "above 0");
  demand("minimumCalls", minimumCalls >= 1, "at least 1");
  demand("openMs", openMs > 0 && Number.isFinite(openMs), "above 0");
  demand(
    "backoffFactor",
    settings.backoffFactor >= 1 && Number.isFinite(settings.backoffFactor),
    "at least 1 and finite",
  );
  demand(
    "maxOpenMs",
    settings.maxOpenMs >= openMs && Number.isFinite(settings.maxOpenMs),
    "at least openMs and finite",
  );
  demand("jitter", jitter >= 0 && jitter <= 1, "from 0 to 1");
  demand("probes", Number.isInteger(probes) && probes >= 1, "a whole number of at least 1");
  demand("probeTimeoutMs", settings.probeTimeoutMs > 0, "above 0");
  return settings;
}

function demand(option: string, holds: boolean, what: string): void {
  if (!holds) {
    throw new RangeError(`${option} of a breaker must be ${what}`);
  }
}
