import { create } from "@bufbuild/protobuf";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { notFound } from "@toolplane/framework";
import {
  AdminService,
  ListBreakersRequestSchema,
} from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import {
  type MetricFamily,
  MetricFamilySchema,
  MetricType,
} from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { milliseconds, toDuration, toTimestamp } from "../config/durations.ts";
import { pageTokens } from "../page-token.ts";
import { closestNames } from "./closest-names.ts";
import type { MetricFamily as ReadFamily } from "./exposition.ts";
import {
  breakerState,
  toBatchWriter,
  toBreaker,
  toCache,
  toDeduplication,
  toEjection,
  toLimit,
  toMethodStreams,
  toPoolConnection,
} from "./messages.ts";
import type { Metrics } from "./metrics.ts";
import type { Runtime } from "./runtime.ts";
import type { AdminSources, BreakerSnapshot, LimitSnapshot } from "./sources.ts";
import type { StatsFeed } from "./stats-feed.ts";

/** The handlers of the methods about keys, which another domain has. */
export type KeyHandlers = Pick<
  ServiceImpl<typeof AdminService>,
  "createApiKey" | "rotateApiKey" | "revokeApiKey" | "listApiKeys"
>;

export interface AdminServiceOptions {
  readonly sources: AdminSources;
  readonly metrics: Metrics;
  readonly runtime: Runtime;
  readonly stats: StatsFeed;
  readonly keyHandlers: KeyHandlers;
}

const DEFAULT_PAGE_SIZE = 100;
const DEFAULT_KEYS_PER_LEVEL = 20;
const DEFAULT_STATS_INTERVAL_MS = 2_000;

/** The RPC handlers of `toolplane.admin.v1.AdminService`. */
export function adminRoutes(options: AdminServiceOptions): (router: ConnectRouter) => void {
  const { sources, metrics, runtime, stats, keyHandlers } = options;
  const { breakers, ejections, limits, caches, deduplications, pool, batchWriters, streams } = sources;

  return (router) => {
    router.service(AdminService, {
      ...keyHandlers,

      async getMetrics({ namePrefixes }) {
        const families = await metrics.read();
        return {
          families: families
            .filter(
              ({ name }) =>
                namePrefixes.length === 0 || namePrefixes.some((prefix) => name.startsWith(prefix)),
            )
            .map(toFamily),
        };
      },

      async *watchStats({ interval }, { signal }) {
        for await (const one of stats.watch(milliseconds(interval, DEFAULT_STATS_INTERVAL_MS), signal)) {
          yield { stats: one };
        }
      },

      listBreakers(request) {
        const wanted = new Set(request.states);
        const matching = (breakers?.list() ?? [])
          .filter(
            ({ service, state }) =>
              (request.service === "" || service === request.service) &&
              (wanted.size === 0 || wanted.has(breakerState(state.kind))),
          )
          .map((breaker) => ({ breaker, place: placeOf(breaker) }))
          .sort((a, b) => compare(a.place, b.place));
        const question = create(ListBreakersRequestSchema, {
          service: request.service,
          states: request.states,
        });
        const tokens = pageTokens("breakers", 2, ListBreakersRequestSchema, question);
        const after = tokens.read(request.pageToken);
        const rest =
          after === undefined ? matching : matching.filter(({ place }) => compare(place, after) > 0);
        const page = rest.slice(0, request.pageSize || DEFAULT_PAGE_SIZE);
        const last = page.at(-1);
        return {
          breakers: page.map(({ breaker }) => toBreaker(breaker)),
          ejections: (ejections?.list() ?? [])
            .filter(({ service }) => request.service === "" || service === request.service)
            .map(toEjection),
          nextPageToken: last !== undefined && page.length < rest.length ? tokens.write(last.place) : "",
        };
      },

      resetBreaker({ name }) {
        const breaker = breakers?.reset(name);
        if (breaker !== undefined) {
          return { breaker: toBreaker(breaker) };
        }
        if (ejections?.restore(name)) {
          return {};
        }
        throw unknown("breaker", name, [
          ...(breakers?.list() ?? []).map((each) => each.name),
          ...(ejections?.list() ?? []).map(({ instanceId }) => instanceId),
        ]);
      },

      isolateBreaker({ name }) {
        const breaker = breakers?.isolate(name);
        if (breaker === undefined) {
          throw unknown("breaker", name, breakers?.list().map((each) => each.name) ?? []);
        }
        return { breaker: toBreaker(breaker) };
      },

      listLimits({ level, pageSize }) {
        const maxKeys = pageSize || DEFAULT_KEYS_PER_LEVEL;
        const matching = (limits?.list(maxKeys) ?? []).filter(
          (limit) => level === "" || limit.level === level,
        );
        const levels = [...Map.groupBy(matching, (limit) => limit.level)].sort(([a], [b]) =>
          a < b ? -1 : 1,
        );
        return {
          limits: levels.flatMap(([, own]) =>
            own
              .toSorted((a, b) => shareLeft(a) - shareLeft(b) || (a.key < b.key ? -1 : 1))
              .slice(0, maxKeys)
              .map(toLimit),
          ),
        };
      },

      listCaches: () => ({
        caches: (caches?.list() ?? []).map(toCache),
        deduplications: (deduplications?.() ?? []).map(toDeduplication),
      }),

      async purgeCache({ name, tool }) {
        const names = (caches?.list() ?? []).map((cache) => cache.name);
        if (name !== "" && !names.includes(name)) {
          throw unknown("cache", name, names);
        }
        const purged = await caches?.purge({ name: name || undefined, tool: tool || undefined });
        return { purged: BigInt(purged ?? 0) };
      },

      listPools({ origin }) {
        const found = pool?.();
        if (found === undefined) {
          return {};
        }
        return {
          connections: found.connections
            .filter((connection) => origin === "" || connection.origin === origin)
            .toSorted((a, b) => (a.origin === b.origin ? b.ageMs - a.ageMs : a.origin < b.origin ? -1 : 1))
            .map(toPoolConnection),
          requests: BigInt(found.requests),
          reused: BigInt(found.reused),
          opened: BigInt(found.opened),
          connectFailures: BigInt(found.connectFailures),
          closures: Object.entries(found.closures).map(([reason, count]) => ({
            reason,
            count: BigInt(count),
          })),
          waiting: BigInt(found.waiting),
          meanWait: toDuration(found.meanWaitMs),
          maxWait: toDuration(found.maxWaitMs),
        };
      },

      getRuntime() {
        const cpu = runtime.cpuMs();
        const loop = runtime.eventLoop();
        const memory = runtime.memory();
        return {
          version: runtime.version,
          nodeVersion: process.version,
          startTime: toTimestamp(runtime.startedAt),
          cpuTime: toDuration(cpu.user + cpu.system),
          eventLoop: {
            delayP50: toDuration(loop.delayP50Ms),
            delayP99: toDuration(loop.delayP99Ms),
            delayMax: toDuration(loop.delayMaxMs),
            utilization: loop.utilization,
            slowCallbacks: loop.slowCallbacks.map(({ time, durationMs, methods }) => ({
              time: toTimestamp(time),
              duration: toDuration(durationMs),
              methods: [...methods],
            })),
            slowCallbackCount: BigInt(loop.slowCallbackCount),
          },
          memory: {
            residentBytes: BigInt(memory.residentBytes),
            heapUsedBytes: BigInt(memory.heapUsedBytes),
            heapTotalBytes: BigInt(memory.heapTotalBytes),
            heapLimitBytes: BigInt(memory.heapLimitBytes),
            externalBytes: BigInt(memory.externalBytes),
            heapAfterCollectionBytes: BigInt(memory.collections.heapAfterBytes),
            growthBytesPerHour: memory.collections.growthBytesPerHour,
            collectionShare: memory.collections.share,
            leakSuspects: memory.leakSuspects.map((suspect) => ({ ...suspect })),
          },
          streams: (streams?.() ?? []).map(toMethodStreams),
          batchWriters: (batchWriters?.() ?? []).map(toBatchWriter),
        };
      },
    });
  };
}

/** Where a breaker is in the list: those that do not let everything through come first. */
function placeOf({ name, state }: BreakerSnapshot): readonly [rank: string, name: string] {
  return [state.kind === "closed" ? "1" : "0", name];
}

function compare(a: readonly string[], b: readonly string[]): number {
  for (const [index, part] of a.entries()) {
    const other = b[index] ?? "";
    if (part !== other) {
      return part < other ? -1 : 1;
    }
  }
  return 0;
}

/** How much of a limit is left, from 0 to 1. */
function shareLeft({ kind, remaining, burst, limit }: LimitSnapshot): number {
  const whole = kind === "rate" ? (burst ?? limit) : limit;
  return whole > 0 ? remaining / whole : 0;
}

function toFamily({ name, help, type, samples }: ReadFamily): MetricFamily {
  return create(MetricFamilySchema, {
    name,
    help,
    type: metricType(type),
    samples: samples.map((sample) => ({ ...sample, labels: { ...sample.labels } })),
  });
}

function metricType(type: ReadFamily["type"]): MetricType {
  switch (type) {
    case "counter":
      return MetricType.COUNTER;
    case "gauge":
      return MetricType.GAUGE;
    case "histogram":
      return MetricType.HISTOGRAM;
  }
}

function unknown(type: string, name: string, existing: readonly string[]): Error {
  return notFound(type, name, closestNames(name, existing));
}
