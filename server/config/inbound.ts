import type {
  ConcurrencyConfig,
  InboundConfig,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds, optionalMilliseconds } from "./durations.ts";
import type { ReportMistake } from "./mistakes.ts";
import { type Range, resolveRange } from "./range.ts";
import { type RateLimitSettings, resolveRateLimit } from "./rate-limit.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** What protects the server from its callers. An undefined limit is none. */
export interface InboundSettings {
  readonly global: RateLimitSettings | undefined;
  readonly perService: RateLimitSettings | undefined;
  readonly perCaller: RateLimitSettings | undefined;
  /** By the full name of the RPC service; undefined takes the limit away that `perService` sets. */
  readonly services: ReadonlyMap<string, RateLimitSettings | undefined>;
  /** By the name of the principal; undefined takes the limit away that `perCaller` sets. */
  readonly callers: ReadonlyMap<string, RateLimitSettings | undefined>;
  /** By `package.Service/Method`. */
  readonly methods: ReadonlyMap<string, MethodSettings>;
  /** Undefined: there is none. */
  readonly concurrency: Range | undefined;
  readonly idempotencyRetentionMs: number;
}

/** How one method is protected. Undefined: as its author says. */
export interface MethodSettings {
  /** False: there is no limit. */
  readonly rateLimit: RateLimitSettings | false | undefined;
  readonly maxConcurrency: number | undefined;
  readonly timeoutMs: number | undefined;
}

const perMinute = (requests: number): RateLimitSettings => ({
  requests,
  periodMs: MINUTE,
  burst: Math.min(20, requests),
});

/** Services whose calls start costly work. */
const COSTLY_SERVICES = new Map([["toolplane.testing.v1.TestRunService", perMinute(200)]]);

export function resolveInbound(config: InboundConfig | undefined, report: ReportMistake): InboundSettings {
  const limit = (
    name: "global" | "perService" | "perCaller",
    field: string,
    defaults: RateLimitSettings | undefined,
  ) => resolveRateLimit(config?.[name], defaults, field, report);
  const perService = limit("perService", "inbound.per_service", undefined);
  const perCaller = limit("perCaller", "inbound.per_caller", perMinute(600));
  return {
    global: limit("global", "inbound.global", perMinute(1_000)),
    perService,
    perCaller,
    services: new Map([
      ...COSTLY_SERVICES,
      ...resolveEach(
        config?.services,
        (name) => COSTLY_SERVICES.get(name) ?? perService,
        "inbound.services",
        report,
      ),
    ]),
    callers: new Map(resolveEach(config?.callers, () => perCaller, "inbound.callers", report)),
    methods: new Map(
      Object.entries(config?.methods ?? {}).map(([name, { rateLimit, maxConcurrency, timeout }]) => [
        name,
        {
          rateLimit:
            rateLimit &&
            (resolveRateLimit(rateLimit, undefined, `inbound.methods["${name}"].rate_limit`, report) ??
              false),
          maxConcurrency: maxConcurrency || undefined,
          timeoutMs: optionalMilliseconds(timeout),
        },
      ]),
    ),
    concurrency: resolveConcurrency(config?.concurrency, report),
    idempotencyRetentionMs: milliseconds(config?.idempotencyRetention, DAY),
  };
}

function resolveConcurrency(
  config: ConcurrencyConfig | undefined,
  report: ReportMistake,
): InboundSettings["concurrency"] {
  return config?.disabled
    ? undefined
    : resolveRange(
        { initial: config?.initial ?? 0, min: config?.min ?? 0, max: config?.max ?? 0 },
        { initial: 100, min: 20, max: 1_000 },
        "inbound.concurrency",
        report,
      );
}

function resolveEach(
  limits: InboundConfig["services"] = {},
  defaultOf: (name: string) => RateLimitSettings | undefined,
  field: string,
  report: ReportMistake,
): (readonly [string, RateLimitSettings | undefined])[] {
  return Object.entries(limits).map(([name, limit]) => [
    name,
    resolveRateLimit(limit, defaultOf(name), `${field}[${JSON.stringify(name)}]`, report),
  ]);
}
