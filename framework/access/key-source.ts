import { Code, type ConnectError } from "@connectrpc/connect";
import { createRemoteJWKSet, errors, type JWTVerifyGetKey } from "jose";
import type { Clock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import type { Logger } from "../logging.ts";

export interface KeySourceOptions {
  /** Where the issuer publishes its keys (RFC 7517). */
  readonly url: string;
  readonly clock: Clock;
  /** Told once when the keys cannot be fetched, and once when they can be again. */
  readonly logger: Pick<Logger, "warn" | "info">;
  /** How long one request for the keys may take, in whole milliseconds. Default: 5 s. */
  readonly timeoutMs?: number;
  /** The age at which keys are fetched again beside the calls that go on, in milliseconds. Default: 10 min. */
  readonly maxAgeMs?: number;
  /** A key that is not known has them fetched again when they are older than this, in milliseconds. Default: 30 s. */
  readonly cooldownMs?: number;
  /** After a failure, when the next request is made at the earliest, in milliseconds. Default: 5 s. */
  readonly retryMs?: number;
}

/**
 * The keys that an issuer publishes, kept here. Nobody waits for them but the first caller and one whose key is new:
 * while the issuer cannot be reached, known keys go on working however old they are, and a key that is not known is
 * answered with UNAVAILABLE, because it may be good.
 *
 * Requests, for any number of callers and keys: one at a time, and one in `cooldownMs` or `retryMs`.
 */
export function createKeySource(options: KeySourceOptions): JWTVerifyGetKey {
  const {
    url,
    clock,
    logger,
    timeoutMs = 5_000,
    maxAgeMs = 600_000,
    cooldownMs = 30_000,
    retryMs = 5_000,
  } = options;
  // It must not decide by itself when to fetch: it would let calls wait for, and fail with, keys that are only old.
  const keys = createRemoteJWKSet(new URL(url), {
    timeoutDuration: timeoutMs,
    cooldownDuration: Number.POSITIVE_INFINITY,
    cacheMaxAge: Number.POSITIVE_INFINITY,
  });
  let loadedAt = Number.NEGATIVE_INFINITY;
  let failedAt = Number.NEGATIVE_INFINITY;
  let failing = false;
  let loading: Promise<void> | undefined;

  async function fetchKeys(): Promise<void> {
    try {
      await keys.reload();
    } catch (error) {
      failedAt = clock.monotonic();
      if (!failing) {
        logger.warn({ err: error, url }, "the keys that tokens are checked with cannot be fetched");
      }
      failing = true;
      throw unavailable(retryMs);
    }
    loadedAt = clock.monotonic();
    if (failing) {
      logger.info({ url }, "the keys that tokens are checked with can be fetched again");
    }
    failing = false;
  }

  async function load(): Promise<void> {
    if (loading === undefined) {
      const untilRetry = failedAt + retryMs - clock.monotonic();
      if (failing && untilRetry > 0) {
        throw unavailable(untilRetry);
      }
      loading = fetchKeys().finally(() => {
        loading = undefined;
      });
    }
    await loading;
  }

  const age = () => clock.monotonic() - loadedAt;

  return async (header, token) => {
    if (loadedAt === Number.NEGATIVE_INFINITY) {
      await load();
    } else if (age() >= maxAgeMs) {
      load().catch(() => undefined); // logged, and the keys that are there still do
    }
    try {
      return await keys(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || age() < cooldownMs) {
        throw error;
      }
      await load();
      return await keys(header, token);
    }
  };
}

function unavailable(retryAfterMs: number): ConnectError {
  return domainConnectError({
    code: Code.Unavailable,
    reason: "ISSUER_UNAVAILABLE",
    message: "the keys that tokens are checked with cannot be fetched from their issuer now: try again",
    retryAfterMs,
  });
}
