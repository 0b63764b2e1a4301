import { createServer, type Socket } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import {
  ServiceFilterSchema,
  ToolFilterSchema,
  ToolView,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus, Lifetime, ServiceState } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { SampleService } from "../../framework/test-support/sample-service.ts";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { emptyRegistry, openRegistry, startServer } from "./test-support/open-registry.ts";
import { described, instance, service, weatherDescriptors } from "./test-support/specs.ts";

let shared: Database;

beforeAll(async () => {
  shared = await openTestDatabase();
});

afterAll(() => shared.close());

function reasonOf(call: () => unknown): string | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    return error instanceof DomainError ? error.init.reason : String(error);
  }
}

const all = { filter: undefined, pageSize: 0, pageToken: "", view: ToolView.BASIC };

test("the methods of a server that is registered by address are tools with schemas", async () => {
  const registry = await emptyRegistry(shared);
  const server = await startServer();

  const {
    service: registered,
    instanceId,
    leaseTtlMs,
  } = await registry.register(
    service({ name: "sample", tags: ["demo"] }),
    instance({ endpoint: server.url }),
  );

  expect(registered).toMatchObject({
    name: "sample",
    environment: "default",
    version: "0.0.0",
    state: ServiceState.READY,
    problems: [],
    toolCount: 11,
  });
  expect(leaseTtlMs).toBe(30_000);
  const tool = registry.getTool("sample.toolplane.registry.v1.RegistryService.GetTool", {});
  expect(tool).toMatchObject({ alias: "sample.GetTool", service: "sample", title: "Get a tool" });
  expect(tool.tags).toContain("demo");
  expect(tool.inputSchema).toMatchObject({ type: "object", required: ["name"] });

  const resolved = registry.resolveTool("sample.GetTool", {});
  expect(resolved.instances.map(({ id }) => id)).toEqual([instanceId]);
  expect(resolved.instances[0]?.target().endpoint).toBe(server.url);
  expect((await resolved.definition()).kind).toBe("descriptors");
});

test("a new instance is checked at once", async () => {
  const registry = await emptyRegistry(shared);
  const server = await startServer();
  await registry.register(service({ name: "sample" }), instance({ endpoint: server.url }));
  await expect
    .poll(() => registry.getService({ name: "sample", environment: "", version: "" }).instances)
    .toMatchObject([{ health: HealthStatus.HEALTHY, healthMessage: "SERVING" }]);
});

test("an address where nobody listens is registered with the exact reason", async () => {
  const registry = await emptyRegistry(shared);
  const { service: registered } = await registry.register(
    service({ name: "nobody" }),
    instance({ endpoint: "127.0.0.1:1" }),
  );
  expect(registered).toMatchObject({
    state: ServiceState.DEGRADED,
    toolCount: 0,
    problems: [{ tool: "", message: expect.stringContaining("127.0.0.1:1") }],
  });
});

test("a server that starts after it was registered is usable soon after", async () => {
  const registry = await emptyRegistry(shared);
  const first = await startServer();
  const { port } = first.address;
  await first.close();
  await registry.register(service({ name: "late" }), instance({ endpoint: first.url }));
  expect(registry.counts().tools).toBe(0);

  await startServer({ listen: `127.0.0.1:${port}` });

  const ref = { name: "late", environment: "", version: "" };
  await expect
    .poll(() => registry.getService(ref), { interval: 20 })
    .toMatchObject({ state: ServiceState.READY, toolCount: 11, problems: [] });
});

test("a source that hangs delays only its own registration", async () => {
  const registry = await emptyRegistry(shared, { discoveryTimeoutMs: 300 });
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket));
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = silent.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  try {
    const slow = registry.register(service({ name: "slow" }), instance({ endpoint: `127.0.0.1:${port}` }));
    await registry.register(described({ name: "quick" }), instance({ endpoint: "127.0.0.1:2" }));
    expect(registry.getTool("quick.GetForecast", {}).name).toBe(
      "quick.acme.weather.v1.WeatherService.GetForecast",
    );
    expect((await slow).service.problems).toMatchObject([{ reason: "DISCOVERY_TIMEOUT" }]);
    expect(registry.getTool("quick.GetForecast", {})).toBeDefined();
  } finally {
    silent.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  }
});

test("tools stay callable when they cannot be learnt again", async () => {
  const registry = await emptyRegistry(shared);
  const server = await startServer();
  const ref = { name: "sample", environment: "", version: "" };
  await registry.register(service({ name: "sample" }), instance({ endpoint: server.url }));
  await server.close();

  const { service: stale } = await registry.refresh(ref);

  expect(stale.toolCount).toBe(11);
  expect(stale.problems[0]).toMatchObject({ reason: "STALE_TOOLS" });
  expect(stale.problems).toHaveLength(2);
  expect(registry.resolveTool("sample.GetTool", {}).instances).toHaveLength(1);
});

test("instances that register together share one discovery", async () => {
  const registry = await emptyRegistry(shared);
  let reflections = 0;
  const server = await startServer({
    onCall: (call) => {
      reflections += call.method.includes("ServerReflectionInfo") ? 1 : 0;
    },
  });
  await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      registry.register(service({ name: "sample" }), instance({ id: `copy-${index}`, endpoint: server.url })),
    ),
  );
  expect(registry.getService({ name: "sample", environment: "", version: "" }).instances).toHaveLength(20);
  await expect.poll(() => reflections).toBe(1);
});

test("an address registers once: again, it replaces itself, and moves to the version it names", async () => {
  const registry = await emptyRegistry(shared);
  const first = await registry.register(
    described({ name: "w", version: "1.0.0" }),
    instance({ endpoint: "localhost:1" }),
  );
  const again = await registry.register(
    described({ name: "w", version: "1.0.0" }),
    instance({ endpoint: "LOCALHOST:1" }),
  );
  const moved = await registry.register(
    described({ name: "w", version: "2.0.0" }),
    instance({ endpoint: "localhost:1" }),
  );
  expect(new Set([first, again, moved].map(({ instanceId }) => instanceId)).size).toBe(1);
  expect(registry.listServices(all).items.map(({ version }) => version)).toEqual(["2.0.0"]);
});

test("a service is gone with its last instance", async () => {
  const registry = await emptyRegistry(shared);
  const one = await registry.register(described({ name: "w" }), instance({ endpoint: "localhost:1" }));
  const two = await registry.register(described({ name: "w" }), instance({ endpoint: "localhost:2" }));
  expect(await registry.deregister({ instanceId: one.instanceId })).toBe(1);
  expect(registry.resolveTool("w.GetForecast", {}).instances.map(({ id }) => id)).toEqual([two.instanceId]);
  expect(await registry.deregister({ service: { name: "w", environment: "", version: "" } })).toBe(1);
  expect(registry.counts()).toEqual({ services: 0, tools: 0 });
  await expect(registry.deregister({ instanceId: one.instanceId })).rejects.toMatchObject({
    init: { code: Code.NotFound, reason: "INSTANCE_NOT_FOUND" },
  });
});

test("a tool is found by every name that means only it", async () => {
  const registry = await emptyRegistry(shared);
  const weather = weatherDescriptors(["GetForecast", "ListAlerts"]);
  await registry.register(described({ name: "weather" }, weather), instance({ endpoint: "localhost:1" }));
  await registry.register(
    described({ name: "sky" }, weatherDescriptors(["GetForecast"])),
    instance({ endpoint: "localhost:2" }),
  );
  const name = "weather.acme.weather.v1.WeatherService.GetForecast";
  for (const alias of [name, "weather.GetForecast", "weather.WeatherService.GetForecast"]) {
    expect(registry.getTool(alias, {}).name).toBe(name);
  }
  expect(registry.getTool("ListAlerts", {}).name).toBe("weather.acme.weather.v1.WeatherService.ListAlerts");
  expect(registry.getTool("v1.WeatherService.ListAlerts", {}).service).toBe("weather");
  expect(() => registry.getTool("GetForecast", {})).toThrow(
    /can mean sky\.acme\.weather\.v1\.WeatherService\.GetForecast, weather\.acme/,
  );
  expect(reasonOf(() => registry.getTool("GetForecast", {}))).toBe("AMBIGUOUS_TOOL");
  expect(reasonOf(() => registry.getTool("weather.etForecast", {}))).toBe("TOOL_NOT_FOUND");
  expect(reasonOf(() => registry.getTool(name, { environment: "staging" }))).toBe("TOOL_NOT_FOUND");
});

test("a tool that does not exist is answered with those that can be meant, best first, and no others", async () => {
  const registry = await emptyRegistry(shared);
  const register = (name: string, methods: string[], version = "1.0.0") =>
    registry.register(
      described({ name, version }, weatherDescriptors(methods)),
      instance({ id: `${name}-${version}`, endpoint: "localhost:1" }),
    );
  await register("inv", ["Follow", "Load", "Put"]);
  await register("inv", ["Follow", "Load", "Put"], "2.0.0");
  await register("store", ["PutObject", "Purge", "Unload"]);
  await register("weather", ["GetForecast", "ListAlerts"]);
  await register("sky", ["GetForecast"]);
  const suggested = (name: string) => {
    const text = reasonTextOf(() => registry.getTool(name, {}));
    return /did you mean (.+)\?/.exec(text)?.[1] ?? (text.includes("with other words") ? "" : text);
  };
  expect(suggested("inv.Pu")).toBe("inv.Put");
  expect(suggested("inv.Lod")).toBe("inv.Load");
  expect(suggested("inv.Pull")).toBe("");
  expect(suggested("inv.Nothing")).toBe("");
  expect(suggested("inv.X")).toBe("");
  expect(suggested("PutObjct")).toBe("store.PutObject");
  expect(suggested("weather.GetForcast")).toBe("weather.GetForecast, sky.GetForecast");
  expect(suggested("weather.getforecast")).toBe("weather.GetForecast, sky.GetForecast");
  expect(suggested("wether.GetForecast")).toBe("weather.GetForecast, sky.GetForecast");
  expect(suggested("weather.v9.Forecast")).toBe("weather.GetForecast, sky.GetForecast");
  expect(suggested("Alerts")).toBe("weather.ListAlerts");
  expect(suggested("")).toBe("");
});

test("a tool that is there in other versions or environments is answered with these", async () => {
  const registry = await emptyRegistry(shared);
  for (const version of ["1.9.0", "1.10.0"]) {
    await registry.register(
      described({ name: "w", version }),
      instance({ id: version, endpoint: "localhost:1" }),
    );
  }
  await registry.register(
    described({ name: "s", environment: "staging" }, weatherDescriptors(["Probe"])),
    instance({ endpoint: "localhost:2" }),
  );
  for (const name of ["w.GetForecast", "GetForecast", "w.acme.weather.v1.WeatherService.GetForecast"]) {
    expect(reasonTextOf(() => registry.getTool(name, { version: "3" }))).toContain(
      `Tool "${name}" does not exist in version "3": registered versions are 1.10.0, 1.9.0`,
    );
  }
  expect(reasonTextOf(() => registry.getTool("w.Nothing", { version: "3" }))).toContain(
    "registered versions are 1.10.0, 1.9.0",
  );
  expect(reasonTextOf(() => registry.getTool("w.Nothing", { version: "1.9.0" }))).not.toContain("registered");
  expect(reasonTextOf(() => registry.getTool("s.Probe", {}))).toContain(
    "it is registered in environment staging",
  );
});

test("a tool of a service whose tools could not be learnt is answered with the reason", async () => {
  const registry = await emptyRegistry(shared);
  await registry.register(service({ name: "nobody" }), instance({ endpoint: "127.0.0.1:1" }));
  expect(reasonTextOf(() => registry.getTool("nobody.Do", {}))).toMatch(
    /"nobody\.Do" does not exist: not all tools of the service are known: UNREACHABLE: Cannot connect to .*127\.0\.0\.1:1/,
  );
});

test("a service that does not exist is answered with those that can be meant", async () => {
  const registry = await emptyRegistry(shared);
  for (const [port, name] of ["weather", "text", "weather-archive"].entries()) {
    await registry.register(described({ name }), instance({ endpoint: `localhost:${port + 1}` }));
  }
  const answer = (name: string, version = "") =>
    reasonTextOf(() => registry.getService({ name, environment: "", version }));
  expect(answer("wether")).toContain("did you mean weather?");
  expect(answer("Weather")).toContain("did you mean weather, weather-archive?");
  expect(answer("eathe")).toContain("did you mean weather, weather-archive?");
  expect(answer("wether", "1")).toContain("did you mean weather?");
  expect(answer("xyz")).not.toContain("did you mean");
});

function reasonTextOf(call: () => unknown): string {
  try {
    call();
    return "";
  } catch (error) {
    return String(error);
  }
}

test("unless a version is named, the highest that can be called is meant", async () => {
  const registry = await emptyRegistry(shared);
  const register = (version: string, endpoint: string, methods = ["GetForecast"]) =>
    registry.register(
      described({ name: "w", version }, weatherDescriptors(methods)),
      instance({ id: version, endpoint }),
    );
  await register("1.9.0", "localhost:1", ["GetForecast", "Retired"]);
  await register("1.10.0", "localhost:2");
  await register("2.0.0-rc.1", "localhost:3");
  const versionOf = (name: string, version?: string) => registry.resolveTool(name, { version }).version;
  expect(versionOf("w.GetForecast")).toBe("2.0.0-rc.1");
  expect(versionOf("GetForecast")).toBe("2.0.0-rc.1");
  expect(versionOf("w.GetForecast", "1.9.0")).toBe("1.9.0");
  // Callers of a tool that newer versions lack still reach it.
  expect(versionOf("w.Retired")).toBe("1.9.0");
  await registry.deregister({ instanceId: "2.0.0-rc.1" });
  expect(versionOf("w.GetForecast")).toBe("1.10.0");
  expect(registry.getService({ name: "w", environment: "", version: "" }).version).toBe("1.10.0");
  expect(reasonOf(() => registry.getService({ name: "w", environment: "", version: "3" }))).toBe(
    "SERVICE_NOT_FOUND",
  );
});

test("calls go to a lower version while every instance of the highest fails its check", async () => {
  const registry = await emptyRegistry(shared);
  await registry.register(described({ name: "w", version: "1.0.0" }), instance({ endpoint: "localhost:1" }));
  await registry.register(
    described({ name: "w", version: "2.0.0", healthCheck: { kind: { case: "tcp", value: {} } } }),
    instance({ endpoint: "127.0.0.1:1" }),
  );
  await expect.poll(() => registry.resolveTool("w.GetForecast", {}).version).toBe("1.0.0");
  // Asked for by version it is still called: the check may be wrong.
  expect(registry.resolveTool("w.GetForecast", { version: "2.0.0" }).instances).toHaveLength(1);
});

test("services and tools are listed in order, filtered, page by page", async () => {
  const registry = await emptyRegistry(shared);
  for (const [index, name] of ["b", "a", "c-x", "c"].entries()) {
    await registry.register(
      described(
        { name, tags: index % 2 === 0 ? ["even"] : [], ...(name === "c" ? { environment: "staging" } : {}) },
        weatherDescriptors(["Two", "One"]),
      ),
      instance({ endpoint: `localhost:${index + 1}` }),
    );
  }
  const pagesOf = <T>(
    list: (pageToken: string) => { items: T[]; nextPageToken: string; totalSize: number },
  ) => {
    const pages: T[][] = [];
    for (let token = ""; pages.length === 0 || token !== ""; ) {
      const page = list(token);
      pages.push(page.items);
      token = page.nextPageToken;
    }
    return pages;
  };
  const servicePages = pagesOf((pageToken) => registry.listServices({ ...all, pageSize: 3, pageToken }));
  expect(servicePages.map((page) => page.map(({ name }) => name))).toEqual([["a", "b", "c"], ["c-x"]]);
  const toolPages = pagesOf((pageToken) => registry.listTools({ ...all, pageSize: 3, pageToken }));
  expect(toolPages.map((page) => page.map(({ alias }) => alias))).toEqual([
    ["a.One", "a.Two", "b.One"],
    ["b.Two", "c.One", "c.Two"],
    ["c-x.One", "c-x.Two"],
  ]);
  const filtered = (init: object) =>
    registry
      .listServices({ ...all, filter: create(ServiceFilterSchema, init) })
      .items.map(({ name }) => name);
  expect(filtered({ name: "C" })).toEqual(["c", "c-x"]);
  expect(filtered({ tags: ["even"] })).toEqual(["b", "c-x"]);
  expect(filtered({ environment: "staging" })).toEqual(["c"]);
  expect(filtered({ health: HealthStatus.UNHEALTHY })).toEqual([]);
  expect(
    registry.listTools({ ...all, filter: create(ToolFilterSchema, { service: "c", tags: ["even"] }) })
      .totalSize,
  ).toBe(0);

  const { nextPageToken } = registry.listServices({ ...all, pageSize: 1 });
  for (const pageToken of [
    "nonsense",
    "W10",
    `${nextPageToken}x`,
    Buffer.from('["a"]').toString("base64url"),
  ]) {
    expect(reasonOf(() => registry.listServices({ ...all, pageToken }))).toBe("INVALID_FIELDS");
  }
  const other = create(ServiceFilterSchema, { name: "a" });
  expect(reasonOf(() => registry.listServices({ ...all, filter: other, pageToken: nextPageToken }))).toBe(
    "INVALID_FIELDS",
  );
});

test("tools are listed in full only when asked for", async () => {
  const registry = await emptyRegistry(shared);
  await registry.register(described({ name: "w" }), instance({ endpoint: "localhost:1" }));
  expect(registry.listTools(all).items[0]?.inputSchema).toBeUndefined();
  expect(registry.listTools({ ...all, view: ToolView.FULL }).items[0]?.inputSchema).toMatchObject({
    type: "object",
  });
});

test("search finds what was registered a moment ago, and filters", async () => {
  const registry = await emptyRegistry(shared);
  await registry.register(
    described({ name: "weather", tags: ["sky"] }),
    instance({ endpoint: "localhost:1" }),
  );
  await registry.register(
    described({ name: "other", environment: "staging" }),
    instance({ endpoint: "localhost:2" }),
  );
  const search = async (query: string, filter = {}) =>
    (
      await registry.searchTools({
        query,
        filter: create(ToolFilterSchema, filter),
        view: ToolView.BASIC,
        pageSize: 0,
      })
    ).map(({ tool }) => tool.alias);
  expect(await search("forecast city weather")).toEqual(["weather.GetForecast", "other.GetForecast"]);
  expect(await search("forecast", { tags: ["sky"] })).toEqual(["weather.GetForecast"]);
  expect(await search("forecast", { environment: "staging" })).toEqual(["other.GetForecast"]);
});

test("no more tools than allowed are taken from one service", async () => {
  const registry = await emptyRegistry(shared, { maxToolsPerService: 2 });
  const { service: registered } = await registry.register(
    described({ name: "w" }, weatherDescriptors(["A", "B", "C"])),
    instance({ endpoint: "localhost:1" }),
  );
  expect(registered).toMatchObject({
    toolCount: 2,
    state: ServiceState.DEGRADED,
    problems: [{ reason: "TOO_MANY_TOOLS" }],
  });
});

test("a lease that is renewed lasts, one that is not runs out", async () => {
  const registry = await emptyRegistry(shared);
  const leased = (id: string) =>
    registry.register(
      described({ name: "w" }),
      instance({ id, endpoint: `localhost:${id.length}`, leaseTtl: { seconds: 3n } }),
    );
  await leased("kept");
  await leased("killed");
  await registry.register(
    described({ name: "w" }),
    instance({ id: "permanent", endpoint: "localhost:99", lifetime: Lifetime.PERMANENT }),
  );
  const ids = () => registry.resolveTool("w.GetForecast", {}).instances.map(({ id }) => id);
  expect(ids()).toEqual(["kept", "killed", "permanent"]);
  const renewing = setInterval(() => void registry.renew("kept"), 200);
  try {
    await expect.poll(ids).toEqual(["kept", "permanent"]);
  } finally {
    clearInterval(renewing);
  }
  await expect.poll(ids).toEqual(["permanent"]);
  await expect(registry.renew("killed")).rejects.toMatchObject({ init: { reason: "INSTANCE_NOT_FOUND" } });
  expect(await registry.renew("permanent")).toBeUndefined();
});

test("after a restart of the server, instances have their full time to renew", async () => {
  const database = await openTestDatabase();
  try {
    const before = await openRegistry(database);
    await before.register(described({ name: "w" }), instance({ id: "a", endpoint: "localhost:1" }));
    await before.close();
    // As if the server had been away for longer than the lease.
    await database.kysely
      .updateTable("registry_leases")
      .set({ expires_at: new Date(0) })
      .execute();

    const after = await openRegistry(database);
    expect(after.resolveTool("w.GetForecast", {}).instances).toHaveLength(1);
    const expiresAt = async () =>
      (
        await database.kysely.selectFrom("registry_leases").select("expires_at").executeTakeFirst()
      )?.expires_at.getTime();
    await expect.poll(expiresAt).toBeGreaterThan(Date.now() + 20_000);
    expect(await after.renew("a")).toBe(30_000);
    await after.close();
  } finally {
    await database.close();
  }
});

test("two replicas see each other's changes, and one of them keeps house", async () => {
  const [one, two] = [await emptyRegistry(shared), await openRegistry(shared)];
  await one.register(
    described({ name: "w" }),
    instance({ id: "a", endpoint: "localhost:1", leaseTtl: { seconds: 3n } }),
  );
  await expect.poll(() => two.counts().services).toBe(1);
  expect(await two.renew("a")).toBe(3_000);
  await two.register(described({ name: "v" }), instance({ id: "b", endpoint: "localhost:2" }));
  // A renewal through a replica that has not heard of the instance yet works too.
  expect(await one.renew("b")).toBe(30_000);
  await one.close();
  await expect.poll(() => two.listServices(all).items.map(({ name }) => name)).toEqual(["v"]);
});

test("what is registered survives a restart", async () => {
  const first = await emptyRegistry(shared);
  const { service: before } = await first.register(
    described({ name: "w" }),
    instance({ endpoint: "localhost:1" }),
  );
  await first.close();
  const second = await openRegistry(shared);
  expect(second.getService({ name: "w", environment: "", version: "" })).toEqual(before);
  expect((await second.resolveTool("w.GetForecast", {}).definition()).bytes.length).toBeGreaterThan(0);
});

test("services that are known when the server starts are connected to before the first call", async () => {
  const sockets = new Set<Socket>();
  const backend = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => backend.listen(0, "127.0.0.1", resolve));
  const address = backend.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  const first = await emptyRegistry(shared);
  await first.register(described({ name: "w" }), instance({ endpoint: `127.0.0.1:${port}` }));
  await first.register(described({ name: "nobody" }), instance({ endpoint: "127.0.0.1:1" }));
  await first.close();
  expect(sockets.size).toBe(0);
  await openRegistry(shared);
  // Before the registry closes, which would wait for an answer on the connection until it gives up.
  onTestFinished(() => {
    backend.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  });
  await expect.poll(() => sockets.size).toBe(1);
});

test("the server's own services are tools while it runs", async () => {
  const watching = await emptyRegistry(shared);
  const registry = await openRegistry(shared);
  const local = {
    version: "1.0.0",
    endpoint: "http://127.0.0.1:7400",
    descriptors: toBinary(FileDescriptorSetSchema, weatherDescriptors()),
  };
  await registry.registerLocal(local);
  await watching.registerLocal({ ...local, endpoint: "http://127.0.0.1:7401" });
  for (const { endpoint, replica } of [
    { endpoint: "http://127.0.0.1:7400", replica: registry },
    { endpoint: "http://127.0.0.1:7401", replica: watching },
  ]) {
    await expect
      .poll(() => replica.getService({ ...local, name: "toolplane", environment: "" }).instances)
      .toHaveLength(2);
    // Each calls itself, not the other.
    const { instances } = replica.resolveTool("toolplane.GetForecast", {});
    expect(instances.map((each) => each.target().endpoint)).toEqual([endpoint]);
  }
  // What can be said about their health is said, and is no change.
  const { revision } = watching.getService({ ...local, name: "toolplane", environment: "" });
  const checks = await watching.checkHealth(undefined, new AbortController().signal);
  expect(checks.map(({ message }) => message).sort()).toEqual([
    "Not checked, as its service wants it",
    "This process",
  ]);
  expect(watching.getService({ ...local, name: "toolplane", environment: "" }).revision).toBe(revision);
  await registry.close();
  await expect
    .poll(() => watching.getService({ ...local, name: "toolplane", environment: "" }).instances)
    .toHaveLength(1);
});

test("changed schemas are reported, also when the service was gone in between", async () => {
  const registry = await emptyRegistry(shared);
  const register = (fields: string[], methods = ["GetForecast"]) =>
    registry.register(
      described({ name: "drift" }, weatherDescriptors(methods, fields)),
      instance({ endpoint: "localhost:1" }),
    );
  const { instanceId } = await register(["city", "country"]);
  expect((await register(["city", "country"])).changes).toEqual([]);
  await registry.deregister({ instanceId });
  const { changes } = await register(["city"], ["GetForecast", "ListAlerts"]);
  expect(changes).toMatchObject([
    { tool: "drift.acme.weather.v1.WeatherService.GetForecast", path: "input.country", breaking: true },
    { tool: "drift.acme.weather.v1.WeatherService.ListAlerts", path: "", breaking: false },
  ]);
});

test("a server that comes back with other tools is noticed by itself", async () => {
  const registry = await emptyRegistry(shared, { refreshIntervalMs: 100 });
  const server = await startServer({ routes: (router) => router.service(SampleService, {}) });
  await registry.register(service({ name: "sample" }), instance({ endpoint: server.url }));
  expect(registry.counts().tools).toBe(7);
  await server.close();
  await startServer({ listen: `127.0.0.1:${server.address.port}` });
  await expect.poll(() => registry.counts().tools).toBe(11);
});
