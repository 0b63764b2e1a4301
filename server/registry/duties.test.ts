import { expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { createDuties } from "./duties.ts";
import { createLeaseStore } from "./lease-store.ts";
import { openRegistry } from "./test-support/open-registry.ts";
import { described, instance } from "./test-support/specs.ts";

test("after a pause of the process, instances have their full time to renew", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const { kysely } = database;
  const registry = await openRegistry(database);
  await registry.register(described({ name: "w" }), instance({ id: "a", endpoint: "localhost:1" }));
  await registry.close();
  const clock = createFakeClock();
  const duties = createDuties({
    leases: createLeaseStore(database),
    clock,
    logger: silentLogger,
    startMonitor: () => ({ follow() {}, async close() {} }),
    startRefresher: () => ({ follow() {}, async close() {} }),
    async keepHouse() {},
  });
  const endLease = () =>
    kysely
      .updateTable("registry_leases")
      .set({ expires_at: new Date(0) })
      .execute();
  const instances = async () => (await kysely.selectFrom("registry_instances").select("id").execute()).length;

  await duties.begin();
  await endLease();
  clock.advance(60_000);
  await duties.turn();
  expect(await instances()).toBe(1);
  await endLease();
  clock.advance(1_000);
  await duties.turn();
  expect(await instances()).toBe(0);
  await duties.end();
});
