export {
  type Batcher,
  BatcherError,
  type BatcherEvent,
  type BatcherOptions,
  type BatcherStats,
  createBatcher,
} from "./batch/batcher.ts";
export { acquireAll, type CombinedPermit } from "./breaker/acquire-all.ts";
export { type Breaker, createBreaker } from "./breaker/breaker.ts";
export { type BreakerSet, type BreakerSetOptions, createBreakerSet } from "./breaker/breaker-set.ts";
export type { BreakerOptions } from "./breaker/options.ts";
export type {
  BreakerEvent,
  BreakerPermit,
  BreakerRefusal,
  BreakerSnapshot,
  BreakerState,
  OpenCause,
  Outcome,
} from "./breaker/state.ts";
export { type ByteLru, type ByteLruOptions, createByteLru } from "./cache/byte-lru.ts";
export type { DurableEvent, DurableStats } from "./cache/durable-layer.ts";
export type { DurableStore, DurableWrite, PurgeScope } from "./cache/durable-store.ts";
export {
  type Answer,
  type CallOptions,
  createResponseCache,
  type Load,
  type Loaded,
  type ResponseCache,
  type ResponseCacheEvent,
  type ResponseCacheOptions,
  type ResponseCacheStats,
} from "./cache/response-cache.ts";
export {
  type Caller,
  type Coalescer,
  type CoalescerEvent,
  type CoalescerOptions,
  type CoalescerStats,
  createCoalescer,
  type Flight,
  type Work,
} from "./coalesce/coalescer.ts";
export {
  type AdaptiveConcurrency,
  type AdaptiveConcurrencyEvent,
  type AdaptiveConcurrencyOptions,
  type AdaptiveConcurrencyStats,
  createAdaptiveConcurrency,
  type Permit,
  type WorkOutcome,
} from "./concurrency/adaptive-concurrency.ts";
export {
  ConcurrencyRefusedError,
  createFixedConcurrency,
  type FixedConcurrency,
  type FixedConcurrencyEvent,
  type FixedConcurrencyOptions,
  type FixedConcurrencyRefusal,
  type FixedConcurrencyStats,
  type WaitOptions,
} from "./concurrency/fixed-concurrency.ts";
export {
  createHedger,
  type HedgeCall,
  type HedgeEvent,
  HedgeLostError,
  type Hedger,
  type HedgerOptions,
  type HedgeStats,
} from "./hedge/hedger.ts";
export {
  createIdempotency,
  type Idempotency,
  IdempotencyError,
  type IdempotencyEvent,
  type IdempotencyFailure,
  type IdempotencyOptions,
  type IdempotencyStats,
  type IdempotentRequest,
  type IdempotentResult,
  type IdempotentWork,
} from "./idempotency/idempotency.ts";
export {
  createMemoryIdempotencyStore,
  type MemoryIdempotencyStoreOptions,
} from "./idempotency/memory-store.ts";
export type {
  Claim,
  ClaimRequest,
  ClaimResult,
  IdempotencyStore,
  IdempotentOutcome,
} from "./idempotency/store.ts";
export type { OutlierOptions } from "./outlier/options.ts";
export { createOutlierDetector, type OutlierDetector } from "./outlier/outlier-detector.ts";
export type {
  EjectionReason,
  InstanceCall,
  InstanceSnapshot,
  InstanceState,
  OutlierEvent,
} from "./outlier/state.ts";
export {
  type AdaptiveRate,
  AdaptiveRateError,
  type AdaptiveRateEvent,
  type AdaptiveRateOptions,
  type AdaptiveRateStats,
  createAdaptiveRate,
  type RateOutcome,
  type RatePermit,
} from "./rate-limit/adaptive-rate.ts";
export {
  type Count,
  type Counter,
  type CounterStore,
  counterTableSql,
  type PostgresCountersOptions,
  type PostgresPool,
  postgresCounters,
  type RedisClient,
  type RedisCountersOptions,
  redisCounters,
} from "./rate-limit/counter-store.ts";
export { DEFAULT_BURST, type RateLimit } from "./rate-limit/gcra.ts";
export {
  createLimitSet,
  type LevelSnapshot,
  type LimitDecision,
  type LimitLevel,
  type LimitSet,
} from "./rate-limit/limit-set.ts";
export {
  createRateLimiter,
  type KeyUse,
  type RateDecision,
  type RateLimiter,
  type RateLimiterEvent,
  type RateLimiterOptions,
  type RateLimiterStats,
} from "./rate-limit/rate-limiter.ts";
export {
  createSharedLimitSet,
  type SharedLimitSet,
  type SharedLimitSetOptions,
  type SharedLimitStats,
} from "./rate-limit/shared-limit-set.ts";
export { type SharedWindow, sharedWindow } from "./rate-limit/shared-window.ts";
export type { StoreEvent, StoreHealthOptions } from "./rate-limit/store-health.ts";
export { type Backoff, backoffDelayMs } from "./retry/backoff.ts";
export {
  createRetrier,
  type Retrier,
  type RetrierOptions,
  type RetryCall,
  type RetryEvent,
  type RetryStats,
} from "./retry/retrier.ts";
export {
  createRetryBudget,
  type RetryBudget,
  type RetryBudgetOptions,
  type RetryBudgetStats,
} from "./retry/retry-budget.ts";
export {
  type Failure,
  type GiveUpReason,
  type RetryLimits,
  reasonToGiveUp,
  retryDelayMs,
} from "./retry/retry-decision.ts";
