import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { Idempotency, ResponseCache } from "@toolplane/framework/policies";
import type {
  AdminSources,
  BreakerSnapshot,
  CacheSnapshot,
  LimitSnapshot,
  LimitTotals,
  PoolSnapshot,
} from "./admin/admin.ts";
import type { Caches } from "./cache/caches.ts";
import type { Settings } from "./config/settings.ts";
import type { Inbound } from "./inbound.ts";
import type { ConnectionPool } from "./pool/index.ts";
import type { Registry } from "./registry/registry.ts";
import { type BreakerPlace, parseBreakerName } from "./tools/breakers.ts";
import type { Outbound } from "./tools/outbound.ts";

export interface AdminSourcesOptions {
  readonly settings: Pick<Settings, "outbound">;
  readonly registry: Pick<Registry, "batchWriters" | "getService" | "getTool">;
  readonly inbound: Inbound;
  readonly outbound: Outbound;
  readonly caches: Pick<Caches, "tools" | "answers"> | undefined;
  readonly pool: ConnectionPool;
  readonly requestIds: Pick<Idempotency, "stats">;
  readonly streams: NonNullable<AdminSources["streams"]>;
  readonly runs: NonNullable<AdminSources["runs"]>;
}

/** What the admin service looks at, in its own terms. */
export function createAdminSources(options: AdminSourcesOptions): AdminSources {
  const { settings, registry, inbound, outbound, caches, pool, requestIds, streams, runs } = options;
  const { breakers, outliers, coalescer, throttles } = outbound;
  const look = (name: string) =>
    breakers
      ?.list()
      .flatMap(describeBreaker)
      .find((breaker) => breaker.name === name);
  return {
    ...(breakers && {
      breakers: {
        list: () => breakers.list().flatMap(describeBreaker),
        reset: (name) => (breakers.reset(name) ? look(name) : undefined),
        isolate(name) {
          const place = parseBreakerName(name);
          // One that nothing ever asks would make an operator believe that calls are kept away.
          if (!place || !(look(name) || isRegistered(place, registry))) {
            return undefined;
          }
          breakers.isolate(name, "an operator asked for it");
          return look(name);
        },
      },
    }),
    ...(outliers && {
      ejections: {
        list: () =>
          outliers.list().flatMap(({ instance, group, state, ejections }) => {
            const place = parseBreakerName(group);
            return state.kind === "ejected" && place
              ? [
                  {
                    instanceId: instance,
                    service: place.service,
                    environment: place.environment,
                    version: place.version,
                    tool: place.tool ?? "",
                    reason: state.detail,
                    ejectedAt: state.since,
                    returnsAt: state.returnAt,
                    ejections,
                  },
                ]
              : [];
          }),
        total: () => outliers.total,
        restore: (instanceId) => outliers.restore(instanceId),
      },
    }),
    limits: {
      list: (maxKeys) => [
        ...inbound.limits.list(maxKeys),
        ...throttles.list().map((throttle): LimitSnapshot => ({ level: "tool", ...throttle })),
      ],
      totals: () => [...inbound.limits.totals(), ...sumOf("tool", throttles.list())],
    },
    ...(caches && {
      caches: {
        list: () => [caches.tools, caches.answers].map(describeCache),
        async purge({ name, tool }) {
          const purged = [caches.tools, caches.answers]
            .filter((cache) => name === undefined || name === cache.stats().name)
            // An answer of an agent is of no tool.
            .filter((cache) => tool === undefined || cache === caches.tools)
            .map((cache) =>
              cache.purge(
                tool === undefined ? { kind: "all" } : { kind: "tag", tag: fullNameOf(tool, registry) },
              ),
            );
          return (await Promise.all(purged)).reduce((total, entries) => total + entries, 0);
        },
      },
    }),
    deduplications: () => [
      ...(coalescer
        ? [
            {
              name: "tools",
              maxInFlight: settings.outbound.deduplication?.maxInFlight ?? 0,
              ...coalescer.stats(),
            },
          ]
        : []),
      // Calls whose answers are kept share them as they are fetched.
      ...(caches ? [{ name: "tools, kept", ...caches.tools.stats().sharing }] : []),
    ],
    pool: () => describePool(pool),
    requestIds: () => requestIds.stats(),
    repetition: () => outbound.repetition.stats(),
    batchWriters() {
      const ofCaches = [caches?.tools, caches?.answers].flatMap(
        (cache) => cache?.stats().durable?.writer ?? [],
      );
      return [...registry.batchWriters(), ...ofCaches];
    },
    streams,
    runs,
  };
}

/** Whether there is what a breaker of this name would watch over. */
function isRegistered(
  { service: name, environment, version, scope, instanceId, tool }: BreakerPlace,
  registry: Pick<Registry, "getService" | "getTool">,
): boolean {
  try {
    const { instances } = registry.getService({ name, environment, version });
    switch (scope) {
      case "service":
        return true;
      case "instance":
        return instances.some(({ id }) => id === instanceId);
      case "method": {
        const found = registry.getTool(tool ?? "", { environment, version });
        return found.name === tool && found.service === name;
      }
    }
  } catch (error) {
    if (error instanceof DomainError && error.init.code === Code.NotFound) {
      return false;
    }
    throw error;
  }
}

/** Tools may be named by the end of their names, as in calls. Answers of one that is gone can still be dropped. */
function fullNameOf(tool: string, registry: Pick<Registry, "getTool">): string {
  try {
    return registry.getTool(tool, {}).name;
  } catch (error) {
    if (error instanceof DomainError && error.init.code === Code.NotFound) {
      return tool;
    }
    throw error;
  }
}

/** Whoever reads metrics takes one number for each level. */
function sumOf(level: string, limits: readonly { allowed: number; refused: number }[]): LimitTotals[] {
  const sum = { level, allowed: 0, refused: 0 };
  for (const { allowed, refused } of limits) {
    sum.allowed += allowed;
    sum.refused += refused;
  }
  return limits.length > 0 ? [sum] : [];
}

function describeBreaker(
  snapshot: ReturnType<NonNullable<Outbound["breakers"]>["list"]>[number],
): BreakerSnapshot[] {
  const place = parseBreakerName(snapshot.name);
  return place ? [{ ...snapshot, ...place }] : [];
}

function describeCache(cache: ResponseCache): CacheSnapshot {
  const stats = cache.stats();
  return { ...stats, tampered: stats.durable?.tampered ?? 0, durable: stats.durable !== undefined };
}

function describePool(pool: ConnectionPool): PoolSnapshot {
  const { connections, closed, waits, ...counts } = pool.stats();
  return {
    ...counts,
    connections: connections.map(({ protocol = "h1", activeRequests, idleMs, ...connection }) => ({
      ...connection,
      protocol,
      activeRequests,
      idleMs: activeRequests > 0 ? undefined : idleMs,
    })),
    closures: closed,
    waits: waits.count,
    meanWaitMs: waits.count === 0 ? 0 : waits.totalMs / waits.count,
    maxWaitMs: waits.maxMs,
  };
}
