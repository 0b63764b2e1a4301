import type { DescMethod } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import { type AuthenticateOptions, type Authentication, authenticate } from "../access/authenticate.ts";
import type { Clock } from "../clock.ts";
import { type BreakerSet, createBreakerSet } from "../policies/breaker/breaker-set.ts";
import { createLimitSet, type LimitLevel, type LimitSet } from "../policies/rate-limit/limit-set.ts";
import type { Gate } from "./begin-call.ts";
import {
  createResponseCaching,
  type ResponseCaching,
  type ResponseCachingOptions,
} from "./cache-responses.ts";
import { type CircuitBreakerOptions, circuitBreaker } from "./circuit-breaker.ts";
import {
  type ConcurrencyLimit,
  type ConcurrencyLimitOptions,
  createConcurrencyLimit,
} from "./concurrency-limit.ts";
import { methodConcurrency } from "./concurrency-limit-method.ts";
import { createDeduplication, type Deduplication, type DeduplicationOptions } from "./deduplicate.ts";
import { createRequestIds, type RequestIdOptions, type RequestIds } from "./idempotency.ts";
import { type MethodPolicies, methodPolicies, type ResolvedMethodPolicy } from "./method-policy.ts";
import { type RateLimitOptions, rateLimitGate } from "./rate-limit.ts";
import { type CallLevelsOptions, callLevels, type LimitedCall } from "./rate-limit-levels.ts";

/** What protects a server. What may differ between methods is part of their policies. */
export interface ServerChainOptions {
  /** How single methods are protected, by `package.Service/Method`; goes before their annotations. */
  readonly methods?: MethodPolicies | undefined;
  /** Asks callers who they are. Default: nobody is asked. */
  readonly authenticate?: Omit<AuthenticateOptions, "roleOf" | "clock"> | undefined;
  /** Limits beside those of single methods. Default: none. */
  readonly limits?: Omit<CallLevelsOptions, "limitOf" | "clock"> | undefined;
  /**
   * Makes of the levels what decides. Default: `createLimitSet`, which counts in memory. For replicas that share their
   * limits: `(levels) => createSharedLimitSet({ levels, store })`.
   */
  readonly limitSet?: ((levels: LimitLevel<LimitedCall>[]) => ChainLimits) | undefined;
  /** Services and methods that are neither limited nor shed, see `defaultExempt`. */
  readonly exempt?: ReadonlySet<string> | undefined;
  /** Sheds what the server cannot do in time. Default: with the defaults of `createConcurrencyLimit`; false: not. */
  readonly concurrency?: Omit<ConcurrencyLimitOptions, "exempt" | "clock"> | false | undefined;
  /** Lets requests with an id happen once. Default: ids are not heeded, since that needs a store. */
  readonly requestIds?: Omit<RequestIdOptions, "clock"> | undefined;
  /** Keeps answers of methods with a `cache_ttl`. Default: nothing is kept. */
  readonly cache?: Omit<ResponseCachingOptions, "ttlMs" | "clock"> | undefined;
  /** Shares executions. Default: with the defaults of `createDeduplication`; false: not. */
  readonly deduplication?: Omit<DeduplicationOptions, "shares" | "clock"> | false | undefined;
  /** Stops calling what keeps failing. Default: with the defaults of `circuitBreaker` for servers; false: not. */
  readonly breaker?: Omit<CircuitBreakerOptions, "side" | "clock"> | false | undefined;
  readonly clock?: Clock | undefined;
}

/** What limits decide with, how they stand, and what becomes of them in the end. */
export type ChainLimits = RateLimitOptions["limits"] & Pick<LimitSet<LimitedCall>, "snapshot" | "close">;

/** The parts of a chain, for statistics and for those who change them while it runs. Undefined: not configured. */
export interface ChainParts {
  readonly authentication: Authentication | undefined;
  readonly limits: ChainLimits;
  readonly concurrency: ConcurrencyLimit | undefined;
  readonly requestIds: RequestIds | undefined;
  readonly caching: ResponseCaching | undefined;
  readonly deduplication: Deduplication | undefined;
  readonly breakers: BreakerSet | undefined;
}

/** To be spread into the options of `serve()`. */
export interface ServerChain {
  readonly gates: readonly Gate[];
  readonly interceptors: readonly Interceptor[];
  readonly timeoutOf: (method: DescMethod) => number | undefined;
  readonly parts: ChainParts;
  /** Ends what the chain owns, when the server has closed: waits for work that goes on without its caller. */
  close(): Promise<void>;
}

/**
 * Composes what protects a server that is made with `serve()`, in the order in which it has to be. With what `serve()`
 * does itself, a call passes:
 *
 * 1. *observe*: context, log line and metrics, whatever becomes of the call;
 * 2. *authenticate*: all that follows may depend on who calls;
 * 3. *rate limit*: an unknown caller has no limit of its own to spend, so it comes second; all calls count, also those
 *    that are answered without work;
 * 4. *shed*: only looks whether there is room. Up to here, no body was read: a refusal costs next to nothing;
 * 5. *errors*, *validate*: what follows sees only requests that a handler could be given;
 * 6. *request ids*: an outcome that is remembered goes before everything that might answer or refuse;
 * 7. *cache*, then *deduplicate*: each caller has passed all checks by itself, and no more than one execution of what
 *    they have in common goes on;
 * 8. *breaker*: judges executions, not callers, and neither answers from the cache nor refusals above;
 * 9. *concurrency of the method*, then *of the server*: innermost, so that what has a place is work;
 * 10. the handler.
 *
 * @example
 * ```ts
 * const chain = createServerChain({
 *   authenticate: { verifiers: [apiKeys] },
 *   limits: { global: { limit: 60_000, periodMs: 60_000 }, caller: { limit: 600, periodMs: 60_000 } },
 *   methods: { "acme.weather.v1.WeatherService/GetForecast": { timeoutMs: 5_000 } },
 * });
 * const server = await serve({ name: "weather", routes, ...chain });
 * ```
 */
export function createServerChain(options: ServerChainOptions = {}): ServerChain {
  const policyOf = methodPolicies(options.methods);
  const { exempt } = options;
  const parts = createParts(options, policyOf);
  const { authentication, limits, concurrency } = parts;
  return {
    gates: [
      ...(authentication ? [authentication.gate] : []),
      rateLimitGate({ limits, exempt }),
      ...(concurrency ? [concurrency.gate] : []),
    ],
    interceptors: innerInterceptors(options, parts, policyOf),
    timeoutOf: (method) => policyOf(method).timeoutMs,
    parts,
    close: () => closeParts(parts),
  };
}

/** Makes what is configured. */
export function createParts(
  options: ServerChainOptions,
  policyOf: (method: DescMethod) => ResolvedMethodPolicy,
): ChainParts {
  const clock = options.clock === undefined ? {} : { clock: options.clock };
  const { exempt, limitSet = (levels: LimitLevel<LimitedCall>[]) => createLimitSet(levels, clock) } = options;
  return {
    authentication:
      options.authenticate &&
      authenticate({ ...options.authenticate, ...clock, roleOf: (method) => policyOf(method).role }),
    limits: limitSet(
      callLevels({ ...options.limits, ...clock, limitOf: (method) => policyOf(method).rateLimit }),
    ),
    concurrency:
      options.concurrency === false
        ? undefined
        : createConcurrencyLimit({ ...options.concurrency, exempt, ...clock }),
    requestIds: options.requestIds && createRequestIds({ ...options.requestIds, ...clock }),
    caching:
      options.cache &&
      createResponseCaching({
        ...options.cache,
        ...clock,
        ttlMs: (method) => policyOf(method).cacheTtlMs,
      }),
    deduplication:
      options.deduplication === false
        ? undefined
        : createDeduplication({
            ...options.deduplication,
            ...clock,
            shares: (method) => policyOf(method).sharing,
          }),
    breakers:
      options.breaker === false
        ? undefined
        : (options.breaker?.breakers ?? createBreakerSet({ defaults: clock })),
  };
}

/** What goes around a handler after its request was validated, in both kinds of servers. */
export function innerInterceptors(
  { breaker, clock }: ServerChainOptions,
  { requestIds, caching, deduplication, breakers, concurrency }: ChainParts,
  policyOf: (method: DescMethod) => ResolvedMethodPolicy,
): Interceptor[] {
  return [
    ...(requestIds ? [requestIds.interceptor] : []),
    ...(caching ? [caching.interceptor] : []),
    ...(deduplication ? [deduplication.interceptor] : []),
    ...(breakers
      ? [circuitBreaker({ ...(breaker === false ? {} : breaker), clock, breakers, side: "server" })]
      : []),
    methodConcurrency({ maxOf: (method) => policyOf(method).maxConcurrency }),
    ...(concurrency ? [concurrency.interceptor] : []),
  ];
}

export async function closeParts({ limits, requestIds, caching }: ChainParts): Promise<void> {
  limits.close();
  await Promise.all([requestIds?.close(), caching?.cache.close()]);
}
