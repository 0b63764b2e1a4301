import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { openTestDatabase } from "../storage/testing.ts";
import { createLeaseStore } from "./lease-store.ts";
import { openRegistry } from "./test-support/open-registry.ts";
import { described, instance } from "./test-support/specs.ts";

test("a lease ends once no acknowledged renewal can be on its way, unless it is being renewed", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const { kysely } = database;
  const registry = await openRegistry(database);
  for (const id of ["late", "gone", "renewed"]) {
    await registry.register(described({ name: id }), instance({ id, endpoint: "localhost:1" }));
  }
  // Without it, nobody removes anything but this test.
  await registry.close();
  const leases = createLeaseStore(database);
  const endedAgo = (id: string, ms: number) =>
    kysely
      .updateTable("registry_leases")
      .set({ expires_at: sql<Date>`now() - ${ms} * interval '1 ms'` })
      .where("instance_id", "=", id)
      .execute();
  await endedAgo("gone", 1_500);
  await endedAgo("renewed", 1_500);

  // The renewal is written but not committed when the leases are looked at.
  const written = Promise.withResolvers<void>();
  const commit = Promise.withResolvers<void>();
  const renewing = kysely.transaction().execute(async (tx) => {
    await createLeaseStore({ kysely: tx }).renew(["renewed"]);
    written.resolve();
    await commit.promise;
  });
  await written.promise;
  // As late as possible: a renewal of it may be on its way for a second from now.
  await endedAgo("late", 0);
  const expiring = leases.expire();
  await expect
    .poll(async () => {
      const { rows } = await sql`
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
      `.execute(kysely);
      return rows.length;
    })
    .toBe(1);
  commit.resolve();
  await renewing;
  expect(await expiring).toEqual(["gone"]);
});
