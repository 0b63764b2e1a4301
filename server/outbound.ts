import type { Clock, Logger } from "@toolplane/framework";
import type { BreakerEvent, Idempotency, OutlierEvent } from "@toolplane/framework/policies";
import { type Caches, openCaches } from "./cache/caches.ts";
import type { Settings } from "./config/settings.ts";
import { openRequestIds } from "./idempotency/request-ids.ts";
import { type Part, PartsInReverse } from "./parts.ts";
import type { Registry } from "./registry/registry.ts";
import type { Database } from "./storage/database.ts";
import { createIdempotentCalls } from "./tools/idempotent-calls.ts";
import { createOutbound, type Outbound } from "./tools/outbound.ts";

export interface OpenOutboundOptions {
  readonly settings: Settings;
  readonly database: Database;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Where the key that kept answers are signed with may be read from. */
  readonly env: NodeJS.ProcessEnv;
  readonly onBreakerChange: (event: BreakerEvent) => void;
}

/** What protects backends, and callers from backends, with what it remembers in the database. */
export interface OpenOutbound extends Part {
  readonly outbound: Outbound;
  /** Undefined: answers are not kept. */
  readonly caches: Caches | undefined;
  readonly requestIds: Pick<Idempotency, "stats">;
}

export async function openOutbound(options: OpenOutboundOptions): Promise<OpenOutbound> {
  const { settings, database, registry, clock, logger, env, onBreakerChange } = options;
  const parts = new PartsInReverse();
  try {
    const caches = await openCaches({ settings, database, clock, logger, env });
    if (caches) {
      parts.own(caches);
    }
    const requestIds = parts.own(
      await openRequestIds({ database, retentionMs: settings.inbound.idempotencyRetentionMs, clock, logger }),
    );
    const outbound = parts.own(
      createOutbound({
        settings: settings.outbound,
        defaultTimeoutMs: settings.tools.defaultTimeoutMs,
        registry,
        cache: caches?.tools,
        idempotent: createIdempotentCalls(requestIds, logger),
        clock,
        onBreakerChange(event) {
          logBreaker(logger, event);
          onBreakerChange(event);
        },
        onOutlierChange: (event, tool) => logOutlier(logger, event, tool),
        onUnfitFallback: ({ tool: policy }, tool, err) =>
          logger.warn({ policy, tool, err }, "what is configured as the fallback of a tool cannot be one"),
      }),
    );
    return { outbound, caches, requestIds, close: () => parts.close() };
  } catch (error) {
    await parts.close();
    throw error;
  }
}

/** What an operator has to know of is a warning; that all is well again, or may be, is not. */
function logBreaker(logger: Logger, event: BreakerEvent): void {
  const { name: breaker } = event;
  switch (event.kind) {
    case "opened": {
      const { cause, openMs, lastFailure } = event;
      logger.warn({ breaker, cause, openMs, lastFailure }, "a breaker has opened: nothing is sent there");
      break;
    }
    case "isolated":
      logger.warn({ breaker, reason: event.reason }, "a breaker was isolated: nothing is sent there");
      break;
    case "half-opened":
      logger.info({ breaker }, "a breaker lets probes through");
      break;
    case "closed":
      logger.info({ breaker, by: event.by }, "a breaker has closed");
  }
}

function logOutlier(logger: Logger, event: OutlierEvent, tool: string): void {
  const { instance } = event;
  switch (event.kind) {
    case "ejected": {
      const { reason, detail, forMs } = event;
      logger.warn(
        { instance, tool, reason, detail, forMs },
        "an instance is left out: it does worse than others",
      );
      break;
    }
    case "probation":
      logger.info({ instance, tool }, "an instance gets single calls again");
      break;
    case "returned":
      logger.info({ instance, tool, by: event.by }, "an instance gets its share of calls again");
  }
}
