import type { Clock, Logger } from "@toolplane/framework";
import type { BreakerEvent, ResponseCache } from "@toolplane/framework/policies";
import { openToolCache } from "./cache/tool-cache.ts";
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
  readonly cache: ResponseCache | undefined;
}

export async function openOutbound(options: OpenOutboundOptions): Promise<OpenOutbound> {
  const { settings, database, registry, clock, logger, env, onBreakerChange } = options;
  const parts = new PartsInReverse();
  try {
    const cache = await openToolCache({ settings, database, clock, logger, env });
    if (cache) {
      parts.own(cache);
    }
    const requestIds = parts.own(
      await openRequestIds({ database, retentionMs: settings.inbound.idempotencyRetentionMs, clock, logger }),
    );
    const outbound = parts.own(
      createOutbound({
        settings: settings.outbound,
        defaultTimeoutMs: settings.tools.defaultTimeoutMs,
        registry,
        cache,
        idempotent: createIdempotentCalls(requestIds, logger),
        clock,
        onBreakerChange,
      }),
    );
    return { outbound, cache, close: () => parts.close() };
  } catch (error) {
    await parts.close();
    throw error;
  }
}
