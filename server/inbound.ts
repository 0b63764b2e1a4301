import type { DescMethod } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import type { Clock, Gate, Logger } from "@toolplane/framework";
import {
  createServerChain,
  defaultExempt,
  type LimitedCall,
  type MethodPolicies,
} from "@toolplane/framework/interceptors";
import {
  type CounterStore,
  createLimitSet,
  createSharedLimitSet,
  type LevelSnapshot,
  type LimitLevel,
  postgresCounters,
  type RateLimit,
  redisCounters,
  type SharedLimitSet,
} from "@toolplane/framework/policies";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { TestRunService } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Access } from "./access/access.ts";
import { limitRefusals } from "./access/limit-refusals.ts";
import type { LimitSnapshot, LimitSource } from "./admin/admin.ts";
import type { InboundSettings } from "./config/inbound.ts";
import type { RateLimitSettings } from "./config/rate-limit.ts";
import type { Settings } from "./config/settings.ts";
import { connectRedis, reasonOf } from "./redis.ts";
import type { Database } from "./storage/database.ts";

/**
 * Renewals of leases are not counted either: they come at a pace that the server itself has set, and services that share
 * an address would lose their registrations to a limit that is meant for callers. Nor are reports of tests: a suite
 * reports as fast as its tests end, and what holds it back is the bounded queue of the event log.
 */
const EXEMPT: ReadonlySet<string> = new Set([
  ...defaultExempt,
  `${RegistryService.typeName}/${RegistryService.method.renewLease.name}`,
  `${TestRunService.typeName}/${TestRunService.method.appendTestEvents.name}`,
  `${TestRunService.typeName}/${TestRunService.method.finishTestRun.name}`,
]);
/**
 * Services and methods that wait for backends or for tests, or that take from milliseconds to a minute by what they are
 * asked: how long they take says nothing about this server's load.
 */
const WAITING: ReadonlySet<string> = new Set([
  OrchestrationService.typeName,
  TestRunService.typeName,
  ToolService.typeName,
  ...[
    RegistryService.method.registerService,
    RegistryService.method.refreshService,
    RegistryService.method.checkHealth,
  ].map(({ name }) => `${RegistryService.typeName}/${name}`),
]);

export interface InboundOptions {
  readonly settings: Pick<Settings, "inbound" | "redisUrl">;
  readonly database: Pick<Database, "kind" | "connections">;
  readonly access: Pick<Access, "required" | "gate">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What protects the server from its callers. */
export interface Inbound {
  /** Say who calls, where that is asked for, and then whether the call may go on. */
  readonly gates: readonly Gate[];
  readonly interceptors: readonly Interceptor[];
  /** The deadline of a method's calls that name none, and the latest that they may name, in milliseconds. */
  readonly timeoutOf: (method: DescMethod) => number | undefined;
  readonly limits: LimitSource;
  close(): Promise<void>;
}

/** Where replicas count together. */
interface SharedCounters {
  readonly name: "postgresql" | "redis";
  readonly counters: CounterStore;
  close(): void;
}

export async function openInbound(options: InboundOptions): Promise<Inbound> {
  const { settings, access, clock } = options;
  const { inbound } = settings;
  const store = await openSharedCounters(options);
  let shared: SharedLimitSet<LimitedCall> | undefined;
  const chain = createServerChain({
    methods: toMethodPolicies(inbound.methods),
    limits: {
      global: inbound.global && toRateLimit(inbound.global),
      service: inbound.perService && toRateLimit(inbound.perService),
      services: toRateLimits(inbound.services),
      caller: inbound.perCaller && toRateLimit(inbound.perCaller),
      callers: toRateLimits(inbound.callers),
    },
    limitSet(levels) {
      shared = store && shareLimits(levels, store, options);
      return shared ?? createLimitSet(levels, { clock });
    },
    exempt: EXEMPT,
    concurrency: inbound.concurrency
      ? {
          ...inbound.concurrency,
          limitOf: ({ parent, name }) =>
            WAITING.has(parent.typeName) || WAITING.has(`${parent.typeName}/${name}`)
              ? undefined
              : parent.typeName,
        }
      : false,
    // The server's own handlers answer from memory, and what calls of tools have in common is found out there.
    deduplication: false,
    breaker: false,
    clock,
  });
  const { limits, concurrency } = chain.parts;
  const guarded =
    access.required && inbound.perCaller
      ? limitRefusals(access.gate, toRateLimit(inbound.perCaller), clock)
      : undefined;
  const authentication = access.required ? [guarded?.gate ?? access.gate] : [];

  return {
    gates: [...authentication, ...chain.gates],
    interceptors: chain.interceptors,
    timeoutOf: chain.timeoutOf,
    limits: {
      list(maxKeys) {
        const where = store && (shared?.stats().store === "lost" ? "memory (store down)" : store.name);
        return [
          ...limits.snapshot(maxKeys).flatMap((level) => describeLevel(level, where)),
          ...(guarded?.limits.snapshot(maxKeys) ?? []).flatMap((level) => describeLevel(level, undefined)),
          ...(concurrency?.stats() ?? []).map(
            ({ name, limit, inFlight, admitted, refused }): LimitSnapshot => ({
              level: "concurrency",
              key: name,
              kind: "concurrency",
              limit,
              remaining: Math.max(0, limit - inFlight),
              allowed: admitted,
              refused,
            }),
          ),
        ];
      },
      totals: () => [
        ...[...limits.snapshot(0), ...(guarded?.limits.snapshot(0) ?? [])].map(
          ({ name, allowed, refused }) => ({ level: name, allowed, refused }),
        ),
        ...(concurrency
          ? [
              {
                level: "concurrency",
                allowed: sum(concurrency.stats().map(({ admitted }) => admitted)),
                refused: sum(concurrency.stats().map(({ refused }) => refused)),
              },
            ]
          : []),
      ],
    },
    async close() {
      await chain.close();
      guarded?.limits.close();
      store?.close();
    },
  };
}

async function openSharedCounters({
  settings: { redisUrl },
  database,
  clock,
  logger,
}: InboundOptions): Promise<SharedCounters | undefined> {
  if (redisUrl !== undefined) {
    const redis = await connectRedis({ url: redisUrl, clock, logger });
    return {
      name: "redis",
      counters: redisCounters({ client: redis }),
      close: () => redis.disconnect(),
    };
  }
  return database.kind === "shared"
    ? { name: "postgresql", counters: postgresCounters({ pool: database.connections }), close() {} }
    : undefined;
}

function shareLimits(
  levels: readonly LimitLevel<LimitedCall>[],
  { name, counters }: SharedCounters,
  { clock, logger }: InboundOptions,
) {
  return createSharedLimitSet({
    levels,
    store: counters,
    clock,
    onEvent(event) {
      switch (event.kind) {
        case "store_lost":
          logger.warn(
            { why: reasonOf(event.cause), store: name },
            "limits are counted locally: their store is down",
          );
          break;
        case "store_back":
          logger.info({ store: name, lostMs: event.lostMs }, "limits are counted in their store again");
      }
    },
  });
}

function describeLevel({ name, limit, top }: LevelSnapshot, store: string | undefined): LimitSnapshot[] {
  return top.map(({ key, allowed, refused, remaining, limit: own = limit }) => ({
    level: name,
    key,
    kind: "rate",
    limit: own.limit,
    periodMs: own.periodMs,
    burst: own.burst,
    remaining,
    allowed,
    refused,
    store,
  }));
}

function toMethodPolicies(methods: InboundSettings["methods"]): MethodPolicies {
  return Object.fromEntries(
    [...methods].map(([name, { rateLimit, ...policy }]) => [
      name,
      { ...policy, rateLimit: rateLimit && toRateLimit(rateLimit) },
    ]),
  );
}

function toRateLimit({ requests, periodMs, burst }: RateLimitSettings): RateLimit {
  return { limit: requests, periodMs, burst };
}

function toRateLimits(limits: InboundSettings["services"]): Record<string, RateLimit | undefined> {
  return Object.fromEntries([...limits].map(([name, limit]) => [name, limit && toRateLimit(limit)]));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
