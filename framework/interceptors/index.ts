export {
  cacheHeader,
  createResponseCaching,
  type ResponseCaching,
  type ResponseCachingOptions,
} from "./cache-responses.ts";
export { type CircuitBreakerOptions, circuitBreaker } from "./circuit-breaker.ts";
export {
  createDeduplication,
  type Deduplication,
  type DeduplicationOptions,
  deduplicatedHeader,
  type MethodSharing,
} from "./deduplicate.ts";
export { type HedgeOptions, hedge } from "./hedge.ts";
export {
  defaultExempt,
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
export { classifyFailure, isConnectionLost } from "./retry-failure.ts";
