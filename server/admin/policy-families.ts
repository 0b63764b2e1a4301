import type { MetricFamily } from "./exposition.ts";
import { counter, gauge } from "./families.ts";
import type {
  AdminSources,
  BatchWriterSnapshot,
  BreakerSnapshot,
  CacheSnapshot,
  DeduplicationSnapshot,
  LimitSource,
  MethodStreamsSnapshot,
  PoolSnapshot,
  RepetitionSnapshot,
  RequestIdsSnapshot,
} from "./sources.ts";

const SCOPES = ["service", "instance", "method"] as const satisfies readonly BreakerSnapshot["scope"][];
const STATES = [
  "closed",
  "open",
  "half-open",
  "isolated",
] as const satisfies readonly BreakerSnapshot["state"]["kind"][];
/** Of limits that move, how many are told apart. */
const MAX_LIMITS = 200;

/** What the sources tell; nothing about those that there are not. */
export function policyFamilies(sources: AdminSources): MetricFamily[] {
  const {
    breakers,
    ejections,
    limits,
    caches,
    deduplications,
    pool,
    requestIds,
    repetition,
    batchWriters,
    streams,
  } = sources;
  return [
    ...(breakers ? breakerFamilies(breakers.list()) : []),
    ...(ejections
      ? [
          gauge(
            "toolplane_ejected_instances",
            "Instances that calls are kept away from.",
            ejections.list().length,
          ),
          counter("toolplane_ejections_total", "How often an instance was ejected.", ejections.total()),
        ]
      : []),
    ...(limits ? limitFamilies(limits) : []),
    ...(caches ? cacheFamilies(caches.list()) : []),
    ...(deduplications ? deduplicationFamilies(deduplications()) : []),
    ...(pool ? poolFamilies(pool()) : []),
    ...(requestIds ? requestIdFamilies(requestIds()) : []),
    ...(repetition ? repetitionFamilies(repetition()) : []),
    ...(batchWriters ? batchWriterFamilies(batchWriters()) : []),
    ...(streams ? streamFamilies(streams()) : []),
  ];
}

function breakerFamilies(breakers: readonly BreakerSnapshot[]): MetricFamily[] {
  const counts = new Map<string, number>();
  for (const { scope, state } of breakers) {
    const key = `${scope} ${state.kind}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [
    gauge(
      "toolplane_breakers",
      "Circuit breakers by what they watch over and what they do.",
      SCOPES.flatMap((scope) =>
        STATES.map((state) => [{ scope, state }, counts.get(`${scope} ${state}`) ?? 0] as const),
      ),
    ),
  ];
}

function limitFamilies(limits: LimitSource): MetricFamily[] {
  const moving = limits
    .list(0)
    .filter(({ kind }) => kind !== "rate")
    .slice(0, MAX_LIMITS);
  const waits = moving.flatMap(({ level, key, kind, waits: own }) =>
    own ? [[{ level, key, kind }, own] as const] : [],
  );
  return [
    counter(
      "toolplane_limit_decisions_total",
      "Calls that a level of limits has allowed or refused.",
      limits
        .totals()
        .flatMap(({ level, allowed, refused }) => [
          [{ level, decision: "allowed" }, allowed] as const,
          [{ level, decision: "refused" }, refused] as const,
        ]),
    ),
    gauge(
      "toolplane_adaptive_limit",
      "Limits that move: calls at once, or calls a second.",
      moving.map(({ level, key, kind, limit }) => [{ level, key, kind }, limit] as const),
    ),
    gauge(
      "toolplane_limit_waiting",
      "Calls that wait for their turn.",
      moving.map(({ level, key, kind, waiting = 0 }) => [{ level, key, kind }, waiting] as const),
    ),
    counter(
      "toolplane_limit_waits_total",
      "Calls whose turn came after a wait.",
      waits.map(([labels, { count }]) => [labels, count] as const),
    ),
    counter(
      "toolplane_limit_wait_seconds_total",
      "How long calls have waited for their turn, together.",
      waits.map(([labels, { totalMs }]) => [labels, totalMs / 1_000] as const),
    ),
    gauge(
      "toolplane_limit_longest_wait_seconds",
      "The longest that a call has waited for its turn.",
      waits.map(([labels, { maxMs }]) => [labels, maxMs / 1_000] as const),
    ),
  ];
}

function cacheFamilies(caches: readonly CacheSnapshot[]): MetricFamily[] {
  const each = (value: (cache: CacheSnapshot) => number) =>
    caches.map((cache) => [{ cache: cache.name }, value(cache)] as const);
  return [
    counter(
      "toolplane_cache_requests_total",
      "Answers that were asked for, by where they were found.",
      caches.flatMap(({ name, memoryHits, durableHits, misses }) => [
        [{ cache: name, result: "memory" }, memoryHits] as const,
        [{ cache: name, result: "durable" }, durableHits] as const,
        [{ cache: name, result: "miss" }, misses] as const,
      ]),
    ),
    counter(
      "toolplane_cache_stale_hits_total",
      "Answers given past their time.",
      each(({ staleHits }) => staleHits),
    ),
    counter(
      "toolplane_cache_evictions_total",
      "Answers dropped to make room.",
      each(({ evictions }) => evictions),
    ),
    counter(
      "toolplane_cache_tampered_total",
      "Kept answers that were not as they had been signed.",
      each(({ tampered }) => tampered),
    ),
    counter(
      "toolplane_cache_saved_tokens_total",
      "Tokens that did not have to be used.",
      each(({ tokensSaved }) => tokensSaved),
    ),
    counter(
      "toolplane_cache_saved_usd_total",
      "What those tokens would have cost.",
      each(({ costSavedUsd }) => costSavedUsd),
    ),
    gauge(
      "toolplane_cache_entries",
      "Answers in memory.",
      each(({ entries }) => entries),
    ),
    gauge(
      "toolplane_cache_bytes",
      "Bytes of answers in memory.",
      each(({ bytes }) => bytes),
    ),
    gauge(
      "toolplane_cache_max_bytes",
      "The most bytes of answers in memory.",
      each(({ maxBytes }) => maxBytes),
    ),
  ];
}

function deduplicationFamilies(sharings: readonly DeduplicationSnapshot[]): MetricFamily[] {
  return [
    counter(
      "toolplane_deduplication_calls_total",
      "Calls by whether they were carried out, shared another's, could not be shared, or were left by everyone.",
      sharings.flatMap(({ name, led, joined, overflowed, cancelled }) => [
        [{ name, result: "led" }, led] as const,
        [{ name, result: "joined" }, joined] as const,
        [{ name, result: "overflowed" }, overflowed] as const,
        [{ name, result: "cancelled" }, cancelled] as const,
      ]),
    ),
    gauge(
      "toolplane_deduplication_in_flight",
      "Calls that can be joined now.",
      sharings.map(({ name, inFlight }) => [{ name }, inFlight] as const),
    ),
  ];
}

function poolFamilies(pool: PoolSnapshot): MetricFamily[] {
  const connections = Map.groupBy(pool.connections, ({ protocol, state }) => `${protocol} ${state}`);
  return [
    gauge(
      "toolplane_pool_connections",
      "Connections to backends.",
      [...connections.values()].map(
        (group) =>
          [{ protocol: group[0]?.protocol ?? "", state: group[0]?.state ?? "" }, group.length] as const,
      ),
    ),
    gauge(
      "toolplane_pool_oldest_connection_seconds",
      "The age of the oldest connection.",
      pool.connections.reduce((oldest, { ageMs }) => Math.max(oldest, ageMs), 0) / 1_000,
    ),
    gauge("toolplane_pool_waiting", "Requests that wait for a connection.", pool.waiting),
    counter("toolplane_pool_waits_total", "Requests that had to wait for a connection.", pool.waits),
    counter(
      "toolplane_pool_wait_seconds_total",
      "How long requests have waited for a connection, together.",
      (pool.waits * pool.meanWaitMs) / 1_000,
    ),
    gauge(
      "toolplane_pool_longest_wait_seconds",
      "The longest that a request has waited for a connection.",
      pool.maxWaitMs / 1_000,
    ),
    counter("toolplane_pool_requests_total", "Requests sent.", pool.requests),
    counter("toolplane_pool_reused_total", "Requests that found an open connection.", pool.reused),
    counter("toolplane_pool_opened_total", "Connections opened.", pool.opened),
    counter(
      "toolplane_pool_connect_failures_total",
      "Attempts to connect that failed.",
      pool.connectFailures,
    ),
    counter(
      "toolplane_pool_closures_total",
      "Connections closed, by why.",
      Object.entries(pool.closures).map(([reason, count]) => [{ reason }, count] as const),
    ),
  ];
}

function repetitionFamilies({ gaveUp, hedgesDenied }: RepetitionSnapshot): MetricFamily[] {
  return [
    counter(
      "toolplane_call_give_ups_total",
      "Calls of tools that had failed and were not tried again, by why.",
      [...gaveUp].map(([reason, count]) => [{ reason }, count] as const),
    ),
    counter(
      "toolplane_call_hedges_denied_total",
      "Second attempts that the budget of repetitions did not have room for.",
      hedgesDenied,
    ),
  ];
}

function requestIdFamilies(ids: RequestIdsSnapshot): MetricFamily[] {
  return [
    counter("toolplane_request_ids_total", "What came of calls with request ids.", [
      [{ result: "begun" }, ids.begun],
      [{ result: "recorded" }, ids.recorded],
      [{ result: "released" }, ids.released],
      [{ result: "replayed" }, ids.replayed],
      [{ result: "waited" }, ids.waited],
      [{ result: "reused" }, ids.reused],
      [{ result: "recording_failed" }, ids.recordingFailed],
      [{ result: "lease_lost" }, ids.leasesLost],
    ]),
    gauge("toolplane_request_ids_in_flight", "Calls with request ids that are being made.", ids.inFlight),
  ];
}

function batchWriterFamilies(writers: readonly BatchWriterSnapshot[]): MetricFamily[] {
  const each = (value: (writer: BatchWriterSnapshot) => number) =>
    writers.map((writer) => [{ writer: writer.name }, value(writer)] as const);
  return [
    gauge(
      "toolplane_batch_writer_pending",
      "Rows that wait to be written.",
      each(({ pending }) => pending),
    ),
    counter(
      "toolplane_batch_writer_rows_total",
      "Rows written.",
      each(({ written }) => written),
    ),
    counter(
      "toolplane_batch_writer_batches_total",
      "Batches written.",
      each(({ batches }) => batches),
    ),
    counter(
      "toolplane_batch_writer_failures_total",
      "Writes that failed.",
      each(({ failures }) => failures),
    ),
    counter(
      "toolplane_batch_writer_wait_seconds_total",
      "How long rows have waited until they were written, together.",
      each(({ written, averageWaitMs }) => (written * averageWaitMs) / 1_000),
    ),
    gauge(
      "toolplane_batch_writer_longest_wait_seconds",
      "The longest that a row has waited until it was written.",
      each(({ maxWaitMs }) => maxWaitMs / 1_000),
    ),
  ];
}

function streamFamilies(streams: readonly MethodStreamsSnapshot[]): MetricFamily[] {
  const each = (value: (stream: MethodStreamsSnapshot) => number) =>
    streams.map((stream) => [{ method: stream.method }, value(stream)] as const);
  return [
    gauge(
      "toolplane_streams_open",
      "Streams that are open.",
      each(({ open }) => open),
    ),
    gauge(
      "toolplane_streams_stalled",
      "Streams whose readers do not keep up.",
      each(({ stalled }) => stalled),
    ),
    gauge(
      "toolplane_streams_longest_stall_seconds",
      "The longest that an open stream has waited for its reader.",
      each(({ longestStallMs }) => longestStallMs / 1_000),
    ),
    counter(
      "toolplane_stream_messages_total",
      "Messages sent on streams.",
      each(({ messages }) => messages),
    ),
  ];
}
