import type { Clock, Logger } from "@toolplane/framework";
import { createResponseCache, type ResponseCache } from "@toolplane/framework/policies";
import type { Settings } from "../config/settings.ts";
import type { Database } from "../storage/database.ts";
import { isTimeout } from "../timeout.ts";
import { openPostgresCacheStore } from "./postgres-store.ts";
import { loadSigningKeys } from "./signing-key.ts";

export interface CachesOptions {
  readonly settings: Pick<Settings, "dataDir" | "outbound">;
  readonly database: Pick<Database, "kind" | "kysely" | "listen">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly env: NodeJS.ProcessEnv;
}

/** What is kept instead of being asked for again, in one store. */
export interface Caches {
  /** Answers of tools. */
  readonly tools: ResponseCache;
  /** Answers of agents. */
  readonly answers: ResponseCache;
  close(): Promise<void>;
}

/** The part of the memory for tools' answers that agents' answers, which are texts, may take besides. */
const ANSWERS_SHARE = 0.1;
/** How long a task of an agent may take, in milliseconds: as long as its timeout may be. */
const ANSWER_TIMEOUT_MS = 24 * 3_600_000;

/** The caches as configured. Undefined: nothing is kept. */
export async function openCaches(options: CachesOptions): Promise<Caches | undefined> {
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
  const common = {
    ...(durable && { durable }),
    clock,
    mayOutlive: isTimeout,
    onEvent: tellLogger(logger),
  };
  const tools = createResponseCache({
    ...common,
    name: "tools",
    maxBytes,
    staleWhileRevalidateMs,
    maxStaleMs,
  });
  const answers = createResponseCache({
    ...common,
    name: "answers",
    maxBytes: Math.ceil(maxBytes * ANSWERS_SHARE),
    // A task costs money: it is done when somebody asks, not in the background.
    staleWhileRevalidateMs: 0,
    earlyRefresh: 0,
    loadTimeoutMs: ANSWER_TIMEOUT_MS,
  });
  return {
    tools,
    answers,
    async close() {
      await Promise.all([tools.close(), answers.close()]);
      await store?.close();
    },
  };
}

function tellLogger(logger: Logger): NonNullable<Parameters<typeof createResponseCache>[0]["onEvent"]> {
  return (event) => {
    if (event.kind === "refresh-failed") {
      logger.debug({ err: event.error }, "a kept answer could not be renewed");
    } else if (event.kind === "durable") {
      logger.debug({ event: event.event }, "the store of kept answers");
    }
  };
}
