import type { Clock, Logger } from "@toolplane/framework";
import { Redis } from "ioredis";

/** How long one attempt to connect may take, in milliseconds. */
const CONNECT_TIMEOUT_MS = 5_000;
/** The pause between two attempts grows by this, up to the longest, in milliseconds. */
const PAUSE_STEP_MS = 200;
const MAX_PAUSE_MS = 5_000;
/** How long the end of a connection may take; where there is none, ioredis keeps the process alive for as long. */
const DISCONNECT_TIMEOUT_MS = 100;
/** How long a start waits for Redis, in milliseconds. */
const START_TIMEOUT_MS = 2_000;

export interface RedisOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * A client that connects again for as long as it lives. Resolves when it can be used, or after 2 s although it cannot:
 * commands then fail at once until it can, since none waits for a connection.
 */
export async function connectRedis({ url, clock, logger }: RedisOptions): Promise<Redis> {
  const redis = new Redis(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    retryStrategy: (attempts) => Math.min(attempts * PAUSE_STEP_MS, MAX_PAUSE_MS),
  });
  let why = "it does not answer";
  // Without a listener, ioredis writes to the console.
  redis.on("error", (error) => {
    why = reasonOf(error);
    logger.debug({ why }, "a connection to Redis failed");
  });
  if (!(await becomesReady(redis, clock))) {
    logger.warn({ why }, "starting without Redis, which cannot be used yet");
  }
  return redis;
}

/** What may be logged of an error: those of ioredis hold the command with all its arguments, such as the password. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function becomesReady(redis: Redis, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (ready: boolean) => {
      cancel();
      redis.off("ready", onReady);
      resolve(ready);
    };
    const onReady = () => settle(true);
    const cancel = clock.after(START_TIMEOUT_MS, () => settle(false));
    redis.once("ready", onReady);
  });
}
