import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import type { Catalogue, CatalogueChange } from "./catalogue.ts";
import type { Store } from "./store.ts";
import { CHANGES_CHANNEL } from "./store-writes.ts";

/** Notifications can be lost with a connection: look for changes at least this often. */
const POLL_INTERVAL_MS = 5_000;

/** After a failure, how long until the next attempt. */
const RETRY_DELAY_MS = 500;

/** How often an incomplete answer is asked for again. */
const LOAD_ATTEMPTS = 3;

/** How long a writer waits for its own change to arrive. */
const REACH_TIMEOUT_MS = 5_000;

export interface ReplicationOptions {
  readonly database: Pick<Database, "listen">;
  readonly store: Store;
  readonly catalogue: Catalogue;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called with what each application has changed. */
  onChanges(changes: readonly CatalogueChange[]): void;
}

/** Keeps the catalogue equal to the database. Every replica's changes, also our own, arrive this one way. */
export interface Replication {
  /** Looks for changes now; resolves when those committed before the call are applied, or rejects. */
  pull(): Promise<void>;
  /** Waits until the catalogue has applied `revision`. Throws UNAVAILABLE when that takes more than 5 s. */
  reach(revision: number): Promise<void>;
  close(): Promise<void>;
}

/** Loads the catalogue and follows the database until closed. */
export async function startReplication(options: ReplicationOptions): Promise<Replication> {
  const { database, store, catalogue, clock, logger, onChanges } = options;
  let loaded = false;
  let closed = false;
  let cancelTimer = () => {};
  /** The look for changes that goes on, and the one that begins after it. */
  let current: Promise<void> | undefined;
  let next: Promise<void> | undefined;

  async function applyChanges(): Promise<void> {
    const { snapshot, toolSets } = await loadWithToolSets(
      store,
      catalogue,
      loaded ? catalogue.revision : undefined,
    );
    const changes = catalogue.apply(snapshot, toolSets);
    loaded = true;
    if (changes.length > 0) {
      onChanges(changes);
    }
  }

  function run(): Promise<void> {
    const work = applyChanges().finally(() => {
      current = next;
      next = undefined;
    });
    return work;
  }

  /** What goes on may have read before the change that is looked for was committed, so a new look follows it. */
  function pull(): Promise<void> {
    if (!current) {
      current = run();
      return current;
    }
    next ??= current.then(run, run);
    return next;
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
      (error: unknown) => {
        if (!closed) {
          logger.warn({ err: error }, "the registry's changes cannot be read; trying again");
        }
        schedule(RETRY_DELAY_MS);
      },
    );
  }

  // Listening before loading: what changes in between is announced.
  const subscription = await database.listen(CHANGES_CHANNEL, follow, follow);
  try {
    await pull();
  } catch (error) {
    await subscription.close();
    throw error;
  }
  schedule(POLL_INTERVAL_MS);

  return {
    pull,
    async reach(revision) {
      if (catalogue.revision >= revision) {
        return;
      }
      await within(clock, REACH_TIMEOUT_MS, pull());
    },
    async close() {
      closed = true;
      cancelTimer();
      await subscription.close();
      // A failure of the last look no longer matters to anyone.
      await Promise.allSettled([current, next]);
    },
  };
}

/** A tool set can be cleaned away between the two queries, with the service that had it: then both are read again. */
async function loadWithToolSets(store: Store, catalogue: Catalogue, revision: number | undefined) {
  for (let attempt = 1; ; attempt++) {
    const snapshot = await store.load(revision);
    const missing = catalogue.missingToolSets(snapshot);
    const toolSets = new Map<string, Uint8Array>();
    for await (const { digest, bytes } of store.toolSets(missing)) {
      toolSets.set(digest, bytes);
    }
    if (toolSets.size === missing.length || attempt === LOAD_ATTEMPTS) {
      return { snapshot, toolSets };
    }
  }
}

async function within<T>(clock: Clock, ms: number, work: Promise<T>): Promise<T> {
  let cancel = () => {};
  const late = new Promise<never>((_, reject) => {
    cancel = clock.after(ms, () =>
      reject(
        new DomainError({
          code: Code.Unavailable,
          reason: "REGISTRY_LAGGING",
          message: "The change is stored, but the registry could not be read since; try again",
          retryAfterMs: 1_000,
        }),
      ),
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    cancel();
  }
}
