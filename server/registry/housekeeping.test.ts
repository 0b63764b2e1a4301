import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { createHealthHistoryStore } from "./health/history-store.ts";
import { keepHouse } from "./housekeeping.ts";
import { openRegistry } from "./test-support/open-registry.ts";
import { described, instance, weatherDescriptors } from "./test-support/specs.ts";

test("what nobody needs any more is forgotten, and nothing else", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const { kysely } = database;
  const registry = await openRegistry(database);
  const register = (name: string, method: string) =>
    registry.register(
      described({ name }, weatherDescriptors([method])),
      instance({ id: name, endpoint: "localhost:1" }),
    );
  await register("kept", "Old");
  await register("kept", "New");
  await register("gone", "Gone");
  await registry.deregister({ instanceId: "gone" });
  await registry.checkHealth(undefined, new AbortController().signal);
  const history = createHealthHistoryStore(database);
  const run = () => keepHouse({ database, history, logger: silentLogger, healthRetentionMs: 86_400_000 });
  const count = async (
    table: "registry_tool_sets" | "registry_definitions" | "registry_health_checks" | "registry_changes",
  ) => (await kysely.selectFrom(table).select(sql`1`.as("one")).execute()).length;

  await run();
  // The tools of what is gone are remembered for a while; those that were replaced are not.
  expect(await count("registry_tool_sets")).toBe(2);
  expect(await count("registry_definitions")).toBe(1);
  expect(await count("registry_health_checks")).toBe(1);
  expect(await count("registry_changes")).toBeGreaterThan(0);

  const longAgo = new Date(Date.now() - 40 * 86_400_000);
  await kysely.updateTable("registry_known_tool_sets").set({ update_time: longAgo }).execute();
  await kysely.updateTable("registry_health_checks").set({ time: longAgo }).execute();
  await kysely.updateTable("registry_head").set({ revision: sql<number>`revision + 20000` }).execute();
  await run();
  expect(await count("registry_tool_sets")).toBe(1);
  expect(await count("registry_health_checks")).toBe(0);
  expect(await count("registry_changes")).toBe(0);
  expect((await registry.resolveTool("kept.New", {}).definition()).kind).toBe("descriptors");
});
