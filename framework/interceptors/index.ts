export {
  cacheHeader,
  createResponseCaching,
  type ResponseCaching,
  type ResponseCachingOptions,
} from "./cache-responses.ts";
export { type CircuitBreakerOptions, circuitBreaker } from "./circuit-breaker.ts";
export {
  type CircuitFallback,
  fallbackHeader,
  fixedResponse,
  type LastGoodResponseOptions,
  lastGoodResponse,
  staleHeader,
} from "./circuit-breaker-fallback.ts";
export { codeOfError, outcomeForBreaker, outcomeOfCode, outcomeOfError } from "./circuit-breaker-outcome.ts";
export { circuitOpenError, isCircuitOpen } from "./circuit-breaker-refusal.ts";
export { type ClientChainOptions, createClientChain } from "./client-chain.ts";
export {
  type ConcurrencyLimit,
  type ConcurrencyLimitOptions,
  createConcurrencyLimit,
  type NamedConcurrencyStats,
} from "./concurrency-limit.ts";
export { type MethodConcurrencyOptions, methodConcurrency } from "./concurrency-limit-method.ts";
export {
  createDeduplication,
  type Deduplication,
  type DeduplicationOptions,
  deduplicatedHeader,
  type MethodSharing,
} from "./deduplicate.ts";
export { type HedgeOptions, hedge } from "./hedge.ts";
export {
  createRequestIds,
  idempotencyKeyHeader,
  type RequestIdOptions,
  type RequestIds,
  replayedHeader,
  requestIdOf,
} from "./idempotency.ts";
export {
  type MethodPolicies,
  type MethodPolicy,
  methodPolicies,
  type ResolvedMethodPolicy,
} from "./method-policy.ts";
export { type ObserveCallsOptions, observeCalls } from "./observe-calls.ts";
export { keepOwnHeaders } from "./own-headers.ts";
export {
  defaultExempt,
  exemption,
  LOCAL_PEER,
  type RateLimitInterceptorOptions,
  type RateLimitOptions,
  rateLimit,
  rateLimitError,
  rateLimitGate,
  rateLimitHeaders,
} from "./rate-limit.ts";
export { type AdaptiveRateInterceptorOptions, adaptiveRate } from "./rate-limit-adaptive.ts";
export {
  type CallLevelsOptions,
  callerKey,
  callLevels,
  GLOBAL_LEVEL,
  type LimitedCall,
} from "./rate-limit-levels.ts";
export { canonicalBinary, requestKey, requestScope } from "./request-key.ts";
export { type RetryOptions, retry } from "./retry.ts";
export { previousAttemptsHeader } from "./retry-attempt.ts";
export { classifyFailure, isConnectionLost } from "./retry-failure.ts";
export { isIdempotent, isRepeatable } from "./retry-repeatable.ts";
export {
  type ChainLimits,
  type ChainParts,
  createServerChain,
  type ServerChain,
  type ServerChainOptions,
} from "./server-chain.ts";
export {
  type ConnectChain,
  type ConnectChainOptions,
  createConnectChain,
} from "./server-chain-connect.ts";
