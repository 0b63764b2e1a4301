import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import type { Catalogue } from "../catalogue.ts";
import { emptyRegistry, openRegistry, startServer } from "../test-support/open-registry.ts";
import { described, instance, service } from "../test-support/specs.ts";
import type { Checker } from "./checker.ts";
import { createSuspects } from "./suspects.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const ref = { name: "s", environment: "", version: "" };

test("an instance that a call could not reach is checked at once, also on a replica that does not keep house", async () => {
  const keeper = await emptyRegistry(database);
  const replica = await openRegistry(database);
  const [kept, killed] = [await startServer(), await startServer()];
  await keeper.register(service({ name: "s" }), instance({ id: "kept", endpoint: kept.url }));
  await keeper.register(service({ name: "s" }), instance({ id: "killed", endpoint: killed.url }));
  const health = () => replica.getService(ref).instances.map((one) => [one.id, one.health]);
  await expect.poll(health).toEqual([
    ["kept", HealthStatus.HEALTHY],
    ["killed", HealthStatus.HEALTHY],
  ]);
  await killed.close();

  replica.reportUnreachable("killed");

  const ids = () => replica.resolveTool("s.GetTool", {}).instances.map(({ id }) => id);
  expect(ids()).toEqual(["kept"]);
  await expect.poll(health).toEqual([
    ["kept", HealthStatus.HEALTHY],
    ["killed", HealthStatus.UNHEALTHY],
  ]);
  expect(ids()).toEqual(["kept"]);
});

test("an instance that is healthy after all gets calls again, and the only one always does", async () => {
  const registry = await emptyRegistry(database);
  const server = await startServer();
  for (const id of ["a", "b"]) {
    await registry.register(service({ name: "s" }), instance({ id, endpoint: server.url }));
  }
  const ids = () => registry.resolveTool("s.GetTool", {}).instances.map(({ id }) => id);
  registry.reportUnreachable("a");
  expect(ids()).toEqual(["b"]);
  await expect.poll(ids).toEqual(["a", "b"]);
  registry.reportUnreachable("a");
  registry.reportUnreachable("b");
  expect(ids()).toEqual(["a", "b"]);
});

test("an instance that nobody may check, and one that is not there, are left alone", async () => {
  const registry = await emptyRegistry(database);
  for (const id of ["a", "b"]) {
    await registry.register(described({ name: "s" }), instance({ id, endpoint: `localhost:${id.length}` }));
    registry.reportUnreachable(id);
  }
  registry.reportUnreachable("c");
  expect(registry.resolveTool("s.GetForecast", {}).instances).toHaveLength(2);
});

test("however many calls fail, an instance is checked once a second", async () => {
  const clock = createFakeClock();
  const checks: number[] = [];
  const found = { service: { spec: {} }, instance: { health: HealthStatus.HEALTHY } };
  const suspects = createSuspects({
    // Only what is looked at.
    catalogue: { instance: () => found } as unknown as Catalogue,
    checker: {
      async check() {
        checks.push(clock.now());
        return undefined;
      },
    } satisfies Pick<Checker, "check">,
    clock,
    logger: silentLogger,
  });
  const [start, pause] = [clock.now(), 1_000];
  for (let round = 0; round < 3; round++) {
    for (let count = 0; count < 100; count++) {
      suspects.report("a");
    }
    clock.advance(round === 0 ? 0 : pause);
    await expect.poll(() => checks).toHaveLength(round + 1);
    await expect.poll(() => clock.pending).toBe(1);
  }
  expect(checks).toEqual([start, start + pause, start + 2 * pause]);
  expect(suspects.has("a")).toBe(true);
  clock.advance(pause);
  await expect.poll(() => suspects.has("a")).toBe(false);
  expect(clock.pending).toBe(0);
  await suspects.close();
});
