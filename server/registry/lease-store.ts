import { sql } from "kysely";
import type { Database } from "../storage/database.ts";
import { changeRegistry, touchOrRemoveServices } from "./store-writes.ts";

/** When instances expire, by the database's clock. */
export interface LeaseStore {
  /** Gives each of these instances its full time again. */
  renew(instanceIds: readonly string[]): Promise<void>;
  /** Gives every instance its full time again: nobody could renew while no replica was there. */
  renewAll(): Promise<void>;
  /** Removes the instances whose time is over, and services that are left without any. Returns the instances' ids. */
  expire(): Promise<string[]>;
}

/** Renewals are written together after at most this long, and within a fifth of the shortest lease among them. */
const MAX_RENEWAL_DELAY_MS = 1_000;
const RENEWAL_DELAY_SHARE = 0.2;

/** How long a renewal that was acknowledged may wait to be written, in milliseconds. */
export function renewalDelayMs(ttlMs: number): number {
  return Math.min(MAX_RENEWAL_DELAY_MS, ttlMs * RENEWAL_DELAY_SHARE);
}

export function createLeaseStore({ kysely }: Pick<Database, "kysely">): LeaseStore {
  // A renewal may have come in time and wait to be written.
  const isOver = sql<boolean>`
    expires_at + least(${MAX_RENEWAL_DELAY_MS}::float8, ttl_ms * ${RENEWAL_DELAY_SHARE}::float8) * interval '1 ms' <= now()
  `;
  const fullTime = sql<Date>`now() + ttl_ms * interval '1 ms'`;
  return {
    async renew(instanceIds) {
      await kysely
        .updateTable("registry_leases")
        .set({ expires_at: fullTime })
        .where("instance_id", "=", sql<string>`any(${instanceIds}::text[])`)
        .execute();
    },
    async renewAll() {
      await kysely.updateTable("registry_leases").set({ expires_at: fullTime }).execute();
    },
    async expire() {
      // Looking first keeps the head row, which every change locks, out of what happens every second.
      const { rows } = await sql<{ found: boolean }>`
        SELECT EXISTS (SELECT 1 FROM registry_leases WHERE ${isOver}) AS found
      `.execute(kysely);
      if (!rows[0]?.found) {
        return [];
      }
      return await changeRegistry(kysely, async (tx, revision, changed) => {
        // The leases first: one that is being renewed at this moment is looked at again once that is committed.
        const over = await tx.deleteFrom("registry_leases").where(isOver).returning("instance_id").execute();
        const expired = await tx
          .deleteFrom("registry_instances")
          .where("id", "=", sql<string>`any(${over.map(({ instance_id }) => instance_id)}::text[])`)
          .returning(["id", "name", "environment", "version"])
          .execute();
        for (const instance of expired) {
          changed.add(instance);
        }
        await touchOrRemoveServices(tx, revision, changed.keys());
        return expired.map(({ id }) => id);
      });
    },
  };
}
