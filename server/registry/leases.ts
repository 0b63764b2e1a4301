import { type Clock, notFound } from "@toolplane/framework";
import type { Logger } from "pino";
import { milliseconds } from "../config/durations.ts";
import type { Catalogue } from "./catalogue.ts";
import { type LeaseStore, renewalDelayMs } from "./lease-store.ts";
import type { Replication } from "./replication.ts";

export interface LeasesOptions {
  readonly catalogue: Catalogue;
  readonly store: LeaseStore;
  readonly replication: Pick<Replication, "pull">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Renews leases: noted in memory, written in batches. */
export interface Leases {
  /**
   * Renews an instance's lease and returns how long it lasts from now, in milliseconds; undefined for a permanent one.
   * Throws NOT_FOUND when the instance is not registered.
   */
  renew(instanceId: string): Promise<number | undefined>;
  /** Writes what is noted. */
  close(): Promise<void>;
}

export function createLeases({ catalogue, store, replication, clock, logger }: LeasesOptions): Leases {
  let noted = new Set<string>();
  let dueAt = Number.POSITIVE_INFINITY;
  let cancelTimer = () => {};
  let writing = Promise.resolve();

  function write(): void {
    cancelTimer();
    dueAt = Number.POSITIVE_INFINITY;
    const renewed = noted;
    noted = new Set();
    if (renewed.size === 0) {
      return;
    }
    writing = writing.then(async () => {
      try {
        await store.renew([...renewed]);
      } catch (error) {
        // The next heartbeat renews them again; while the database is away, nobody expires leases.
        logger.warn({ err: error, instances: renewed.size }, "renewed leases could not be written");
      }
    });
  }

  function note(instanceId: string, ttlMs: number): void {
    noted.add(instanceId);
    const delay = renewalDelayMs(ttlMs);
    const due = clock.monotonic() + delay;
    if (due < dueAt) {
      dueAt = due;
      cancelTimer();
      cancelTimer = clock.after(delay, write);
    }
  }

  return {
    async renew(instanceId) {
      let found = catalogue.instance(instanceId);
      if (!found) {
        // Another replica may have registered it a moment ago.
        await replication.pull();
        found = catalogue.instance(instanceId);
      }
      if (!found) {
        throw notFound("instance", instanceId, "its lease ran out; register it again");
      }
      const { leaseTtl } = found.instance.spec;
      if (!leaseTtl) {
        return undefined;
      }
      const ttlMs = milliseconds(leaseTtl, 0);
      note(instanceId, ttlMs);
      return ttlMs;
    },
    async close() {
      write();
      await writing;
    },
  };
}
