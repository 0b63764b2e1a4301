import { create } from "@bufbuild/protobuf";
import {
  type Breaker,
  BreakerSchema,
  BreakerScope,
  BreakerState,
  type Cache,
  CacheSchema,
  type Deduplication,
  DeduplicationSchema,
  type Ejection,
  EjectionSchema,
  type Limit,
  LimitKind,
  LimitSchema,
  type PoolConnection,
  PoolConnectionSchema,
} from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import {
  type BatchWriter,
  BatchWriterSchema,
  type MethodStreams,
  MethodStreamsSchema,
} from "@toolplane/gen/toolplane/admin/v1/runtime_pb.js";
import { toDuration, toTimestamp } from "../config/durations.ts";
import type {
  BatchWriterSnapshot,
  BreakerSnapshot,
  CacheSnapshot,
  DeduplicationSnapshot,
  EjectionSnapshot,
  LimitSnapshot,
  MethodStreamsSnapshot,
  PoolConnectionSnapshot,
} from "./sources.ts";

export function breakerState(kind: BreakerSnapshot["state"]["kind"]): BreakerState {
  switch (kind) {
    case "closed":
      return BreakerState.CLOSED;
    case "open":
      return BreakerState.OPEN;
    case "half-open":
      return BreakerState.HALF_OPEN;
    case "isolated":
      return BreakerState.ISOLATED;
  }
}

function breakerScope(scope: BreakerSnapshot["scope"]): BreakerScope {
  switch (scope) {
    case "service":
      return BreakerScope.SERVICE;
    case "instance":
      return BreakerScope.INSTANCE;
    case "method":
      return BreakerScope.METHOD;
  }
}

export function toBreaker({ state, window, lastFailure, ...breaker }: BreakerSnapshot): Breaker {
  return create(BreakerSchema, {
    name: breaker.name,
    scope: breakerScope(breaker.scope),
    service: breaker.service,
    environment: breaker.environment,
    version: breaker.version,
    instanceId: breaker.instanceId ?? "",
    tool: breaker.tool ?? "",
    state: breakerState(state.kind),
    stateTime: toTimestamp(state.since),
    ...(state.kind === "open" ? { retryTime: toTimestamp(state.retryAt) } : {}),
    consecutiveFailures: BigInt(breaker.consecutiveFailures),
    windowCalls: BigInt(window.calls),
    windowFailures: BigInt(window.failures),
    windowSlowCalls: BigInt(window.slowCalls),
    rejected: BigInt(breaker.rejected),
    timesOpened: BigInt(breaker.timesOpened),
    lastFailure: lastFailure?.text ?? "",
  });
}

export function toEjection({ ejectedAt, returnsAt, ...ejection }: EjectionSnapshot): Ejection {
  return create(EjectionSchema, {
    ...ejection,
    ejectTime: toTimestamp(ejectedAt),
    returnTime: toTimestamp(returnsAt),
  });
}

function limitKind(kind: LimitSnapshot["kind"]): LimitKind {
  switch (kind) {
    case "rate":
      return LimitKind.RATE;
    case "concurrency":
      return LimitKind.CONCURRENCY;
    case "adaptive-rate":
      return LimitKind.ADAPTIVE_RATE;
  }
}

export function toLimit(limit: LimitSnapshot): Limit {
  return create(LimitSchema, {
    level: limit.level,
    key: limit.key,
    kind: limitKind(limit.kind),
    limit: limit.limit,
    ...(limit.periodMs === undefined ? {} : { period: toDuration(limit.periodMs) }),
    burst: limit.burst ?? 0,
    remaining: limit.remaining,
    allowed: BigInt(limit.allowed),
    refused: BigInt(limit.refused),
    waiting: BigInt(limit.waiting ?? 0),
    store: limit.store ?? "memory",
  });
}

export function toCache(cache: CacheSnapshot): Cache {
  const hits = cache.memoryHits + cache.durableHits;
  return create(CacheSchema, {
    name: cache.name,
    entries: BigInt(cache.entries),
    bytes: BigInt(cache.bytes),
    maxBytes: BigInt(cache.maxBytes),
    memoryHits: BigInt(cache.memoryHits),
    durableHits: BigInt(cache.durableHits),
    staleHits: BigInt(cache.staleHits),
    misses: BigInt(cache.misses),
    hitRate: share(hits, hits + cache.misses),
    evictions: BigInt(cache.evictions),
    tampered: BigInt(cache.tampered),
    tokensSaved: BigInt(cache.tokensSaved),
    costSavedUsd: cache.costSavedUsd,
    durable: cache.durable,
  });
}

export function toDeduplication(sharing: DeduplicationSnapshot): Deduplication {
  return create(DeduplicationSchema, {
    name: sharing.name,
    inFlight: BigInt(sharing.inFlight),
    maxInFlight: BigInt(sharing.maxInFlight),
    led: BigInt(sharing.led),
    joined: BigInt(sharing.joined),
    shareRate: share(sharing.joined, sharing.led + sharing.joined),
    overflowed: BigInt(sharing.overflowed),
    cancelled: BigInt(sharing.cancelled),
  });
}

export function toPoolConnection(connection: PoolConnectionSnapshot): PoolConnection {
  return create(PoolConnectionSchema, {
    origin: connection.origin,
    protocol: connection.protocol,
    state: connection.state,
    age: toDuration(connection.ageMs),
    ...(connection.idleMs === undefined ? {} : { idle: toDuration(connection.idleMs) }),
    activeRequests: BigInt(connection.activeRequests),
    requests: BigInt(connection.requests),
    failures: BigInt(connection.failures),
  });
}

export function toBatchWriter(writer: BatchWriterSnapshot): BatchWriter {
  return create(BatchWriterSchema, {
    name: writer.name,
    pending: BigInt(writer.pending),
    maxPending: BigInt(writer.maxPending),
    written: BigInt(writer.written),
    batches: BigInt(writer.batches),
    failures: BigInt(writer.failures),
    ...(writer.lastWriteTime === undefined ? {} : { lastWriteTime: toTimestamp(writer.lastWriteTime) }),
  });
}

export function toMethodStreams(streams: MethodStreamsSnapshot): MethodStreams {
  return create(MethodStreamsSchema, {
    method: streams.method,
    open: BigInt(streams.open),
    stalled: BigInt(streams.stalled),
    longestStall: toDuration(streams.longestStallMs),
    messages: BigInt(streams.messages),
  });
}

/** A part of a whole, from 0 to 1; 0 of nothing. */
export function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
