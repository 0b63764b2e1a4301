import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import { databaseUnavailable } from "../storage/database-error.ts";
import { KEYS_CHANNEL, type KeyRecord, type KeyStore } from "./store.ts";

/** Notifications can be lost with a connection: look for changes at least this often, in milliseconds. */
const POLL_INTERVAL_MS = 5_000;
/** After a failure, how long until the next attempt, in milliseconds. */
const RETRY_DELAY_MS = 500;
/** How often keys that are not known have the database read, at most, in milliseconds. */
const MISS_INTERVAL_MS = 1_000;
/** How long one who shows a key that is not known waits for the database, in milliseconds. */
const MISS_TIMEOUT_MS = 1_000;
/** For how long keys that have ended are known as such, in milliseconds. */
const ENDED_KEPT_MS = 30 * 86_400_000;

export interface KeyRingOptions {
  readonly database: Pick<Database, "listen">;
  readonly store: KeyStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Every key that may be shown, in memory. Changes by any replica arrive as notifications of the database. */
export interface KeyRing {
  get(id: string): KeyRecord | undefined;
  all(): IteratorObject<KeyRecord>;
  /** Reads the keys now; resolves when those committed before the call are known, or rejects. */
  pull(): Promise<void>;
  /**
   * To be awaited when a key is not known, and followed by a second look: another replica may have made it just now. The
   * database is read once a second at most, whatever is asked for. Rejects while it cannot be read, or not soon: those who
   * wait take places that others need.
   */
  missed(): Promise<void>;
  close(): Promise<void>;
}

/** Loads the keys and follows the database until closed. While it cannot be read, keys stay as they were. */
export async function openKeyRing({ database, store, clock, logger }: KeyRingOptions): Promise<KeyRing> {
  let keys: ReadonlyMap<string, KeyRecord> = new Map();
  let closed = false;
  let cancelTimer = () => {};
  /** Why the last read failed. */
  let failure: unknown;
  /** The read that goes on, and the one that begins after it. */
  let current: Promise<void> | undefined;
  let next: Promise<void> | undefined;
  let missedAt = Number.NEGATIVE_INFINITY;
  let missing: Promise<void> | undefined;

  async function read(): Promise<void> {
    try {
      const found = await store.loadEndingAfter(new Date(clock.now() - ENDED_KEPT_MS));
      keys = new Map(found.map((key) => [key.id, key]));
    } catch (error) {
      // An outage is told of once.
      if (failure === undefined && !closed) {
        logger.warn({ err: error }, "the API keys cannot be read; those that are known stay as they are");
      }
      failure = error;
      throw error;
    }
    if (failure !== undefined) {
      logger.info("the API keys can be read again");
    }
    failure = undefined;
  }

  function run(): Promise<void> {
    return read().finally(() => {
      current = next;
      next = undefined;
    });
  }

  /** What goes on may have read before the change that is looked for was committed, so a new read follows it. */
  function pull(): Promise<void> {
    if (current === undefined) {
      current = run();
      return current;
    }
    next ??= current.then(run, run);
    return next;
  }

  function soon(reading: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = clock.after(MISS_TIMEOUT_MS, () =>
        reject(databaseUnavailable("the API keys cannot be read now")),
      );
      reading.then(resolve, reject).finally(cancel);
    });
  }

  function schedule(delayMs: number): void {
    cancelTimer();
    if (!closed) {
      cancelTimer = clock.after(delayMs, follow);
    }
  }

  function follow(): void {
    pull().then(
      () => schedule(POLL_INTERVAL_MS),
      () => schedule(RETRY_DELAY_MS),
    );
  }

  // Listening before loading: what changes in between is announced.
  const subscription = await database.listen(KEYS_CHANNEL, follow, follow);
  try {
    await pull();
  } catch (error) {
    await subscription.close();
    throw error;
  }
  schedule(POLL_INTERVAL_MS);

  return {
    get: (id) => keys.get(id),
    all: () => keys.values(),
    pull,
    async missed() {
      if (missing === undefined && clock.monotonic() - missedAt >= MISS_INTERVAL_MS) {
        missedAt = clock.monotonic();
        const reading = pull().finally(() => {
          missing = undefined;
        });
        missing = soon(reading);
      }
      await missing;
      if (failure !== undefined) {
        throw failure;
      }
    },
    async close() {
      closed = true;
      cancelTimer();
      await subscription.close();
      // A failure of the last read no longer matters to anyone.
      await Promise.allSettled([current, next]);
    },
  };
}
