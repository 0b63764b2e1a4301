import { type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import type { Clock, Gate, Logger } from "@toolplane/framework";
import {
  callLevels,
  createConcurrencyLimit,
  defaultExempt,
  methodConcurrency,
  rateLimitGate,
} from "@toolplane/framework/interceptors";
import {
  type CounterStore,
  createLimitSet,
  createSharedLimitSet,
  type LevelSnapshot,
  postgresCounters,
  type RateLimit,
  redisCounters,
} from "@toolplane/framework/policies";
import { policy as policyOption } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Access } from "./access/access.ts";
import { limitRefusals } from "./access/limit-refusals.ts";
import type { LimitSnapshot, LimitSource } from "./admin/admin.ts";
import { milliseconds } from "./config/durations.ts";
import type { InboundSettings } from "./config/inbound.ts";
import type { RateLimitSettings } from "./config/rate-limit.ts";
import type { Settings } from "./config/settings.ts";
import { connectRedis, reasonOf } from "./redis.ts";
import type { Database } from "./storage/database.ts";

/**
 * Renewals of leases are not counted either: they come at a pace that the server itself has set, and services that share
 * an address would lose their registrations to a limit that is meant for callers.
 */
const EXEMPT: ReadonlySet<string> = new Set([
  ...defaultExempt,
  `${RegistryService.typeName}/${RegistryService.method.renewLease.name}`,
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
  const levels = callLevels({
    global: inbound.global && toRateLimit(inbound.global),
    service: inbound.perService && toRateLimit(inbound.perService),
    services: toRateLimits(inbound.services),
    limitOf: annotatedLimit,
    caller: inbound.perCaller && toRateLimit(inbound.perCaller),
    callers: toRateLimits(inbound.callers),
    clock,
  });
  const store = await openSharedCounters(options);
  const shared = store && shareLimits(levels, store, options);
  const limits = shared ?? createLimitSet(levels, { clock });
  const guarded =
    access.required && inbound.perCaller
      ? limitRefusals(access.gate, toRateLimit(inbound.perCaller), clock)
      : undefined;
  const authentication = access.required ? [guarded?.gate ?? access.gate] : [];
  const concurrency =
    inbound.concurrency &&
    createConcurrencyLimit({
      ...inbound.concurrency,
      clock,
      // How long tools take is their backends' business, and says nothing about this server's load.
      limitOf: ({ parent }) => (parent.typeName === ToolService.typeName ? undefined : parent.typeName),
    });

  return {
    gates: [
      ...authentication,
      rateLimitGate({ limits, exempt: EXEMPT }),
      ...(concurrency ? [concurrency.gate] : []),
    ],
    interceptors: [methodConcurrency(), ...(concurrency ? [concurrency.interceptor] : [])],
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
      limits.close();
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
  levels: ReturnType<typeof callLevels>,
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

/** What a method's author says about calls of all callers together. */
function annotatedLimit(method: DescMethod): RateLimit | undefined {
  const limit = hasOption(method, policyOption) ? getOption(method, policyOption).rateLimit : undefined;
  return limit?.requests
    ? {
        limit: limit.requests,
        periodMs: milliseconds(limit.period, 60_000),
        ...(limit.burst === 0 ? {} : { burst: limit.burst }),
      }
    : undefined;
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
