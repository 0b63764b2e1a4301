import type { RateLimit } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds } from "./durations.ts";

/** A token bucket. */
export interface RateLimitSettings {
  readonly requests: number;
  readonly periodMs: number;
  readonly burst: number;
}

const DEFAULT_BURST = 20;

/** What a limit says, its gaps filled from `defaults`; undefined: no limit. */
export function resolveRateLimit(
  config: RateLimit | undefined,
  defaults: RateLimitSettings | undefined,
): RateLimitSettings | undefined {
  if (!config) {
    return defaults;
  }
  const requests = config.requests || defaults?.requests;
  if (config.unlimited || !requests) {
    return undefined;
  }
  return {
    requests,
    periodMs: milliseconds(config.period, defaults?.periodMs ?? 60_000),
    burst: config.burst || Math.min(DEFAULT_BURST, requests),
  };
}
