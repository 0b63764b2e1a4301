import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import {
  type AdaptiveRate,
  AdaptiveRateError,
  type AdaptiveRateStats,
  ConcurrencyRefusedError,
  createAdaptiveRate,
  createFixedConcurrency,
  createRateLimiter,
  type FixedConcurrency,
  type RateLimiter,
} from "@toolplane/framework/policies";
import type { ToolPolicySettings } from "../config/outbound.ts";
import type { RateLimitSettings } from "../config/rate-limit.ts";
import { codeOf } from "../error-code.ts";
import { judgementOf } from "./judge.ts";

/** The limits of one configured policy, shared by all tools that match it. */
interface Throttle {
  readonly policy: ToolPolicySettings;
  readonly rate: RateLimiter | undefined;
  readonly adaptive: AdaptiveRate | undefined;
  readonly concurrency: FixedConcurrency | undefined;
}

/** What is needed to know of a call. */
export interface ThrottledCall {
  readonly policy: ToolPolicySettings | undefined;
  readonly signal: AbortSignal;
  /** When the call must be over, in milliseconds since 1970. */
  readonly deadline: number;
}

/** What a throttle thinks of how a call went. */
export type ThrottledOutcome = "success" | "failure" | "ignored";

/** Limits on the calls of tools that an operator has configured. */
export interface Throttles {
  /**
   * Makes a call when it is its turn. Throws RESOURCE_EXHAUSTED when a limit refuses it or its turn does not come in
   * time; what `work` throws otherwise.
   *
   * @param outcomeOf what a failure says about the backend
   */
  run<T>(
    call: ThrottledCall,
    work: () => Promise<T>,
    outcomeOf: (error: unknown) => ThrottledOutcome,
  ): Promise<T>;
  list(): readonly ThrottleSnapshot[];
  close(): void;
}

/** One limit of a policy. */
export interface ThrottleSnapshot {
  /** The pattern of the policy. */
  readonly key: string;
  readonly kind: "rate" | "adaptive-rate" | "concurrency";
  readonly limit: number;
  readonly periodMs?: number;
  readonly burst?: number;
  readonly remaining: number;
  readonly allowed: number;
  readonly refused: number;
  readonly waiting: number;
  /** Calls whose turn came after a wait; undefined where nobody waits. */
  readonly waits?: { readonly count: number; readonly totalMs: number; readonly maxMs: number };
}

export function createThrottles(policies: readonly ToolPolicySettings[], clock: Clock): Throttles {
  const throttles = new Map(
    policies.filter(hasLimits).map((policy) => [policy, createThrottle(policy, clock)] as const),
  );

  async function atItsRate<T>(
    { adaptive, policy }: Throttle,
    signal: AbortSignal,
    work: () => Promise<T>,
    outcomeOf: (error: unknown) => ThrottledOutcome,
  ): Promise<T> {
    if (!adaptive) {
      return work();
    }
    const permit = await adaptive.acquire(signal).catch((error: unknown) => {
      throw error instanceof AdaptiveRateError
        ? exhausted(policy, "TOOL_RATE_EXHAUSTED", error.message, error.retryAfterMs)
        : error;
    });
    const startedAt = clock.monotonic();
    try {
      const result = await work();
      permit.done("success", clock.monotonic() - startedAt);
      return result;
    } catch (error) {
      permit.done(outcomeOf(error), clock.monotonic() - startedAt);
      throw error;
    }
  }

  return {
    async run({ policy, signal, deadline }, work, outcomeOf) {
      const throttle = policy && throttles.get(policy);
      if (!throttle) {
        return work();
      }
      const decision = throttle.rate?.take("");
      if (decision && !decision.allowed) {
        throw exhausted(policy, "TOOL_RATE_LIMITED", wordsOf(policy.rateLimit), decision.retryAfterMs);
      }
      const paced = () => atItsRate(throttle, signal, work, outcomeOf);
      if (!throttle.concurrency) {
        return paced();
      }
      try {
        return await throttle.concurrency.run(paced, { signal, deadline });
      } catch (error) {
        throw error instanceof ConcurrencyRefusedError
          ? exhausted(policy, "TOOL_CONCURRENCY_EXHAUSTED", refusals[error.reason], 1_000)
          : error;
      }
    },
    list: () => [...throttles.values()].flatMap(describe),
    close() {
      for (const { rate, adaptive, concurrency } of throttles.values()) {
        rate?.close();
        adaptive?.close();
        concurrency?.close();
      }
    },
  };
}

const refusals = {
  full: "too many wait for their turn",
  deadline: "its turn did not come in time",
  closed: "the server is shutting down",
} as const;

/** What a failed call says about the load of its backend. */
export function throttledOutcome(error: unknown): ThrottledOutcome {
  if (!judgementOf(error)) {
    // It was not sent, or its caller has left.
    return "ignored";
  }
  switch (codeOf(error)) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.ResourceExhausted:
    case Code.Internal:
    case Code.Unknown:
      return "failure";
    default:
      return "ignored";
  }
}

function hasLimits({ rateLimit, adaptiveRate, maxConcurrency }: ToolPolicySettings): boolean {
  return rateLimit !== undefined || adaptiveRate !== undefined || maxConcurrency !== undefined;
}

function createThrottle(policy: ToolPolicySettings, clock: Clock): Throttle {
  const { rateLimit, adaptiveRate, maxConcurrency } = policy;
  return {
    policy,
    rate: rateLimit && createRateLimiter({ ...toRateLimit(rateLimit), maxKeys: 1, clock }),
    adaptive:
      adaptiveRate &&
      createAdaptiveRate({
        initialRate: adaptiveRate.initial,
        minRate: adaptiveRate.min,
        maxRate: adaptiveRate.max,
        maxWaitMs: adaptiveRate.maxWaitMs,
        clock,
      }),
    concurrency:
      maxConcurrency === undefined ? undefined : createFixedConcurrency({ limit: maxConcurrency, clock }),
  };
}

function toRateLimit({ requests, periodMs, burst }: RateLimitSettings) {
  return { limit: requests, periodMs, burst };
}

function describe({ policy, rate, adaptive, concurrency }: Throttle): ThrottleSnapshot[] {
  const key = policy.tool;
  const snapshots: ThrottleSnapshot[] = [];
  if (rate) {
    const { limit, periodMs, burst } = rate.limit;
    const { allowed, refused } = rate.stats();
    const { remaining } = rate.check("");
    snapshots.push({ key, kind: "rate", limit, periodMs, burst, remaining, allowed, refused, waiting: 0 });
  }
  if (adaptive) {
    const stats = adaptive.stats();
    snapshots.push({
      key,
      kind: "adaptive-rate",
      limit: stats.rate,
      remaining: 0,
      allowed: stats.acquired,
      refused: stats.queueFull + stats.timedOut,
      waiting: stats.waiting,
      waits: waitsOf(stats),
    });
  }
  if (concurrency) {
    const stats = concurrency.stats();
    snapshots.push({
      key,
      kind: "concurrency",
      limit: stats.limit,
      remaining: Math.max(0, stats.limit - stats.running),
      allowed: stats.begun,
      refused: stats.refused,
      waiting: stats.waiting,
      waits: waitsOf(stats),
    });
  }
  return snapshots;
}

function waitsOf(stats: Pick<AdaptiveRateStats, "waited" | "totalWaitMs" | "maxWaitMs">) {
  return { count: stats.waited, totalMs: stats.totalWaitMs, maxMs: stats.maxWaitMs };
}

function exhausted(
  { tool }: ToolPolicySettings,
  reason: string,
  description: string,
  retryAfterMs: number,
): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason,
    message: `Calls of ${tool} are limited: ${description}`,
    quotas: [{ subject: `tool:${tool}`, description }],
    retryAfterMs,
  });
}

function wordsOf(limit: RateLimitSettings | undefined): string {
  return limit ? `${limit.requests} calls in ${limit.periodMs / 1_000} s, ${limit.burst} at once` : "";
}
