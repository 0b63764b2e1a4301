import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { systemClock } from "@toolplane/framework";
import { ServiceFilterSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus, Protocol, ServiceState } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import type { Registry } from "../registry.ts";
import { emptyRegistry, startServer } from "../test-support/open-registry.ts";
import { described, instance, service } from "../test-support/specs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const never = new AbortController().signal;
const history = { filter: undefined, instanceId: "", pageSize: 0, pageToken: "" };

/** A plain HTTP server without anything of gRPC. */
async function startHttpServer(status: () => number): Promise<string> {
  const server = createServer((request, response) => {
    response.statusCode = request.url === "/healthy" ? status() : 404;
    response.end("text");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  // A server that listens on a port has an AddressInfo.
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function healthOf(registry: Registry, name: string) {
  const [first] = registry.getService({ name, environment: "", version: "" }).instances;
  return { health: first?.health, message: first?.healthMessage };
}

test("each kind of check tells a healthy instance from one that is not", async () => {
  const registry = await emptyRegistry(database);
  const grpc = await startServer();
  let status = 200;
  const http = await startHttpServer(() => status);
  const kinds = {
    grpc: { endpoint: grpc.url, kind: { case: "grpc", value: {} } },
    unknown: { endpoint: grpc.url, kind: { case: "grpc", value: { service: "no.such.Service" } } },
    http: { endpoint: http, kind: { case: "http", value: { path: "/healthy" } } },
    lost: { endpoint: http, kind: { case: "http", value: { path: "/lost" } } },
    tcp: { endpoint: http, kind: { case: "tcp", value: {} } },
    nobody: { endpoint: "127.0.0.1:1", kind: { case: "tcp", value: {} } },
    unchecked: { endpoint: "127.0.0.1:1", kind: { case: "none", value: {} } },
  } as const;
  for (const [name, { endpoint, kind }] of Object.entries(kinds)) {
    await registry.register(described({ name, healthCheck: { kind } }), instance({ id: name, endpoint }));
  }

  const checks = await registry.checkHealth(undefined, never);

  expect(Object.fromEntries(checks.map((check) => [check.instanceId, check.status]))).toEqual({
    grpc: HealthStatus.HEALTHY,
    unknown: HealthStatus.UNHEALTHY,
    http: HealthStatus.HEALTHY,
    lost: HealthStatus.UNHEALTHY,
    tcp: HealthStatus.HEALTHY,
    nobody: HealthStatus.UNHEALTHY,
    unchecked: HealthStatus.HEALTHY,
  });
  expect(checks.find(({ instanceId }) => instanceId === "lost")?.message).toBe("HTTP status 404");
  await expect.poll(() => healthOf(registry, "http").health).toBe(HealthStatus.HEALTHY);
  status = 503;
  await registry.checkHealth(create(ServiceFilterSchema, { name: "http" }), never);
  await expect
    .poll(() => healthOf(registry, "http"))
    .toEqual({
      health: HealthStatus.UNHEALTHY,
      message: "HTTP status 503",
    });
});

test("a server without the health service is healthy while it answers", async () => {
  const registry = await emptyRegistry(database);
  const plain = await startHttpServer(() => 200);
  await registry.register(
    described({ name: "plain", healthCheck: { kind: { case: "grpc", value: {} } } }),
    instance({ endpoint: plain, protocol: Protocol.CONNECT }),
  );
  const [check] = await registry.checkHealth(undefined, never);
  expect(check).toMatchObject({ status: HealthStatus.HEALTHY });
});

test("calls go to healthy instances while there are any", async () => {
  const registry = await emptyRegistry(database);
  const good = await startServer();
  const bad = await startServer();
  const spec = () => service({ name: "s" });
  await registry.register(spec(), instance({ id: "good", endpoint: good.url }));
  await registry.register(spec(), instance({ id: "bad", endpoint: bad.url }));
  const ids = () => registry.resolveTool("s.GetTool", {}).instances.map(({ id }) => id);
  bad.health.set("", "NOT_SERVING");
  await registry.checkHealth(undefined, never);
  await expect.poll(ids).toEqual(["good"]);
  good.health.set("", "NOT_SERVING");
  await registry.checkHealth(undefined, never);
  await expect.poll(ids).toEqual(["bad", "good"]);
  expect(registry.getService({ name: "s", environment: "", version: "" }).state).toBe(ServiceState.DOWN);
});

test("a server that is watched tells its change of health by itself", async () => {
  const registry = await emptyRegistry(database);
  const server = await startServer();
  await registry.register(
    service({ name: "s", healthCheck: { kind: { case: "grpc", value: { watch: true } } } }),
    instance({ endpoint: server.url }),
  );
  await expect.poll(() => healthOf(registry, "s").health).toBe(HealthStatus.HEALTHY);
  server.health.set("", "NOT_SERVING");
  await expect.poll(() => healthOf(registry, "s").message).toBe("NOT_SERVING");
  server.health.set("", "SERVING");
  await expect.poll(() => healthOf(registry, "s").message).toBe("SERVING");
});

test("an instance that failed is checked again soon", async () => {
  const registry = await emptyRegistry(database);
  let status = 500;
  const endpoint = await startHttpServer(() => status);
  await registry.register(
    described({ name: "s", healthCheck: { kind: { case: "http", value: { path: "/healthy" } } } }),
    instance({ endpoint }),
  );
  await expect.poll(() => healthOf(registry, "s").health).toBe(HealthStatus.UNHEALTHY);
  status = 200;
  await expect.poll(() => healthOf(registry, "s").health).toBe(HealthStatus.HEALTHY);
});

test("instances are checked as the last registration of their service wants it", async () => {
  const registry = await emptyRegistry(database);
  const check = { kind: { case: "tcp", value: {} } } as const;
  const none = { kind: { case: "none", value: {} } } as const;
  const register = (id: string, healthCheck: typeof check | typeof none) =>
    registry.register(described({ name: "s", healthCheck }), instance({ id, endpoint: "127.0.0.1:1" }));
  const health = () =>
    registry.getService({ name: "s", environment: "", version: "" }).instances.map((one) => one.health);

  await register("a", none);
  await register("b", check);
  // Nothing about a has changed but that there are checks now.
  await expect.poll(health).toEqual([HealthStatus.UNHEALTHY, HealthStatus.UNHEALTHY]);
  await register("b", none);
  expect(health()).toEqual([HealthStatus.HEALTHY, HealthStatus.HEALTHY]);
});

test("a failure that was found at an instance's former address is not held against it", async () => {
  const registry = await emptyRegistry(database);
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<number>();
  const former = createServer(async (_request, response) => {
    asked.resolve();
    response.statusCode = await answer.promise;
    response.end();
  });
  await new Promise<void>((resolve) => former.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    former.close();
    former.closeAllConnections();
  });
  const present = await startHttpServer(() => 200);
  const register = (endpoint: string) =>
    registry.register(
      described({ name: "s", healthCheck: { kind: { case: "http", value: { path: "/healthy" } } } }),
      instance({ id: "moving", endpoint }),
    );
  // A server that listens on a port has an AddressInfo.
  await register(`http://127.0.0.1:${(former.address() as AddressInfo).port}`);
  await asked.promise;
  const checking = registry.checkHealth(undefined, never);
  await register(present);
  const seen: (HealthStatus | undefined)[] = [];
  const watching = (async () => {
    for await (const { event } of registry.watch(undefined, undefined, never)) {
      if (event.case === "updated") {
        seen.push(event.value.instances[0]?.health);
      }
      if (seen.at(-1) === HealthStatus.HEALTHY) {
        return;
      }
    }
  })();
  answer.resolve(503);
  expect(await checking).toMatchObject([{ status: HealthStatus.UNHEALTHY }]);
  await watching;
  expect(seen).toEqual([HealthStatus.UNKNOWN, HealthStatus.HEALTHY]);
});

test("past checks are listed newest first, filtered, page by page", async () => {
  // Rounds may follow each other within a millisecond, which is all that tells their times apart.
  let aheadMs = 0;
  const clock = { ...systemClock, now: () => systemClock.now() + aheadMs };
  const registry = await emptyRegistry(database, {}, { clock });
  const server = await startServer();
  for (const name of ["history-a", "history-b"]) {
    await registry.register(described({ name, tags: [name] }), instance({ id: name, endpoint: server.url }));
  }
  for (let round = 0; round < 3; round++) {
    aheadMs += 1_000;
    await registry.checkHealth(create(ServiceFilterSchema, { name: "history" }), never);
  }
  const filter = create(ServiceFilterSchema, { name: "HISTORY-A" });
  const first = await registry.listHealthChecks({ ...history, filter, pageSize: 2 });
  const second = await registry.listHealthChecks({
    ...history,
    filter,
    pageSize: 2,
    pageToken: first.nextPageToken,
  });
  const times = [...first.items, ...second.items].map(({ time }) => time.getTime());
  expect(times).toHaveLength(3);
  expect(times).toEqual(times.toSorted((left, right) => right - left));
  expect(second.nextPageToken).toBe("");
  const countOf = async (request: object) =>
    (await registry.listHealthChecks({ ...history, ...request })).items.length;
  expect(await countOf({ instanceId: "history-b" })).toBe(3);
  expect(await countOf({ filter: create(ServiceFilterSchema, { tags: ["history-b"] }) })).toBe(3);
  expect(
    await countOf({
      filter: create(ServiceFilterSchema, { name: "history", health: HealthStatus.UNHEALTHY }),
    }),
  ).toBe(0);
  const last = timestampFromMs(Math.max(...times));
  expect(await countOf({ filter, startTime: last })).toBe(1);
  expect(await countOf({ filter, endTime: last })).toBe(2);
  await expect(registry.listHealthChecks({ ...history, pageToken: "x" })).rejects.toMatchObject({
    init: { reason: "INVALID_FIELDS" },
  });
});
