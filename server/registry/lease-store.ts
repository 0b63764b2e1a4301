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

export function createLeaseStore({ kysely }: Pick<Database, "kysely">): LeaseStore {
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
        SELECT EXISTS (SELECT 1 FROM registry_leases WHERE expires_at <= now()) AS found
      `.execute(kysely);
      if (!rows[0]?.found) {
        return [];
      }
      return await changeRegistry(kysely, async (tx, revision, changed) => {
        const expired = await tx
          .deleteFrom("registry_instances")
          .using("registry_leases as lease")
          .whereRef("lease.instance_id", "=", "registry_instances.id")
          .where("lease.expires_at", "<=", sql<Date>`now()`)
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
