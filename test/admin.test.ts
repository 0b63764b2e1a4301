import { randomUUID } from "node:crypto";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { createLogger } from "@toolplane/framework";
import { Code as RpcCode } from "@toolplane/gen/google/rpc/code_pb.js";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { BreakerScope, BreakerState, LimitKind } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { parseExposition } from "../server/admin/test-support/parse-exposition.ts";
import { clientsOf, startFaultInstances } from "./support/fault-instances.ts";
import { startTestApp, type TestApp } from "./support/test-app.ts";

const CONFIG = `
outbound:
  retry: { attempts: 1 }
  cache: { durable: true }
  tools:
    - { tool: "kept*", cache_ttl: 60s }
    - { tool: "unfit.*", result_json: '{"nonsense": 1}' }
    - { tool: "rated.*", rate_limit: { requests: 2, period: 3600s, burst: 2 }, max_concurrency: 3, unshared: true }
    - { tool: "paced.*", adaptive_rate: { initial: 20, min: 5, max: 50 } }
`;

let app: TestApp;
let clients: ReturnType<typeof clientsOf>;
/** What the server has logged, without its lines about single calls. */
const log: unknown[] = [];

beforeAll(async () => {
  const logger = createLogger({
    format: "json",
    destination: {
      write(line) {
        const entry = JSON.parse(line);
        if (entry.msg !== "call") {
          log.push(entry);
        }
      },
    },
  });
  app = await startTestApp({ config: CONFIG, logger });
  clients = clientsOf(app);
});

afterAll(() => app?.close());

const start = (service: string, count = 1) =>
  startFaultInstances({ registry: clients.registry, service, count });

const read = (service: string, text = "x") =>
  clients.tools.callTool({
    call: { tool: `${service}.Read`, input: { case: "arguments", value: { text } } },
  });

async function failure(work: Promise<unknown>): Promise<ConnectError> {
  return await work.then(
    () => expect.unreachable("it did not fail"),
    (error: unknown) => ConnectError.from(error),
  );
}

async function metrics(url = app.url, headers: Record<string, string> = {}) {
  const response = await fetch(`${url}/metrics`, { headers });
  expect(response.status).toBe(200);
  return parseExposition(await response.text(), "prometheus");
}

async function sample(family: string, labels: string): Promise<number | undefined> {
  return (await metrics()).get(family)?.samples.get(`${family}${labels}`);
}

test("breakers are seen to open, are reset and isolated, and calls obey at once", async () => {
  const instances = await start("broken");
  await read("broken");
  instances.fail(0, { errorRate: 1, errorCode: RpcCode.INTERNAL });
  for (let call = 0; call < 3; call++) {
    expect(await failure(read("broken"))).toMatchObject({ code: Code.Internal });
  }
  const refused = await failure(read("broken"));
  expect(refused.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "CIRCUIT_OPEN" }]);
  const { breakers } = await clients.admin.listBreakers({ service: "broken", states: [BreakerState.OPEN] });
  const scopes = breakers.map(({ scope }) => scope);
  expect(scopes).toContain(BreakerScope.METHOD);
  for (const breaker of breakers) {
    expect(breaker).toMatchObject({
      service: "broken",
      environment: "default",
      version: "1.0.0",
      consecutiveFailures: 3n,
      windowCalls: 4n,
      windowFailures: 3n,
      timesOpened: 1n,
    });
    expect(breaker.lastFailure).not.toBe("");
    expect.assert(breaker.stateTime !== undefined && breaker.retryTime !== undefined);
    expect(timestampMs(breaker.retryTime) - timestampMs(breaker.stateTime)).toBeCloseTo(30_000, -2);
  }
  expect(await sample("toolplane_breakers", '{scope="method",state="open"}')).toBe(1);
  expect(await sample("toolplane_breaker_transitions_total", '{to="opened"}')).toBe(breakers.length);

  instances.fail(0, {});
  for (const { name } of breakers) {
    expect((await clients.admin.resetBreaker({ name })).breaker?.state).toBe(BreakerState.CLOSED);
  }
  await read("broken");

  const name = "service/broken/default/1.0.0";
  expect((await clients.admin.isolateBreaker({ name })).breaker?.state).toBe(BreakerState.ISOLATED);
  expect(await failure(read("broken"))).toMatchObject({
    code: Code.Unavailable,
    rawMessage: expect.stringContaining("an operator has isolated service broken/default/1.0.0"),
  });
  await clients.admin.resetBreaker({ name });
  await read("broken");
  const method = breakers.find(({ scope }) => scope === BreakerScope.METHOD)?.name;
  expect(log).toEqual(
    expect.arrayContaining([
      expect.objectContaining({
        level: "warn",
        breaker: method,
        cause: "consecutive-failures",
        openMs: 30_000,
      }),
      expect.objectContaining({ level: "info", breaker: method, by: "reset" }),
      expect.objectContaining({ level: "warn", breaker: name, reason: "an operator asked for it" }),
    ]),
  );
  expect(await failure(clients.admin.resetBreaker({ name: "service/absent/default/1.0.0" }))).toMatchObject({
    code: Code.NotFound,
  });
});

test("what befalls instances is in the log", async () => {
  const instances = await start("unwell", 3);
  instances.fail(1, { errorRate: 1 });
  const [, instance] = instances.ids;
  const logged = () => log.filter((entry) => (entry as { instance?: string }).instance === instance);
  await expect
    .poll(async () => {
      await Promise.allSettled(Array.from({ length: 10 }, () => read("unwell", randomUUID())));
      return logged();
    })
    .toContainEqual(
      expect.objectContaining({
        level: "warn",
        tool: "method/unwell/default/1.0.0/unwell.examples.faults.v1.FaultService.Read",
        reason: "consecutive-failures",
        forMs: 30_000,
      }),
    );
  instances.fail(1, {});
  expect(instance).toBeDefined();
  await clients.admin.resetBreaker({ name: instance ?? "" });
  expect(logged()).toContainEqual(expect.objectContaining({ level: "info", by: "reset" }));
});

test("a fallback that does not fit its tool is said to be one, once", async () => {
  const instances = await start("unfit");
  instances.fail(0, { errorRate: 1, errorCode: RpcCode.INTERNAL });
  for (const text of ["one", "another"]) {
    expect(await failure(read("unfit", text))).toMatchObject({ code: Code.Internal });
  }
  expect(log.filter((entry) => (entry as { policy?: string }).policy === "unfit.*")).toMatchObject([
    { level: "warn", tool: "unfit.examples.faults.v1.FaultService.Read" },
  ]);
});

test("what is registered can be isolated before it was called, and nothing else can", async () => {
  await start("quiet");
  const { service } = await clients.registry.getService({ service: { name: "quiet" } });
  const { tool } = await clients.registry.getTool({ name: "quiet.Read" });
  const place = "quiet/default/1.0.0";
  const names = [
    `service/${place}`,
    `method/${place}/${tool?.name ?? ""}`,
    `instance/${place}/${service?.instances[0]?.id ?? ""}`,
  ];
  for (const name of names) {
    expect((await clients.admin.isolateBreaker({ name })).breaker?.name).toBe(name);
    await clients.admin.resetBreaker({ name });
  }
  const { breakers: before } = await clients.admin.listBreakers({ pageSize: 1_000 });
  for (const name of [
    "service/quiet/default/1.0.1",
    "service/quite/default/1.0.0",
    "service/quiet/defualt/1.0.0",
    `method/${place}/Absent`,
    `method/${place}/toolplane.ListServices`,
    `instance/${place}/absent`,
  ]) {
    expect(await failure(clients.admin.isolateBreaker({ name })), name).toMatchObject({
      code: Code.NotFound,
    });
  }
  expect((await clients.admin.listBreakers({ pageSize: 1_000 })).breakers).toHaveLength(before.length);
});

test("caches tell their hits and what they hold, and are purged", async () => {
  await start("kept");
  for (let call = 0; call < 4; call++) {
    await read("kept");
  }
  const { caches } = await clients.admin.listCaches({});
  expect(caches).toMatchObject([
    {
      name: "tools",
      entries: 1n,
      maxBytes: 104_857_600n,
      memoryHits: 3n,
      durableHits: 0n,
      staleHits: 0n,
      misses: 1n,
      hitRate: 0.75,
      evictions: 0n,
      tampered: 0n,
      durable: true,
    },
    { name: "answers", entries: 0n, durable: true },
  ]);
  expect(caches[0]?.bytes).toBeGreaterThan(0n);
  expect(await sample("toolplane_cache_requests_total", '{cache="tools",result="memory"}')).toBe(3);

  // The answer is written in the background, by a writer that can be watched.
  const writer = async () =>
    (await clients.admin.getRuntime({})).batchWriters.find(({ name }) => name === "tools cache");
  await expect.poll(writer).toMatchObject({ pending: 0n, written: 1n, batches: 1n, failures: 0n });

  expect((await clients.admin.purgeCache({ name: "tools", tool: "kept.Write" })).purged).toBe(0n);
  expect((await clients.admin.purgeCache({ name: "tools", tool: "kept.Read" })).purged).toBeGreaterThan(0n);
  expect((await clients.admin.listCaches({})).caches[0]).toMatchObject({ entries: 0n, bytes: 0n });
  expect(await failure(clients.admin.purgeCache({ name: "absent" }))).toMatchObject({ code: Code.NotFound });
});

test("calls that share one are counted", async () => {
  const instances = await start("shared");
  const before = (await clients.admin.listCaches({})).deduplications[0];
  instances.fail(0, { latency: { nanos: 200_000_000 } });
  await Promise.all(Array.from({ length: 20 }, () => read("shared")));
  const { deduplications } = await clients.admin.listCaches({});
  expect(deduplications).toMatchObject([
    { name: "tools", inFlight: 0n, maxInFlight: 1_000n, joined: (before?.joined ?? 0n) + 19n },
    { name: "tools, kept", inFlight: 0n },
  ]);
  expect(deduplications[0]?.led).toBe((before?.led ?? 0n) + 1n);
  const place = 'service="shared",environment="default",version="1.0.0"';
  expect(await sample("toolplane_call_results_total", `{${place},source="backend"}`)).toBe(1);
  expect(await sample("toolplane_call_results_total", `{${place},source="shared"}`)).toBe(19);
});

test("calls that share one whose answer is kept are counted, too", async () => {
  const instances = await start("kept-together");
  const joined = '{name="tools, kept",result="joined"}';
  const before = (await sample("toolplane_deduplication_calls_total", joined)) ?? 0;
  instances.fail(0, { latency: { nanos: 200_000_000 } });
  await Promise.all(Array.from({ length: 20 }, () => read("kept-together")));
  expect(await sample("toolplane_deduplication_calls_total", joined)).toBe(before + 19);
});

test("why calls were not tried again is counted", async () => {
  const instances = await start("hopeless");
  instances.fail(0, { errorRate: 1 });
  const notRepeatable = '{reason="not-repeatable"}';
  const attempts = '{reason="attempts"}';
  const before = [
    await sample("toolplane_call_give_ups_total", notRepeatable),
    await sample("toolplane_call_give_ups_total", attempts),
  ];
  await failure(read("hopeless"));
  const call = { tool: "hopeless.Write", input: { case: "arguments", value: { text: "x" } } } as const;
  await failure(clients.tools.callTool({ call }));
  expect(await sample("toolplane_call_give_ups_total", attempts)).toBe((before[1] ?? 0) + 1);
  expect(await sample("toolplane_call_give_ups_total", notRepeatable)).toBe((before[0] ?? 0) + 1);
  expect(await sample("toolplane_call_hedges_denied_total", "{}")).toBe(0);
});

test("what came of request ids is counted", async () => {
  await start("once");
  const call = {
    tool: "once.Write",
    requestId: randomUUID(),
    input: { case: "arguments", value: { text: "x" } } as const,
  };
  await clients.tools.callTool({ call });
  await clients.tools.callTool({ call });
  for (const result of ["begun", "recorded", "replayed"]) {
    expect(await sample("toolplane_request_ids_total", `{result="${result}"}`)).toBe(1);
  }
  const place = 'service="once",environment="default",version="1.0.0"';
  expect(await sample("toolplane_call_results_total", `{${place},source="request_id"}`)).toBe(1);
});

test("limits of tools tell what is left of them", async () => {
  await start("rated");
  await start("paced");
  await read("paced");
  await read("rated");
  await read("rated");
  expect(await failure(read("rated"))).toMatchObject({ code: Code.ResourceExhausted });
  const { limits } = await clients.admin.listLimits({ level: "tool" });
  expect(limits.find(({ kind }) => kind === LimitKind.RATE)).toMatchObject({
    key: "rated.*",
    limit: 2,
    burst: 2,
    remaining: 0,
    allowed: 2n,
    refused: 1n,
  });
  expect(limits.find(({ kind }) => kind === LimitKind.CONCURRENCY)).toMatchObject({
    key: "rated.*",
    limit: 3,
    remaining: 3,
    allowed: 2n,
    waiting: 0n,
  });
  const adaptive = limits.find(({ kind }) => kind === LimitKind.ADAPTIVE_RATE);
  expect(adaptive).toMatchObject({ key: "paced.*", allowed: 1n, refused: 0n });
  expect(adaptive?.limit).toBeGreaterThanOrEqual(20);
  expect(adaptive?.limit).toBeLessThan(22);
});

test("connections tell whom they lead to and how often they were used again", async () => {
  await start("pooled");
  const before = await clients.admin.listPools({});
  for (let call = 0; call < 20; call++) {
    await read("pooled", `text ${call}`);
  }
  const pools = await clients.admin.listPools({});
  expect(pools.requests - before.requests).toBe(20n);
  expect(pools.reused - before.reused).toBeGreaterThanOrEqual(19n);
  expect(pools.waiting).toBe(0n);
  for (const { origin, protocol, state, age, requests } of pools.connections) {
    expect(origin).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    expect(protocol).toBe("h2");
    expect(state).not.toBe("");
    expect(
      durationMs(age ?? { $typeName: "google.protobuf.Duration", seconds: -1n, nanos: 0 }),
    ).toBeGreaterThanOrEqual(0);
    expect(requests).toBeGreaterThanOrEqual(0n);
  }
});

test("the runtime tells its version, its load, its streams and its writers", async () => {
  const leaving = new AbortController();
  onTestFinished(() => leaving.abort());
  const watching = clients.registry.watchServices({}, { signal: leaving.signal })[Symbol.asyncIterator]();
  await watching.next();
  const runtime = await clients.admin.getRuntime({});
  expect(runtime).toMatchObject({ nodeVersion: process.version });
  expect(runtime.version).toMatch(/^\d+\.\d+\.\d+/);
  expect(timestampMs(runtime.startTime ?? expect.unreachable())).toBeLessThanOrEqual(Date.now());
  expect(runtime.eventLoop?.utilization).toBeGreaterThanOrEqual(0);
  expect(runtime.eventLoop?.utilization).toBeLessThanOrEqual(1);
  const { memory } = runtime;
  expect.assert(memory !== undefined);
  expect(memory.heapUsedBytes).toBeGreaterThan(0n);
  expect(memory.heapUsedBytes).toBeLessThan(memory.heapLimitBytes);
  expect(memory.residentBytes).toBeGreaterThan(memory.heapUsedBytes / 2n);
  expect(runtime.streams).toContainEqual(
    expect.objectContaining({ method: "toolplane.registry.v1.RegistryService/WatchServices" }),
  );
  const writers = runtime.batchWriters.map(({ name }) => name);
  expect(writers).toContain("tools cache");
  // Results of health checks come in through writers of their own.
  expect(writers.length).toBeGreaterThan(1);
  for (const { pending, maxPending, failures } of runtime.batchWriters) {
    expect(pending).toBeLessThanOrEqual(maxPending);
    expect(failures).toBe(0n);
  }
  leaving.abort();
  await watching.next().catch(() => {});
});

test("statistics stream while calls are made", async () => {
  await start("watched");
  const leaving = new AbortController();
  const calling = (async () => {
    for (let call = 0; !leaving.signal.aborted; call++) {
      await read("watched", `text ${call}`);
    }
  })();
  const seen: number[] = [];
  const watch = clients.admin.watchStats({ interval: { nanos: 250_000_000 } }, { signal: leaving.signal });
  await expect(async () => {
    for await (const { stats } of watch) {
      expect.assert(stats?.inbound !== undefined && stats.outbound !== undefined);
      seen.push(stats.outbound.perSecond);
      for (const { successRate, perSecond, latencyP50, latencyP99 } of [stats.inbound, stats.outbound]) {
        expect(successRate).toBeGreaterThanOrEqual(0);
        expect(successRate).toBeLessThanOrEqual(1);
        expect(Number.isFinite(perSecond)).toBe(true);
        expect(durationMs(latencyP50 ?? expect.unreachable())).toBeLessThanOrEqual(
          durationMs(latencyP99 ?? expect.unreachable()),
        );
      }
      expect(stats.residentBytes).toBeGreaterThan(0n);
      expect(stats.connectionReuse).toBeLessThanOrEqual(1);
      if (stats.services.some(({ service, calls }) => service === "watched" && (calls?.perSecond ?? 0) > 0)) {
        leaving.abort();
      }
    }
  }).rejects.toMatchObject({ code: Code.Canceled });
  await calling;
  expect(seen.some((perSecond) => perSecond > 0)).toBe(true);
});

describe("metrics", () => {
  test("are the same over RPC and HTTP, well-formed, and each of them makes sense", async () => {
    const families = await metrics();
    const overRpc = (await clients.admin.getMetrics({})).families;
    expect(new Set(overRpc.map(({ name }) => name))).toEqual(new Set(families.keys()));
    for (const [name, { samples }] of families) {
      for (const [labels, value] of samples) {
        expect(Number.isFinite(value), `${labels} is ${value}`).toBe(true);
        if (!name.startsWith("toolplane_heap_growth")) {
          expect(value, labels).toBeGreaterThanOrEqual(0);
        }
      }
    }
    const calls = families.get("toolplane_calls_total")?.samples;
    expect(
      calls?.get('toolplane_calls_total{service="kept",environment="default",version="1.0.0",code="ok"}'),
    ).toBe(4);
    const only = await clients.admin.getMetrics({ namePrefixes: ["toolplane_pool_"] });
    expect(only.families.every(({ name }) => name.startsWith("toolplane_pool_"))).toBe(true);
  });

  test("ask for credentials where calls do", async () => {
    const operatorKey = "operator-key-for-tests-0123456789abcdef";
    const locked = await startTestApp({
      config: "auth: { required: true }",
      env: { TOOLPLANE_OPERATOR_KEY: operatorKey },
    });
    onTestFinished(() => locked.close());
    const stranger = await fetch(`${locked.url}/metrics`);
    expect(stranger.status).toBe(401);
    expect(stranger.headers.get("www-authenticate")).toContain("Bearer");
    expect(await stranger.json()).toMatchObject({ code: "unauthenticated" });
    expect((await fetch(`${locked.url}/metrics?x=1`)).status).toBe(401);
    const wrong = await fetch(`${locked.url}/metrics`, { headers: { authorization: "Bearer nonsense" } });
    expect(wrong.status).toBe(401);
    const { secret } = await clientsOf(locked, operatorKey).admin.createApiKey({
      name: "prometheus",
      role: Role.READER,
    });
    const families = await metrics(locked.url, { authorization: `Bearer ${secret}` });
    expect(families.has("toolplane_rpcs_total")).toBe(true);
    expect((await fetch(`${locked.url}/healthz`)).status).toBe(200);
    expect((await fetch(`${locked.url}/absent`)).status).toBe(404);
  });
});

test("what operators see and do is there as tools too, except for what is hidden", async () => {
  const { tools } = await clients.registry.listTools({
    filter: { service: "toolplane" },
    pageSize: 1_000,
  });
  const listed = tools
    .map(({ name }) => name)
    .filter((name) => name.includes(AdminService.typeName))
    .map((name) => name.slice(name.lastIndexOf(".") + 1))
    .sort();
  expect(listed).toEqual(
    [
      "GetMetrics",
      "GetRuntime",
      "IsolateBreaker",
      "ListBreakers",
      "ListCaches",
      "ListLimits",
      "ListPools",
      "PurgeCache",
      "ResetBreaker",
    ].sort(),
  );
  const { result } = await clients.tools.callTool({ call: { tool: "toolplane.ListBreakers" } });
  expect(result?.value.case).toBe("json");
});
