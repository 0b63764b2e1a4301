import type { Clock, Logger } from "@toolplane/framework";
import { createResponseCache, type ResponseCache } from "@toolplane/framework/policies";
import type { Settings } from "../config/settings.ts";
import type { Database } from "../storage/database.ts";
import { isTimeout } from "../timeout.ts";
import { openPostgresCacheStore } from "./postgres-store.ts";
import { loadSigningKeys } from "./signing-key.ts";

export interface ToolCacheOptions {
  readonly settings: Pick<Settings, "dataDir" | "outbound">;
  readonly database: Pick<Database, "kind" | "kysely" | "listen">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly env: NodeJS.ProcessEnv;
}

/** The cache of tools' answers as configured. Undefined: there is none. */
export async function openToolCache(options: ToolCacheOptions): Promise<ResponseCache | undefined> {
  const { settings, database, clock, logger, env } = options;
  const { dataDir } = settings;
  const { cache: wanted } = settings.outbound;
  if (!wanted) {
    return undefined;
  }
  const { maxBytes, staleWhileRevalidateMs, maxStaleMs, signingKey: source } = wanted;
  if (wanted.durable && database.kind === "shared" && source === undefined) {
    logger.warn(
      "answers that other replicas keep cannot be used here: give all of them one outbound.cache.signing_key",
    );
  }
  const store = wanted.durable ? await openPostgresCacheStore({ database, logger, clock }) : undefined;
  const durable = store && {
    store,
    secrets: await loadSigningKeys({ source, dataDir, env, logger }),
  };
  const cache = createResponseCache({
    name: "tools",
    maxBytes,
    staleWhileRevalidateMs,
    maxStaleMs,
    ...(durable && { durable }),
    clock,
    mayOutlive: isTimeout,
    onEvent(event) {
      if (event.kind === "refresh-failed") {
        logger.debug({ err: event.error }, "a kept answer could not be renewed");
      } else if (event.kind === "durable") {
        logger.debug({ event: event.event }, "the store of kept answers");
      }
    },
  });
  return {
    ...cache,
    async close() {
      await cache.close();
      await store?.close();
    },
  };
}
