import { Code, ConnectError } from "@connectrpc/connect";
import {
  createBatcher,
  createBreakerSet,
  createCoalescer,
  createLimitSet,
  createRateLimiter,
  createResponseCache,
} from "@toolplane/framework/policies";
import { MetricType } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { BreakerScope, BreakerState, LimitKind } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { describe, expect, onTestFinished, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import type { AdminSources, BreakerSnapshot, EjectionSnapshot, PoolSnapshot } from "./admin.ts";
import { parseExposition } from "./test-support/parse-exposition.ts";
import { serveAdmin } from "./test-support/serve-admin.ts";

const MINUTE = 60_000;
const weather = { service: "weather", environment: "default", version: "1.0.0" };
const service = "service/weather/default/1.0.0";
const instance = (n: number) => `instance/weather/default/1.0.0/i-${n}`;

/** Real breakers, one of each state. */
function breakersOfEachState(): NonNullable<AdminSources["breakers"]> {
  const clock = createFakeClock();
  const set = createBreakerSet({ defaults: { clock } });
  const fail = (name: string) => {
    for (let n = 0; n < 3; n++) {
      const permit = set.get(name).tryAcquire();
      expect.assert(permit.allowed);
      permit.record("failure", "connection refused");
    }
  };
  set.get(service).tryAcquire();
  fail(instance(2));
  clock.advance(31_000);
  set.get(instance(2)).tryAcquire();
  fail(instance(1));
  set.get(instance(1)).tryAcquire();
  set.isolate(instance(3));

  const describeBreaker = (name: string): BreakerSnapshot | undefined => {
    const found = set.list().find((each) => each.name === name);
    return found && { ...found, ...weather, scope: name === service ? "service" : "instance" };
  };
  return {
    list: () => set.list().flatMap(({ name }) => describeBreaker(name) ?? []),
    reset: (name) => (set.reset(name) ? describeBreaker(name) : undefined),
    isolate(name) {
      if (!name.startsWith("instance/weather/")) {
        return undefined;
      }
      set.isolate(name);
      return describeBreaker(name);
    },
  };
}

function ejectionsOf(...ids: string[]): NonNullable<AdminSources["ejections"]> {
  const ejected = new Map(
    ids.map((instanceId): [string, EjectionSnapshot] => [
      instanceId,
      {
        instanceId,
        ...weather,
        tool: "weather.Get",
        reason: "slow",
        ejectedAt: 0,
        returnsAt: 1_000,
        ejections: 1,
      },
    ]),
  );
  return {
    list: () => [...ejected.values()],
    total: () => 4,
    restore: (instanceId) => ejected.delete(instanceId),
  };
}

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  return await promise.then(
    () => expect.fail("it succeeded"),
    (error: unknown) => ConnectError.from(error),
  );
}

describe("breakers", () => {
  test("come page by page, those that refuse calls first, with all that is known about them", async () => {
    const { client } = await serveAdmin({ breakers: breakersOfEachState(), ejections: ejectionsOf("i-9") });
    const seen: [string, BreakerState][] = [];
    let pageToken = "";
    do {
      const page = await client.listBreakers({ pageSize: 3, pageToken });
      seen.push(...page.breakers.map(({ name, state }): [string, BreakerState] => [name, state]));
      expect(page.ejections).toMatchObject([{ instanceId: "i-9", reason: "slow" }]);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual([
      [instance(1), BreakerState.OPEN],
      [instance(2), BreakerState.HALF_OPEN],
      [instance(3), BreakerState.ISOLATED],
      [service, BreakerState.CLOSED],
    ]);
    const { breakers } = await client.listBreakers({ states: [BreakerState.OPEN] });
    expect(breakers).toMatchObject([
      {
        scope: BreakerScope.INSTANCE,
        ...weather,
        rejected: 1n,
        timesOpened: 1n,
        consecutiveFailures: 3n,
        lastFailure: "connection refused",
        retryTime: expect.anything(),
      },
    ]);
    expect((await client.listBreakers({ service: "other" })).breakers).toEqual([]);
  });

  test("are reset and isolated; an ejected instance is let back in", async () => {
    const { client } = await serveAdmin({ breakers: breakersOfEachState(), ejections: ejectionsOf("i-9") });
    expect((await client.resetBreaker({ name: instance(1) })).breaker?.state).toBe(BreakerState.CLOSED);
    expect((await client.isolateBreaker({ name: instance(7) })).breaker?.state).toBe(BreakerState.ISOLATED);
    expect((await client.resetBreaker({ name: "i-9" })).breaker).toBeUndefined();
    expect((await client.listBreakers({})).ejections).toEqual([]);
  });

  test("that do not exist are NOT_FOUND, with what is most like them", async () => {
    const { client } = await serveAdmin({ breakers: breakersOfEachState(), ejections: ejectionsOf("i-9") });
    const unknown = await failure(client.resetBreaker({ name: "service/weather/default/2.0.0" }));
    expect(unknown.code).toBe(Code.NotFound);
    expect(unknown.rawMessage).toMatch(
      /^breaker "service\/weather\/default\/2.0.0" does not exist: there are service\/weather\/default\/1.0.0, /,
    );
    expect((await failure(client.isolateBreaker({ name: "nonsense" }))).code).toBe(Code.NotFound);
    const { client: bare } = await serveAdmin();
    expect((await failure(bare.resetBreaker({ name: "x" }))).rawMessage).toContain("there are none");
    expect((await failure(client.listBreakers({ pageToken: "x" }))).code).toBe(Code.InvalidArgument);
  });
});

describe("limits", () => {
  test("come by level, those with the least left first", async () => {
    const clock = createFakeClock();
    const limiter = createRateLimiter({ limit: 100, periodMs: 60_000, burst: 5, clock });
    const set = createLimitSet([{ name: "caller", limiter, keyOf: (key: string) => key }], { clock });
    onTestFinished(() => set.close());
    for (const key of ["ada", "bob", "bob", "bob", "bob", "bob", "bob"]) {
      set.take(key);
    }
    const { client, metrics } = await serveAdmin({
      limits: {
        list: (maxKeys) => [
          { level: "tool", key: "*", kind: "adaptive-rate", limit: 10, remaining: 2, allowed: 3, refused: 0 },
          ...set
            .snapshot(maxKeys)
            .flatMap(({ name, top }) =>
              top.map(({ limit, ...use }) => ({ level: name, kind: "rate" as const, ...use, ...limit })),
            ),
        ],
        totals: () => set.snapshot(0).map(({ name, ...level }) => ({ ...level, level: name })),
      },
    });
    const { limits } = await client.listLimits({});
    expect(limits).toMatchObject([
      { level: "caller", key: "bob", kind: LimitKind.RATE, remaining: 0, allowed: 5n, burst: 5 },
      { level: "caller", key: "ada", remaining: 4, allowed: 1n, period: { seconds: 60n }, store: "memory" },
      { level: "tool", kind: LimitKind.ADAPTIVE_RATE, limit: 10 },
    ]);
    expect((await client.listLimits({ level: "caller", pageSize: 1 })).limits).toMatchObject([
      { key: "bob" },
    ]);
    const families = parseExposition(await (await metrics()).text(), "prometheus");
    const decisions = families.get("toolplane_limit_decisions_total")?.samples;
    expect(decisions?.get('toolplane_limit_decisions_total{level="caller",decision="refused"}')).toBe(1);
    const moving = families.get("toolplane_adaptive_limit")?.samples;
    expect([...(moving?.values() ?? [])]).toEqual([10]);
  });
});

describe("caches and shared calls", () => {
  test("tell what was saved, and are purged", async () => {
    const cache = createResponseCache({ name: "answers" });
    const coalescer = createCoalescer<string>({ maxInFlight: 10 });
    onTestFinished(() => cache.close());
    const load = async () => ({ value: new Uint8Array(10) });
    await cache.getOrLoad("a", load);
    await cache.getOrLoad("a", load);
    const { client } = await serveAdmin({
      caches: {
        list: () => [{ ...cache.stats(), tampered: 0, durable: false }],
        purge: ({ tool }) => cache.purge(tool === undefined ? { kind: "all" } : { kind: "tag", tag: tool }),
      },
      deduplications: () => [{ name: "tools", maxInFlight: 10, ...coalescer.stats() }],
    });
    const { caches, deduplications } = await client.listCaches({});
    expect(caches).toMatchObject([
      { name: "answers", entries: 1n, memoryHits: 1n, misses: 1n, hitRate: 0.5 },
    ]);
    expect(deduplications).toMatchObject([{ name: "tools", maxInFlight: 10n, shareRate: 0 }]);
    expect((await client.purgeCache({ tool: "weather.Get" })).purged).toBe(0n);
    expect((await client.purgeCache({ name: "answers" })).purged).toBe(1n);
    const unknown = await failure(client.purgeCache({ name: "anwsers" }));
    expect([unknown.code, unknown.rawMessage]).toEqual([
      Code.NotFound,
      'cache "anwsers" does not exist: there is answers',
    ]);
  });
});

const pool: PoolSnapshot = {
  connections: [
    { origin: "http://b", age: 5 },
    { origin: "http://a", age: 5 },
    { origin: "http://a", age: 9 },
  ].map(({ origin, age }) => ({
    origin,
    protocol: "h2",
    state: "open",
    ageMs: age * 1_000,
    idleMs: undefined,
    activeRequests: 1,
    requests: 3,
    failures: 0,
  })),
  requests: 9,
  reused: 6,
  opened: 3,
  connectFailures: 1,
  closures: { idle: 2, age: 0 },
  waiting: 0,
  waits: 4,
  meanWaitMs: 0.5,
  maxWaitMs: 2,
};

describe("pools", () => {
  test("list connections by origin and age, the oldest first", async () => {
    const { client } = await serveAdmin({ pool: () => pool });
    const response = await client.listPools({});
    expect(response.connections.map(({ origin, age }) => [origin, age?.seconds])).toEqual([
      ["http://a", 9n],
      ["http://a", 5n],
      ["http://b", 5n],
    ]);
    expect(response).toMatchObject({ requests: 9n, reused: 6n, meanWait: { nanos: 500_000 } });
    expect((await client.listPools({ origin: "http://b" })).connections).toHaveLength(1);
  });
});

describe("the runtime", () => {
  test("tells about the process, its streams and its writers", async () => {
    const batcher = createBatcher<string>({ name: "audit", write: async () => {} });
    onTestFinished(() => batcher.close());
    await Promise.all([batcher.add("row"), batcher.flush()]);
    const { client } = await serveAdmin({ batchWriters: () => [batcher.stats()] });
    const leave = new AbortController();
    const watching = client.watchStats({ interval: { nanos: 250_000_000 } }, { signal: leave.signal });
    const { value } = await watching[Symbol.asyncIterator]().next();
    expect(value?.stats?.inbound?.inFlight).toBe(1n);
    const runtime = await client.getRuntime({});
    expect(runtime).toMatchObject({
      version: "1.2.3",
      nodeVersion: process.version,
      batchWriters: [{ name: "audit", written: 1n, batches: 1n, pending: 0n }],
      streams: [{ method: "toolplane.admin.v1.AdminService/WatchStats", open: 1n, stalled: 0n }],
    });
    expect(runtime.streams[0]?.messages).toBeGreaterThan(0n);
    expect(runtime.memory?.heapUsedBytes).toBeGreaterThan(0n);
    leave.abort();
  });

  test("names the method whose handler held everything up", async () => {
    const { client } = await serveAdmin({
      caches: {
        list() {
          const end = performance.now() + 200;
          while (performance.now() < end);
          return [];
        },
        purge: async () => 0,
      },
    });
    await client.listCaches({});
    await expect
      .poll(async () =>
        (await client.getRuntime({})).eventLoop?.slowCallbacks.flatMap(({ methods }) => methods),
      )
      .toContain("toolplane.admin.v1.AdminService/ListCaches");
  });

  test("ends its streams when the server stops, so that clients go elsewhere", async () => {
    const { client, close } = await serveAdmin();
    const watching = client.watchStats({})[Symbol.asyncIterator]();
    const first = failure(watching.next());
    await expect.poll(async () => (await client.getRuntime({})).streams[0]?.open).toBe(1n);
    await close();
    expect((await first).code).toBe(Code.Unavailable);
  });
});

describe("metrics", () => {
  const everything = (): AdminSources => ({
    breakers: breakersOfEachState(),
    ejections: ejectionsOf("i-9"),
    limits: { list: () => [], totals: () => [{ level: "global", allowed: 5, refused: 1 }] },
    caches: { list: () => [], purge: async () => 0 },
    deduplications: () => [
      {
        name: 'with "quotes"\nand \\',
        inFlight: 1,
        maxInFlight: 5,
        led: 1,
        joined: 9,
        overflowed: 0,
        cancelled: 0,
      },
    ],
    pool: () => pool,
    batchWriters: () => [],
  });

  test.each([
    ["prometheus", "text/plain", "text/plain; version=0.0.4; charset=utf-8"],
    [
      "openmetrics",
      "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5",
      "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ],
  ] as const)("are what the format %s promises", async (format, accept, contentType) => {
    const { admin, client, metrics } = await serveAdmin(everything());
    admin.callStarted({ ...weather, name: "weather.Get" })({ code: "ok", durationMs: 12, attempts: 2 });
    admin.callStarted({ ...weather, name: "weather.Get" });
    admin.breakerChanged({ kind: "opened" });
    await client.listCaches({});
    const response = await metrics({ accept });
    expect(response.headers.get("content-type")).toBe(contentType);
    const families = parseExposition(await response.text(), format);
    const total = (name: string) => (format === "openmetrics" ? name.replace(/_total$/, "") : name);
    const value = (name: string, labels: string) =>
      families.get(total(name))?.samples.get(`${name}{${labels}}`);
    const labels = 'service="weather",environment="default",version="1.0.0"';
    expect(value("toolplane_calls_total", `${labels},code="ok"`)).toBe(1);
    expect(value("toolplane_call_retries_total", labels)).toBe(1);
    expect(value("toolplane_calls_in_flight", labels)).toBe(1);
    expect(
      families
        .get("toolplane_call_duration_seconds")
        ?.samples.get(`toolplane_call_duration_seconds_bucket{${labels},le="0.016"}`),
    ).toBe(1);
    const rpc = 'method="toolplane.admin.v1.AdminService/ListCaches",protocol="grpc"';
    expect(value("toolplane_rpcs_total", `${rpc},code="ok"`)).toBe(1);
    expect(value("toolplane_breakers", 'scope="instance",state="open"')).toBe(1);
    expect(value("toolplane_breaker_transitions_total", 'to="opened"')).toBe(1);
    expect(value("toolplane_pool_closures_total", 'reason="idle"')).toBe(2);
    expect(
      value("toolplane_deduplication_calls_total", 'name="with \\"quotes\\"\\nand \\\\",result="joined"'),
    ).toBe(9);
  });

  test("tell how long was waited, how old connections are, what was shared and what request ids were good for", async () => {
    const writer = createBatcher<string>({ name: "audit", write: async () => {} });
    onTestFinished(() => writer.close());
    const { admin, metrics } = await serveAdmin({
      ...everything(),
      limits: {
        list: () => [
          {
            level: "tool",
            key: "weak.*",
            kind: "adaptive-rate",
            limit: 4,
            remaining: 0,
            allowed: 9,
            refused: 1,
            waits: { count: 3, totalMs: 4_500, maxMs: 2_000 },
          },
          {
            level: "concurrency",
            key: "a",
            kind: "concurrency",
            limit: 9,
            remaining: 9,
            allowed: 0,
            refused: 0,
          },
        ],
        totals: () => [],
      },
      batchWriters: () => [{ ...writer.stats(), written: 8, averageWaitMs: 500, maxWaitMs: 900 }],
      requestIds: () => ({
        begun: 7,
        recorded: 5,
        released: 2,
        replayed: 3,
        waited: 1,
        reused: 4,
        recordingFailed: 6,
        leasesLost: 8,
        inFlight: 9,
      }),
    });
    const end = { code: "ok", durationMs: 1 } as const;
    admin.callStarted({ ...weather, name: "weather.Get" })({ ...end, source: ResultSource.SHARED });
    admin.callStarted({ ...weather, name: "weather.Get" })({ ...end, source: ResultSource.REQUEST_ID });
    admin.callStarted({ ...weather, name: "weather.Get" })({ ...end, code: "unavailable" });
    const families = parseExposition(await (await metrics()).text(), "prometheus");
    const of = (name: string) => Object.fromEntries(families.get(name)?.samples ?? []);
    const tool = '{level="tool",key="weak.*",kind="adaptive-rate"}';
    expect(of("toolplane_limit_waits_total")).toEqual({ [`toolplane_limit_waits_total${tool}`]: 3 });
    expect(of("toolplane_limit_wait_seconds_total")).toEqual({
      [`toolplane_limit_wait_seconds_total${tool}`]: 4.5,
    });
    expect(of("toolplane_limit_longest_wait_seconds")).toEqual({
      [`toolplane_limit_longest_wait_seconds${tool}`]: 2,
    });
    expect(of("toolplane_pool_waits_total")).toEqual({ "toolplane_pool_waits_total{}": 4 });
    expect(of("toolplane_pool_wait_seconds_total")).toEqual({ "toolplane_pool_wait_seconds_total{}": 0.002 });
    expect(of("toolplane_pool_oldest_connection_seconds")).toEqual({
      "toolplane_pool_oldest_connection_seconds{}": 9,
    });
    const audit = '{writer="audit"}';
    expect(of("toolplane_batch_writer_wait_seconds_total")).toEqual({
      [`toolplane_batch_writer_wait_seconds_total${audit}`]: 4,
    });
    expect(of("toolplane_batch_writer_longest_wait_seconds")).toEqual({
      [`toolplane_batch_writer_longest_wait_seconds${audit}`]: 0.9,
    });
    const place = 'service="weather",environment="default",version="1.0.0"';
    expect(of("toolplane_call_results_total")).toEqual({
      [`toolplane_call_results_total{${place},source="shared"}`]: 1,
      [`toolplane_call_results_total{${place},source="request_id"}`]: 1,
    });
    expect(of("toolplane_request_ids_total")).toEqual(
      Object.fromEntries(
        Object.entries({
          begun: 7,
          recorded: 5,
          released: 2,
          replayed: 3,
          waited: 1,
          reused: 4,
          recording_failed: 6,
          lease_lost: 8,
        }).map(([result, count]) => [`toolplane_request_ids_total{result="${result}"}`, count]),
      ),
    );
    expect(of("toolplane_request_ids_in_flight")).toEqual({ "toolplane_request_ids_in_flight{}": 9 });
  });

  test("are the same in GetMetrics, and can be asked for by prefix", async () => {
    const { client, metrics } = await serveAdmin(everything());
    const { families } = await client.getMetrics({});
    const exposed = parseExposition(await (await metrics()).text(), "prometheus");
    expect(families.map(({ name, help }) => [name, help])).toEqual(
      Array.from(exposed, ([name, { help }]) => [name, help]),
    );
    const { families: some } = await client.getMetrics({
      namePrefixes: ["toolplane_rpc_", "toolplane_pool_r"],
    });
    expect(some.map(({ name, type }) => [name, type])).toEqual([
      ["toolplane_pool_requests_total", MetricType.COUNTER],
      ["toolplane_pool_reused_total", MetricType.COUNTER],
      ["toolplane_rpc_duration_seconds", MetricType.HISTOGRAM],
    ]);
    expect(some[2]?.samples.find(({ name }) => name.endsWith("_count"))).toMatchObject({ value: 1 });
  });

  test("are only read", async () => {
    const { url } = await serveAdmin();
    const posted = await fetch(`${url}/metrics`, { method: "POST" });
    expect([posted.status, posted.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
    const head = await fetch(`${url}/metrics`, { method: "HEAD" });
    expect([head.status, Number(head.headers.get("content-length")) > 0, await head.text()]).toEqual([
      200,
      true,
      "",
    ]);
    expect((await fetch(`${url}/metrics/more`)).status).toBe(404);
  });
});

test("a size that only grows is a suspect, until it is not watched any more", async () => {
  const clock = createFakeClock();
  const { admin, client } = await serveAdmin({}, clock);
  let size = 0;
  const forget = admin.watchSize("things", () => size++);
  clock.advance(16 * MINUTE);
  const { memory } = await client.getRuntime({});
  expect(memory?.leakSuspects).toMatchObject([{ name: "things", size: 15 }]);
  forget();
  clock.advance(MINUTE);
  expect((await client.getRuntime({})).memory?.leakSuspects).toEqual([]);
});
