import { ConnectError, type Interceptor } from "@connectrpc/connect";
import { type Clock, systemClock } from "../clock.ts";
import { createRetryBudget } from "../policies/retry/retry-budget.ts";
import type { Failure } from "../policies/retry/retry-decision.ts";
import { createResponseCaching, type ResponseCachingOptions } from "./cache-responses.ts";
import { type CircuitBreakerOptions, circuitBreaker } from "./circuit-breaker.ts";
import { isCircuitOpen } from "./circuit-breaker-refusal.ts";
import { createDeduplication, type DeduplicationOptions } from "./deduplicate.ts";
import { type HedgeOptions, hedge } from "./hedge.ts";
import { type MethodPolicies, methodPolicies } from "./method-policy.ts";
import { type AdaptiveRateInterceptorOptions, adaptiveRate } from "./rate-limit-adaptive.ts";
import { type RetryOptions, retry } from "./retry.ts";
import { classifyFailure } from "./retry-failure.ts";

/** What protects the callers of a service, and the service from them. */
export interface ClientChainOptions {
  /** How single methods are called, by `package.Service/Method`; goes before their annotations. */
  readonly methods?: MethodPolicies | undefined;
  /** Keeps answers of methods with a `cache_ttl`. Default: nothing is kept. */
  readonly cache?: Omit<ResponseCachingOptions, "ttlMs" | "clock"> | undefined;
  /** Shares calls in flight. Default: with the defaults of `createDeduplication`; false: not. */
  readonly deduplication?: Omit<DeduplicationOptions, "shares" | "clock"> | false | undefined;
  /** Repeats what failed. Default: with the defaults of `retry`; false: not. */
  readonly retry?: Omit<RetryOptions, "attemptsOf" | "clock"> | false | undefined;
  /** Sends a second time what takes long, out of the same budget as retries. Default: not. */
  readonly hedge?: Omit<HedgeOptions, "clock"> | undefined;
  /** Stops calling what keeps failing. Default: with the defaults of `circuitBreaker`; false: not. */
  readonly breaker?: Omit<CircuitBreakerOptions, "side" | "clock"> | false | undefined;
  /** Finds the rate that a weak backend can take. Default: calls do not wait. */
  readonly adaptiveRate?: Omit<AdaptiveRateInterceptorOptions, "clock"> | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * Composes what makes calls resilient, for any Connect transport, in the order in which it has to be:
 *
 * 1. *cache*: what is known is not asked;
 * 2. *deduplicate*: outside of retries, so that those who share a call share its attempts too, and do not each repeat it;
 * 3. *retry*, then *hedge*: each attempt has to pass what follows;
 * 4. *breaker*: inside of retries, so that each attempt counts. Its refusal ends the call at once, whatever attempts are
 *    left: whoever waits for it to close does what it is there to prevent;
 * 5. *adaptive rate*: innermost, so that only what is really sent takes a turn, and the rate learns from each of them;
 * 6. the transport.
 *
 * The interceptors have state: make one chain for each service that is called, and keep it as long as the transport.
 *
 * @example
 * ```ts
 * const transport = createGrpcTransport({ baseUrl, interceptors: createClientChain() });
 * ```
 */
export function createClientChain(options: ClientChainOptions = {}): Interceptor[] {
  const { cache, deduplication, breaker } = options;
  const policyOf = methodPolicies(options.methods);
  const clock = options.clock === undefined ? {} : { clock: options.clock };
  const budget = createRetryBudget(clock);
  const classify = (error: unknown) => classifyAttempt(error, options.clock ?? systemClock);
  return [
    ...(cache
      ? [
          createResponseCaching({ ...cache, ...clock, ttlMs: (method) => policyOf(method).cacheTtlMs })
            .interceptor,
        ]
      : []),
    ...(deduplication === false
      ? []
      : [
          createDeduplication({ ...deduplication, ...clock, shares: (method) => policyOf(method).sharing })
            .interceptor,
        ]),
    ...(options.retry === false
      ? []
      : [
          retry({
            budget,
            classify,
            ...options.retry,
            ...clock,
            attemptsOf: (method) => policyOf(method).retryAttempts,
          }),
        ]),
    ...(options.hedge ? [hedge({ budget, classify, ...options.hedge, ...clock })] : []),
    ...(breaker === false ? [] : [circuitBreaker({ ...breaker, ...clock, side: "client" })]),
    ...(options.adaptiveRate ? [adaptiveRate({ ...options.adaptiveRate, ...clock })] : []),
  ];
}

function classifyAttempt(error: unknown, clock: Clock): Failure {
  const refusedHere = isCircuitOpen(error) && !(error instanceof ConnectError && error.isWireError);
  return refusedHere ? { kind: "forbidden" } : classifyFailure(error, clock.now());
}
