import type {
  AdaptiveRateConfig,
  OutboundConfig,
  SecretSource,
  ToolPolicy,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds, optionalMilliseconds } from "./durations.ts";
import { type RateLimitSettings, resolveRateLimit } from "./rate-limit.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** What protects backends, and callers from backends. */
export interface OutboundSettings {
  /** Undefined: there are none. */
  readonly breaker: BreakerSettings | undefined;
  readonly outliers: { readonly ejectionTimeMs: number; readonly maxEjectedPercent: number } | undefined;
  readonly retry: {
    readonly attempts: number;
    readonly baseDelayMs: number;
    readonly maxDelayMs: number;
    /** Repetitions as a share of calls. */
    readonly budget: number;
  };
  readonly deduplication: { readonly windowMs: number; readonly maxInFlight: number } | undefined;
  readonly cache:
    | {
        readonly maxBytes: number;
        readonly durable: boolean;
        readonly staleWhileRevalidateMs: number;
        /** Undefined: a key of the data directory. */
        readonly signingKey: SecretSource | undefined;
      }
    | undefined;
  /** The first that matches a tool counts. */
  readonly tools: readonly ToolPolicySettings[];
}

export interface BreakerSettings {
  readonly consecutiveFailures: number;
  readonly windowMs: number;
  readonly failureRate: number;
  readonly slowCallRate: number;
  /** Undefined: no call counts as slow. */
  readonly slowCallMs: number | undefined;
  readonly minimumCalls: number;
  readonly openMs: number;
  readonly maxOpenMs: number;
  readonly probes: number;
}

/** What applies to the tools whose names match. Undefined: as everywhere. */
export interface ToolPolicySettings {
  /** A name, or a pattern in which `*` stands for any text. */
  readonly tool: string;
  readonly timeoutMs: number | undefined;
  readonly retryAttempts: number | undefined;
  readonly idempotent: boolean;
  readonly unshared: boolean;
  /** 0: answers are not kept. */
  readonly cacheTtlMs: number | undefined;
  readonly hedgeDelayMs: number | undefined;
  readonly rateLimit: RateLimitSettings | undefined;
  readonly adaptiveRate: AdaptiveRateSettings | undefined;
  readonly maxConcurrency: number | undefined;
  readonly fallback: FallbackSettings | undefined;
}

export interface AdaptiveRateSettings {
  /** Calls a second. */
  readonly initial: number;
  readonly min: number;
  readonly max: number;
  readonly maxWaitMs: number;
}

export type FallbackSettings =
  | { readonly kind: "last-good"; readonly maxAgeMs: number }
  | { readonly kind: "result"; readonly json: string }
  | { readonly kind: "version"; readonly version: string };

export function resolveOutbound(config: OutboundConfig | undefined): OutboundSettings {
  const { breaker, outliers, retry, deduplication, cache } = config ?? {};
  return {
    breaker: breaker?.disabled
      ? undefined
      : {
          consecutiveFailures: breaker?.consecutiveFailures || 3,
          windowMs: milliseconds(breaker?.window, MINUTE),
          failureRate: breaker?.failureRate || 0.5,
          slowCallRate: breaker?.slowCallRate || 0.8,
          slowCallMs: optionalMilliseconds(breaker?.slowCall),
          minimumCalls: breaker?.minimumCalls || 10,
          openMs: milliseconds(breaker?.openDuration, 30 * SECOND),
          maxOpenMs: milliseconds(breaker?.maxOpenDuration, 5 * MINUTE),
          probes: breaker?.probes || 2,
        },
    outliers: outliers?.disabled
      ? undefined
      : {
          ejectionTimeMs: milliseconds(outliers?.ejectionTime, 30 * SECOND),
          maxEjectedPercent: outliers?.maxEjectedPercent || 50,
        },
    retry: {
      attempts: retry?.attempts || 3,
      baseDelayMs: milliseconds(retry?.baseDelay, 100),
      maxDelayMs: milliseconds(retry?.maxDelay, 5 * SECOND),
      budget: retry?.budget || 0.2,
    },
    deduplication: deduplication?.disabled
      ? undefined
      : {
          windowMs: milliseconds(deduplication?.window, MINUTE),
          maxInFlight: deduplication?.maxInFlight || 1_000,
        },
    cache: cache?.disabled
      ? undefined
      : {
          maxBytes: Number(cache?.maxBytes ?? 0n) || 100 * 1024 * 1024,
          durable: cache?.durable ?? false,
          staleWhileRevalidateMs: milliseconds(cache?.staleWhileRevalidate, 0),
          signingKey: cache?.signingKey,
        },
    tools: config?.tools.map(resolveToolPolicy) ?? [],
  };
}

function resolveToolPolicy(policy: ToolPolicy): ToolPolicySettings {
  return {
    tool: policy.tool,
    timeoutMs: optionalMilliseconds(policy.timeout),
    retryAttempts: policy.retryAttempts || undefined,
    idempotent: policy.idempotent,
    unshared: policy.unshared,
    cacheTtlMs: optionalMilliseconds(policy.cacheTtl),
    hedgeDelayMs: optionalMilliseconds(policy.hedgeDelay),
    rateLimit: policy.rateLimit && resolveRateLimit(policy.rateLimit, undefined),
    adaptiveRate: policy.adaptiveRate && resolveAdaptiveRate(policy.adaptiveRate),
    maxConcurrency: policy.maxConcurrency || undefined,
    fallback: resolveFallback(policy.fallback),
  };
}

function resolveAdaptiveRate({ initial, min, max, maxWait }: AdaptiveRateConfig): AdaptiveRateSettings {
  return {
    initial: initial || 10,
    min: min || 1,
    max: max || 100,
    maxWaitMs: milliseconds(maxWait, 30 * SECOND),
  };
}

function resolveFallback(fallback: ToolPolicy["fallback"]): FallbackSettings | undefined {
  switch (fallback.case) {
    case "lastGood":
      return { kind: "last-good", maxAgeMs: milliseconds(fallback.value, 0) };
    case "resultJson":
      return { kind: "result", json: fallback.value };
    case "version":
      return { kind: "version", version: fallback.value };
    case undefined:
      return undefined;
  }
}
