import type { Clock, Logger } from "@toolplane/framework";
import { createIdempotency, type Idempotency } from "@toolplane/framework/policies";
import type { Database } from "../storage/database.ts";
import { openIdempotencyStore } from "./store.ts";

/** Time between two looks for requests that may be forgotten, in milliseconds. */
const FORGET_INTERVAL_MS = 60_000;
/** How long a request belongs to a process that has died with it: as long as runs belong to a dead worker. */
const LEASE_MS = 10_000;

export interface RequestIdsOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  /** How long an outcome is kept, in milliseconds. */
  readonly retentionMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Lets requests with an id happen once, on all replicas, and forgets them when their time is over. */
export async function openRequestIds(options: RequestIdsOptions): Promise<Idempotency> {
  const { database, retentionMs, clock, logger } = options;
  const store = await openIdempotencyStore(database);
  const idempotency = createIdempotency({
    store,
    retentionMs,
    leaseMs: LEASE_MS,
    clock,
    onEvent(event) {
      if (event.kind === "recording-failed") {
        logger.warn({ err: event.error }, "the outcome of a request cannot be recorded now");
      }
    },
  });
  let closed = false;
  let cancel = () => {};
  let forgetting = Promise.resolve();

  async function forget(): Promise<void> {
    try {
      let forgotten = 1;
      while (!closed && forgotten > 0) {
        forgotten = await store.forgetExpired();
      }
    } catch (error) {
      logger.debug({ err: error }, "could not forget requests whose time is over");
    }
    schedule();
  }

  function schedule(): void {
    if (!closed) {
      cancel = clock.after(FORGET_INTERVAL_MS, () => {
        forgetting = forget();
      });
    }
  }
  schedule();

  return {
    run: idempotency.run,
    stats: idempotency.stats,
    async close() {
      closed = true;
      cancel();
      await idempotency.close();
      await forgetting;
      await store.close();
    },
  };
}
