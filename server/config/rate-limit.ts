import type { RateLimit } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds } from "./durations.ts";
import type { ReportMistake } from "./mistakes.ts";

/** A token bucket. */
export interface RateLimitSettings {
  readonly requests: number;
  readonly periodMs: number;
  readonly burst: number;
}

const DEFAULT_BURST = 20;
/** What limiters can count: between two requests, they tell times apart. */
const MAX_PER_SECOND = 5_000_000;

/** What a limit says, its gaps filled from `defaults`; undefined: no limit. */
export function resolveRateLimit(
  config: RateLimit | undefined,
  defaults: RateLimitSettings | undefined,
  field: string,
  report: ReportMistake,
): RateLimitSettings | undefined {
  if (!config) {
    return defaults;
  }
  if (config.unlimited) {
    return undefined;
  }
  const requests = config.requests || defaults?.requests;
  if (requests === undefined) {
    report(`${field}.requests`, "must be given, since there is no default here; or set unlimited");
    return undefined;
  }
  const periodMs = milliseconds(config.period, defaults?.periodMs ?? 60_000);
  if (requests > (periodMs / 1_000) * MAX_PER_SECOND) {
    report(`${field}.requests`, "must not be more than 5,000,000 a second; or set unlimited");
  }
  return { requests, periodMs, burst: config.burst || Math.min(DEFAULT_BURST, requests) };
}
