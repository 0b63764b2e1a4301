import type { Clock } from "../../clock.ts";
import type { OutlierEvent } from "./state.ts";

/** When an instance counts as worse than its peers, and for how long it is kept away. */
export interface OutlierOptions {
  /**
   * Failures in a row that eject an instance. Default: 3, as many as open a breaker: calls must go elsewhere no later
   * than the instance's own breaker begins to refuse them. (Envoy, which has no such breaker, takes 5.)
   */
  readonly consecutiveFailures?: number | undefined;
  /** How often peers are compared, at most, in milliseconds. Default: 1,000. */
  readonly intervalMs?: number | undefined;
  /** How far back success rates and latencies reach, in milliseconds. Default: 30,000. */
  readonly windowMs?: number | undefined;
  /** Success rates are compared from this many instances with enough calls on. Default: 3. */
  readonly minimumInstances?: number | undefined;
  /** Calls within the window that make a success rate worth comparing. Default: 20. */
  readonly minimumCalls?: number | undefined;
  /** How many deviations below the median a success rate is an outlier. Default: 1.9, as in Envoy. */
  readonly successRateFactor?: number | undefined;
  /** How far below the median it has to be in any case, from 0 to 1. Default: 0.2. */
  readonly successRateGap?: number | undefined;
  /** How many times the typical latency of its peers makes an instance slow. `Infinity`: none is. Default: 5. */
  readonly latencyFactor?: number | undefined;
  /** By how much more, in milliseconds, its latency has to be in any case. Default: 50. */
  readonly latencyGapMs?: number | undefined;
  /** Calls that make a latency worth comparing. Default: 5. */
  readonly minimumLatencies?: number | undefined;
  /**
   * Calls that have to be unanswered for long, with no later one answered, for an instance to count as hanging. During
   * probation one is enough. Default: 3.
   */
  readonly hangingCalls?: number | undefined;
  /** How many times the typical latency of its peers is long. `Infinity`: none hangs. Default: 10. */
  readonly hangingFactor?: number | undefined;
  /** The least that is long, in milliseconds. Default: 2,000. */
  readonly hangingMs?: number | undefined;
  /** How long an instance is ejected the first time, in milliseconds; the n-th time in a row n times as long. Default: 30,000. */
  readonly ejectionTimeMs?: number | undefined;
  /** The longest ejection, in milliseconds. Default: 300,000. */
  readonly maxEjectionTimeMs?: number | undefined;
  /** The most instances, in percent, that are ejected or on probation, rounded down; never the last one. Default: 50. */
  readonly maxEjectedPercent?: number | undefined;
  /** Calls that have to succeed, one at a time, before a returning instance gets its full share. Default: 3. */
  readonly probationCalls?: number | undefined;
  /** The most instances to keep account of. Default: 1,000. */
  readonly maxInstances?: number | undefined;
  /** Instances without calls are forgotten after this time, in milliseconds. Default: 600,000. */
  readonly forgetAfterMs?: number | undefined;
  readonly clock?: Clock | undefined;
  /** Told about every ejection and return, after it. What it throws is ignored. */
  readonly onEvent?: ((event: OutlierEvent) => void) | undefined;
}

/** Options with their defaults. */
export type OutlierSettings = {
  readonly [Key in Exclude<keyof OutlierOptions, "clock" | "onEvent">]-?: number;
};

/** @throws RangeError names the option that cannot be worked with. */
export function outlierSettings(options: OutlierOptions): OutlierSettings {
  const ejectionTimeMs = options.ejectionTimeMs ?? 30_000;
  const settings: OutlierSettings = {
    consecutiveFailures: options.consecutiveFailures ?? 3,
    intervalMs: options.intervalMs ?? 1_000,
    windowMs: options.windowMs ?? 30_000,
    minimumInstances: options.minimumInstances ?? 3,
    minimumCalls: options.minimumCalls ?? 20,
    successRateFactor: options.successRateFactor ?? 1.9,
    successRateGap: options.successRateGap ?? 0.2,
    latencyFactor: options.latencyFactor ?? 5,
    latencyGapMs: options.latencyGapMs ?? 50,
    minimumLatencies: options.minimumLatencies ?? 5,
    hangingCalls: options.hangingCalls ?? 3,
    hangingFactor: options.hangingFactor ?? 10,
    hangingMs: options.hangingMs ?? 2_000,
    ejectionTimeMs,
    maxEjectionTimeMs: options.maxEjectionTimeMs ?? Math.max(300_000, ejectionTimeMs),
    maxEjectedPercent: options.maxEjectedPercent ?? 50,
    probationCalls: options.probationCalls ?? 3,
    maxInstances: options.maxInstances ?? 1_000,
    forgetAfterMs: options.forgetAfterMs ?? 600_000,
  };
  for (const [option, value] of Object.entries(settings)) {
    if (!(value >= 0)) {
      throw new RangeError(`${option} of an outlier detector must be a number of at least 0`);
    }
  }
  const atLeastOne = [
    "consecutiveFailures",
    "hangingCalls",
    "probationCalls",
    "maxInstances",
    "windowMs",
  ] as const;
  for (const option of atLeastOne) {
    if (settings[option] < 1) {
      throw new RangeError(`${option} of an outlier detector must be at least 1`);
    }
  }
  return settings;
}
