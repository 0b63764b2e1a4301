import { Code, ConnectError } from "@connectrpc/connect";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SampleService } from "../../framework/test-support/sample-service.ts";
import { emptyRegistry, startServer } from "../registry/test-support/open-registry.ts";
import { instance, service } from "../registry/test-support/specs.ts";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { openCaller } from "./test-support/open-caller.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const echo = { tool: "s.Echo", input: { case: "arguments", value: { value: "hi" } } } as const;

test("once a call has found an instance gone it is made elsewhere, and no other call is sent there", async () => {
  const registry = await emptyRegistry(database);
  const call = openCaller(registry);
  const routes = {
    routes: (router) => router.service(SampleService, { echo: (request) => request }),
  } satisfies Parameters<typeof startServer>[0];
  const [kept, killed] = [await startServer(routes), await startServer(routes)];
  await registry.register(service({ name: "s" }), instance({ id: "kept", endpoint: kept.url }));
  await registry.register(service({ name: "s" }), instance({ id: "killed", endpoint: killed.url }));
  const health = () =>
    registry.getService({ name: "s", environment: "", version: "" }).instances.map((one) => one.health);
  await expect.poll(health).toEqual([HealthStatus.HEALTHY, HealthStatus.HEALTHY]);
  const answered = new Set<string>();
  await expect.poll(async () => answered.add((await call(echo)).instanceId).size, { interval: 1 }).toBe(2);
  await killed.close();

  for (let count = 0; count < 20; count++) {
    await call(echo);
  }
  for (let count = 0; count < 200; count++) {
    expect((await call(echo)).instanceId).toBe("kept");
  }
  await expect.poll(health).toEqual([HealthStatus.HEALTHY, HealthStatus.UNHEALTHY]);
  for (let count = 0; count < 200; count++) {
    expect((await call(echo)).instanceId).toBe("kept");
  }
});

test("an instance that says itself that it is unavailable is not suspected", async () => {
  const registry = await emptyRegistry(database);
  const call = openCaller(registry);
  const failing = await startServer({
    routes: (router) =>
      router.service(SampleService, {
        echo() {
          throw new ConnectError("busy", Code.Unavailable);
        },
      }),
  });
  for (const id of ["a", "b"]) {
    await registry.register(service({ name: "s" }), instance({ id, endpoint: failing.url }));
  }
  await expect(call(echo)).rejects.toMatchObject({ code: Code.Unavailable, rawMessage: "busy" });
  expect(registry.resolveTool("s.Echo", {}).instances).toHaveLength(2);
});
