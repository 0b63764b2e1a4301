import type {
  AdaptiveRateConfig,
  BreakerConfig,
  OutboundConfig,
  RetryConfig,
  SecretSource,
  ToolPolicy,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds, optionalMilliseconds } from "./durations.ts";
import { type ReportMistake, withoutMistakes } from "./mistakes.ts";
import { type Range, resolveGrowth, resolveRange } from "./range.ts";
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
        /** How long after its time an answer is given when the tool cannot answer; 0: not at all. */
        readonly maxStaleMs: number;
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

/** In calls a second. */
export interface AdaptiveRateSettings extends Range {
  readonly maxWaitMs: number;
}

export type FallbackSettings =
  | { readonly kind: "last-good"; readonly maxAgeMs: number }
  | { readonly kind: "result"; readonly json: string }
  | { readonly kind: "version"; readonly version: string };

/** Throws INVALID_ARGUMENT where there is no `report`. */
export function resolveOutbound(
  config: OutboundConfig | undefined,
  report?: ReportMistake,
): OutboundSettings {
  if (report === undefined) {
    return withoutMistakes((found) => resolveOutbound(config, found));
  }
  const { outliers, deduplication, cache } = config ?? {};
  return {
    breaker: resolveBreaker(config?.breaker, report),
    outliers: outliers?.disabled
      ? undefined
      : {
          ejectionTimeMs: milliseconds(outliers?.ejectionTime, 30 * SECOND),
          maxEjectedPercent: outliers?.maxEjectedPercent || 50,
        },
    retry: resolveRetry(config?.retry, report),
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
          maxStaleMs: milliseconds(cache?.maxStale, 60 * MINUTE),
          signingKey: cache?.signingKey,
        },
    tools: resolveToolPolicies(config?.tools ?? [], report),
  };
}

function resolveToolPolicies(policies: readonly ToolPolicy[], report: ReportMistake): ToolPolicySettings[] {
  const places = new Map<string, number>();
  return policies.map((policy, index) => {
    const field = `outbound.tools[${index}]`;
    const place = places.get(policy.tool);
    if (place !== undefined) {
      report(`${field}.tool`, `is what outbound.tools[${place}] is for: the first that matches counts`);
    }
    places.set(policy.tool, place ?? index);
    return resolveToolPolicy(policy, field, report);
  });
}

function resolveBreaker(
  config: BreakerConfig | undefined,
  report: ReportMistake,
): BreakerSettings | undefined {
  if (config?.disabled) {
    return undefined;
  }
  const [openMs, maxOpenMs] = resolveGrowth(
    [optionalMilliseconds(config?.openDuration), optionalMilliseconds(config?.maxOpenDuration)],
    [30 * SECOND, 5 * MINUTE],
    ["outbound.breaker.open_duration", "outbound.breaker.max_open_duration"],
    report,
  );
  return {
    consecutiveFailures: config?.consecutiveFailures || 3,
    windowMs: milliseconds(config?.window, MINUTE),
    failureRate: config?.failureRate || 0.5,
    slowCallRate: config?.slowCallRate || 0.8,
    slowCallMs: optionalMilliseconds(config?.slowCall),
    minimumCalls: config?.minimumCalls || 10,
    openMs,
    maxOpenMs,
    probes: config?.probes || 2,
  };
}

function resolveRetry(config: RetryConfig | undefined, report: ReportMistake): OutboundSettings["retry"] {
  const [baseDelayMs, maxDelayMs] = resolveGrowth(
    [optionalMilliseconds(config?.baseDelay), optionalMilliseconds(config?.maxDelay)],
    [100, 5 * SECOND],
    ["outbound.retry.base_delay", "outbound.retry.max_delay"],
    report,
  );
  return { attempts: config?.attempts || 3, baseDelayMs, maxDelayMs, budget: config?.budget || 0.2 };
}

function resolveToolPolicy(policy: ToolPolicy, field: string, report: ReportMistake): ToolPolicySettings {
  return {
    tool: policy.tool,
    timeoutMs: optionalMilliseconds(policy.timeout),
    retryAttempts: policy.retryAttempts || undefined,
    idempotent: policy.idempotent,
    unshared: policy.unshared,
    cacheTtlMs: optionalMilliseconds(policy.cacheTtl),
    hedgeDelayMs: optionalMilliseconds(policy.hedgeDelay),
    rateLimit: resolveRateLimit(policy.rateLimit, undefined, `${field}.rate_limit`, report),
    adaptiveRate:
      policy.adaptiveRate && resolveAdaptiveRate(policy.adaptiveRate, `${field}.adaptive_rate`, report),
    maxConcurrency: policy.maxConcurrency || undefined,
    fallback: resolveFallback(policy.fallback, field, report),
  };
}

function resolveAdaptiveRate(
  config: AdaptiveRateConfig,
  field: string,
  report: ReportMistake,
): AdaptiveRateSettings {
  return {
    ...resolveRange(config, { initial: 10, min: 1, max: 100 }, field, report),
    maxWaitMs: milliseconds(config.maxWait, 30 * SECOND),
  };
}

function resolveFallback(
  fallback: ToolPolicy["fallback"],
  field: string,
  report: ReportMistake,
): FallbackSettings | undefined {
  switch (fallback.case) {
    case "lastGood":
      return { kind: "last-good", maxAgeMs: milliseconds(fallback.value, 0) };
    case "resultJson":
      checkJson(fallback.value, `${field}.result_json`, report);
      return { kind: "result", json: fallback.value };
    case "version":
      return { kind: "version", version: fallback.value };
    case undefined:
      return undefined;
  }
}

function checkJson(text: string, field: string, report: ReportMistake): void {
  try {
    JSON.parse(text);
  } catch (error) {
    report(field, `must be JSON: ${error instanceof Error ? error.message : error}`);
  }
}
