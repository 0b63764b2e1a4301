import type { InboundConfig } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds } from "./durations.ts";
import { type RateLimitSettings, resolveRateLimit } from "./rate-limit.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** What protects the server from its callers. An undefined limit is none. */
export interface InboundSettings {
  readonly global: RateLimitSettings | undefined;
  readonly perService: RateLimitSettings | undefined;
  readonly perCaller: RateLimitSettings | undefined;
  /** By the full name of the RPC service; undefined takes the limit away that `perService` sets. */
  readonly services: ReadonlyMap<string, RateLimitSettings | undefined>;
  /** By the name of the principal. */
  readonly callers: ReadonlyMap<string, RateLimitSettings | undefined>;
  /** Undefined: there is none. */
  readonly concurrency: { readonly initial: number; readonly min: number; readonly max: number } | undefined;
  readonly idempotencyRetentionMs: number;
}

const perMinute = (requests: number): RateLimitSettings => ({
  requests,
  periodMs: MINUTE,
  burst: Math.min(20, requests),
});

/** Services whose calls start costly work. */
const COSTLY_SERVICES = new Map([["toolplane.testing.v1.TestRunService", perMinute(200)]]);

export function resolveInbound(config: InboundConfig | undefined): InboundSettings {
  const { concurrency } = config ?? {};
  return {
    global: resolveRateLimit(config?.global, perMinute(1_000)),
    perService: resolveRateLimit(config?.perService, undefined),
    perCaller: resolveRateLimit(config?.perCaller, perMinute(600)),
    services: new Map([...COSTLY_SERVICES, ...resolveEach(config?.services)]),
    callers: new Map(resolveEach(config?.callers)),
    concurrency: concurrency?.disabled
      ? undefined
      : {
          initial: concurrency?.initial || 100,
          min: concurrency?.min || 20,
          max: concurrency?.max || 1_000,
        },
    idempotencyRetentionMs: milliseconds(config?.idempotencyRetention, DAY),
  };
}

function resolveEach(
  limits: InboundConfig["services"] = {},
): (readonly [string, RateLimitSettings | undefined])[] {
  return Object.entries(limits).map(([name, limit]) => [name, resolveRateLimit(limit, undefined)]);
}
