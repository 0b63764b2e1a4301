import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { PurgeCacheRequest } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { MetricType, StatsSchema } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import {
  BreakerSchema,
  BreakerScope,
  BreakerState,
  CacheSchema,
  LimitKind,
} from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BundledCli, bundleCli, type RunOptions } from "../testing/bundled-cli.ts";
import { type StubServer, startStubServer } from "../testing/stub-server.ts";
import { ExitCode } from "./exit-code.ts";

const MINUTE = 60_000;

const open = create(BreakerSchema, {
  name: "instance/weather/default/1.2.0/weather-1",
  scope: BreakerScope.INSTANCE,
  service: "weather",
  state: BreakerState.OPEN,
  stateTime: timestampFromMs(0),
  retryTime: timestampFromMs(0),
  consecutiveFailures: 3n,
  windowCalls: 1_200n,
  windowFailures: 40n,
  rejected: 7n,
  timesOpened: 2n,
  lastFailure: "unavailable: connection\u001b[2J refused",
});

const closed = create(BreakerSchema, {
  name: "service/weather/default/1.2.0",
  service: "weather",
  state: BreakerState.CLOSED,
});

const stats = create(StatsSchema, {
  interval: durationFromMs(2_000),
  inbound: { perSecond: 120.25, successRate: 0.9996, inFlight: 3n, latencyP50: durationFromMs(2) },
  outbound: { perSecond: 40, successRate: 0.5, latencyP99: durationFromMs(250), retries: 5n },
  services: Array.from({ length: 40 }, (_, n) => ({
    service: `service-${n}`,
    version: "1.0.0",
    calls: { perSecond: 1, successRate: 1 },
  })),
  openBreakers: 1n,
  shared: 12n,
  cacheHitRate: 0.25,
  connections: 4n,
  connectionReuse: 0.99,
  residentBytes: 150n * 1024n * 1024n,
});

let cli: BundledCli;
let server: StubServer;
let purged: PurgeCacheRequest[] = [];

beforeAll(async () => {
  cli = await bundleCli();
  server = await startStubServer(
    {},
    {},
    {
      listBreakers: ({ service, states, pageToken }) => ({
        breakers: (pageToken === "" ? [open] : [closed]).filter(
          (breaker) =>
            (service === "" || breaker.service === service) &&
            (states.length === 0 || states.includes(breaker.state)),
        ),
        ejections: [
          {
            instanceId: "weather-2",
            service: "weather",
            version: "1.2.0",
            reason: "5 failures in a row",
            ejectTime: timestampFromMs(0),
            returnTime: timestampFromMs(Date.now() + 60 * MINUTE),
            ejections: 1,
          },
        ],
        nextPageToken: pageToken === "" ? "more" : "",
      }),
      resetBreaker({ name }) {
        if (name === "weather-2") return {};
        if (name !== open.name) {
          throw new ConnectError(`breaker "${name}" does not exist: there is ${open.name}`, Code.NotFound);
        }
        return { breaker: { ...open, state: BreakerState.CLOSED } };
      },
      isolateBreaker: ({ name }) => ({ breaker: { ...closed, name, state: BreakerState.ISOLATED } }),
      listLimits: ({ level, pageSize }) => ({
        limits: [
          {
            level: level || "caller",
            key: `key:ci of ${pageSize}`,
            kind: LimitKind.RATE,
            limit: 600,
            period: durationFromMs(MINUTE),
            burst: 20,
            remaining: 0.4,
            allowed: 12_345n,
            refused: 6n,
            store: "memory",
          },
          {
            level: "tool",
            key: "weather.GetForecast",
            kind: LimitKind.ADAPTIVE_RATE,
            limit: 12.34,
            remaining: 3,
            store: "memory",
          },
          { level: "concurrency", key: "server", kind: LimitKind.CONCURRENCY, limit: 100, remaining: 98 },
        ],
      }),
      listCaches: () => ({
        caches: [
          create(CacheSchema, {
            name: "answers",
            entries: 2n,
            bytes: 1_536n,
            maxBytes: 100n * 1024n * 1024n,
            memoryHits: 3n,
            misses: 1n,
            hitRate: 0.75,
            tokensSaved: 1_200n,
            costSavedUsd: 0.1,
          }),
        ],
        deduplications: [
          { name: "tools", inFlight: 1n, maxInFlight: 1_000n, led: 1n, joined: 99n, shareRate: 0.99 },
        ],
      }),
      purgeCache(request) {
        purged.push(request);
        return { purged: 1n };
      },
      listPools: ({ origin }) => ({
        connections:
          origin === "http://nowhere"
            ? []
            : [
                {
                  origin: "http://127.0.0.1:9000",
                  protocol: "h2",
                  state: "open",
                  age: durationFromMs(90_000),
                },
              ],
        requests: 1_000n,
        reused: 999n,
        opened: 2n,
        closures: [{ reason: "idle", count: 1n }, { reason: "age" }],
        meanWait: durationFromMs(0),
        maxWait: durationFromMs(3),
      }),
      getRuntime: () => ({
        version: "0.1.0",
        nodeVersion: "v24.0.0",
        startTime: timestampFromMs(0),
        eventLoop: {
          delayP99: durationFromMs(12),
          utilization: 0.42,
          slowCallbackCount: 1n,
          slowCallbacks: [{ duration: durationFromMs(180), methods: ["a.B/C", "a.B/D"] }],
        },
        memory: {
          heapUsedBytes: 50n * 1024n * 1024n,
          growthBytesPerHour: -2_048,
          leakSuspects: [{ name: "streams a.B/C", size: 12, growthPerHour: 48, evidence: "has not shrunk" }],
        },
        streams: [
          { method: "a.B/C", open: 2n, stalled: 1n, longestStall: durationFromMs(1_500), messages: 5n },
        ],
        batchWriters: [{ name: "audit", pending: 1n, maxPending: 10_000n, written: 500n, batches: 5n }],
      }),
      getMetrics: ({ namePrefixes }) => ({
        families: [
          {
            name: "toolplane_calls_total",
            type: MetricType.COUNTER,
            samples: [
              { name: "toolplane_calls_total", labels: { service: "weather", code: "ok" }, value: 12_000 },
            ],
          },
          {
            name: "toolplane_call_duration_seconds",
            type: MetricType.HISTOGRAM,
            samples: [
              { name: "toolplane_call_duration_seconds_bucket", labels: { le: "1" }, value: 3 },
              { name: "toolplane_call_duration_seconds_sum", value: 0.0421 },
            ],
          },
        ].filter(({ name }) => namePrefixes.every((prefix) => name.startsWith(prefix))),
      }),
      async *watchStats(_, { signal }) {
        yield { stats };
        yield { stats };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    },
  );
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await cli[Symbol.asyncDispose]();
});

const run = (args: readonly string[], options: RunOptions = {}) =>
  cli.run(args, { url: server.url, ...options });

describe("breakers", () => {
  it("are a table of all pages, with the ejected instances below", async () => {
    const { code, stdout } = await run(["breakers"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^BREAKER +STATE +SINCE +RETRY +IN A ROW +FAILED +SLOW +REFUSED +OPENED +LAST FAILURE$/m,
    );
    expect(stdout).toMatch(
      /^instance\/weather\S+ +✗ open +\d+d ago +now +3 +40\/1,200 +0 +7 +2 +unavailable/m,
    );
    expect(stdout).toMatch(/^service\/weather\S+ +● closed/m);
    expect(stdout).toMatch(
      /^Ejected instances\n.*\nweather-2 +weather +1\.2\.0 +\d+d ago +in \d\dm +1 +5 failures/m,
    );
    // What a backend says must not command the terminal.
    expect(stdout).not.toContain("\u001b");
  });

  it("can be asked for by service and state, in JSON", async () => {
    const { stdout } = await run(["breakers", "list", "weather", "--state", "open", "--json"]);
    const { breakers, ejections } = JSON.parse(stdout);
    expect(breakers).toMatchObject([{ name: open.name, state: "BREAKER_STATE_OPEN", windowCalls: "1200" }]);
    expect(ejections).toHaveLength(1);
    expect((await run(["breakers", "list", "--state", "broken"])).code).toBe(ExitCode.usage);
  });

  it("say when there are more than were asked for", async () => {
    const { stdout, stderr } = await run(["breakers", "--limit", "1"]);
    expect(stdout).not.toContain("closed");
    expect(stderr).toContain("There are more; --limit 0 lists all.");
  });

  it("are reset and isolated by name", async () => {
    expect((await run(["breakers", "reset", open.name])).stdout).toBe(`✓ Reset ${open.name}  ● closed\n`);
    expect((await run(["breakers", "reset", "weather-2"])).stdout).toBe("✓ Reset weather-2\n");
    const isolated = await run(["breakers", "isolate", closed.name]);
    expect(isolated.stdout).toBe(`✓ Isolated ${closed.name}  ■ isolated\n`);
    expect(isolated.stderr).toContain(`toolplane breakers reset ${closed.name}`);
  });

  it("that do not exist are named together with those that do", async () => {
    const { code, stderr } = await run(["breakers", "reset", "nope"]);
    expect(code).toBe(ExitCode.notFound);
    expect(stderr).toContain(`there is ${open.name}`);
  });
});

describe("limits", () => {
  it("say what is limited, what is left and what was refused", async () => {
    const { stdout } = await run(["limits", "--limit", "5"]);
    expect(stdout).toMatch(/^caller +key:ci of 5 +600 in 1m, 20 at once +0\.4 +0 +12,345 +6 +memory$/m);
    expect(stdout).toMatch(/^tool +weather\.GetForecast +12\.3 a second, adaptive +3/m);
    expect(stdout).toMatch(/^concurrency +server +100 at once +98/m);
  });

  it("can be asked for by level, in JSON", async () => {
    const { stdout } = await run(["limits", "service", "--json"]);
    expect(JSON.parse(stdout).limits[0]).toMatchObject({ level: "service", kind: "LIMIT_KIND_RATE" });
  });
});

describe("caches", () => {
  it("show their size, their hits and what they have saved", async () => {
    const { stdout } = await run(["caches"]);
    expect(stdout).toMatch(/^answers +2 +1\.5 KiB +100 MiB +75 % .* 1,200 tokens, \$0\.10$/m);
    expect(stdout).toMatch(/^Shared calls\n.*\ntools +1\/1,000 +1 +99 +99 %/m);
  });

  it("are purged as a whole, or of one tool", async () => {
    purged = [];
    expect((await run(["caches", "purge"])).stdout).toBe("✓ Dropped 1 answer\n");
    await run(["caches", "purge", "answers", "--tool", "weather.GetForecast"]);
    expect(purged).toMatchObject([
      { name: "", tool: "" },
      { name: "answers", tool: "weather.GetForecast" },
    ]);
  });
});

describe("pools", () => {
  it("show connections, and how often they were used again", async () => {
    const { stdout } = await run(["pools"]);
    expect(stdout).toMatch(/^http:\/\/127\.0\.0\.1:9000 +HTTP\/2 +open +1m 30s/m);
    expect(stdout).toMatch(/Used again +99\.9 %/);
    expect(stdout).toMatch(/Closed +1 idle$/m);
  });

  it("say when there is no connection to an origin", async () => {
    const { stderr, stdout } = await run(["pools", "http://nowhere"]);
    expect(stderr).toBe("No connection to http://nowhere is open.\n");
    expect(stdout).toMatch(/Requests +1,000/);
  });
});

describe("runtime", () => {
  it("shows event loop, memory, streams and writers", async () => {
    const { stdout } = await run(["runtime"]);
    expect(stdout).toMatch(/Version +0\.1\.0 on Node v24\.0\.0/);
    expect(stdout).toMatch(/Busy +42 %/);
    expect(stdout).toMatch(/never +180 ms +a\.B\/C, a\.B\/D/);
    expect(stdout).toMatch(/Growth +-2 KiB an hour/);
    expect(stdout).toMatch(/streams a\.B\/C +12 +\+48 +has not shrunk/);
    expect(stdout).toMatch(/a\.B\/C +2 +1 +1\.5 s +5/);
    expect(stdout).toMatch(/audit +1\/10,000 +500 +5 +0 +never/);
  });
});

describe("metrics", () => {
  it("are a table without the buckets of histograms", async () => {
    const { stdout } = await run(["metrics"]);
    expect(stdout).toMatch(/^toolplane_calls_total +12,000 +service=weather code=ok$/m);
    expect(stdout).toMatch(/^toolplane_call_duration_seconds_sum +0\.0421$/m);
    expect(stdout).not.toContain("_bucket");
  });

  it("are complete in JSON, and can be asked for by prefix", async () => {
    const { stdout } = await run(["metrics", "toolplane_call_", "--json"]);
    const { families } = JSON.parse(stdout);
    expect(families).toHaveLength(1);
    expect(families[0]).toMatchObject({
      type: "METRIC_TYPE_HISTOGRAM",
      samples: [{ labels: { le: "1" } }, {}],
    });
    expect((await run(["metrics", "nope"])).stderr).toBe("No metric matches.\n");
  });
});

describe("stats", () => {
  it("show one interval as a table", async () => {
    const { code, stdout } = await run(["stats", "--interval", "250ms"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^to the server +120\.3 +3 +99\.9 % +2 ms/m);
    expect(stdout).toMatch(/^to tools +40 +0 +50 % .*250 ms +5$/m);
    expect(stdout).toMatch(/^ *service-39 1\.0\.0 +1 +0 +100 %/m);
    expect(stdout).toContain("1 breaker open, 0 instances ejected, 0 calls limited, 12 shared");
    expect(stdout).toContain("25 % from caches, 4 connections, 99 % used again");
    expect(stdout).toContain("memory 150 MiB");
  });

  it.each([
    ["--json", /^\{"interval":"2s".*"perSecond":120\.25/],
    [
      "--no-color",
      /^\d\d:\d\d:\d\d {2}server 120\.3\/s, 99\.9 % succeeded, p99 .*; tools 40\/s, 50 % succeeded/,
    ],
  ])(
    "print one interval a line into a pipe until they are interrupted, with %s",
    async (option, expected) => {
      const child = cli.start(["stats", "--watch", option], { url: server.url });
      const lines: string[] = [];
      for await (const line of createInterface({ input: child.stdout })) {
        lines.push(line);
        if (lines.length === 2) child.kill("SIGINT");
      }
      expect(lines).toEqual([expect.stringMatching(expected), expect.stringMatching(expected)]);
      expect(child.exitCode ?? (await once(child, "close"))[0]).toBe(ExitCode.interrupted);
    },
  );

  it("end after --timeout when none come", async () => {
    const silent = createServer(() => {});
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo; // A TCP server has no other kind of address.
    const { code } = await run(["stats", "--interval", "250ms", "--timeout", "100ms"], {
      url: `http://127.0.0.1:${port}`,
    });
    silent.closeAllConnections();
    silent.close();
    expect(code).toBe(ExitCode.timeout);
  });

  it("refuse an interval that is none", async () => {
    const { code, stderr } = await run(["stats", "--interval", "often"]);
    expect(code).toBe(ExitCode.usage);
    expect(stderr).toContain('--interval: "often" is not a length of time');
  });
});

describe("completion", () => {
  it.each([
    [["breakers", "r"], ["reset"]],
    [["breakers", "reset", "ins"], [open.name]],
    [["breakers", "isolate", "wea"], ["weather-2"]],
    [["breakers", "list", "--state", "h"], ["half-open"]],
    [["caches", "purge", ""], ["answers"]],
    [["stats", "--w"], ["--watch"]],
  ])("completes %j to %j", async (words, expected) => {
    const { stdout } = await run(["__complete", "--", ...words]);
    expect(
      stdout
        .split("\n")
        .filter(Boolean)
        .map((line) => line.split("\t")[0]),
    ).toEqual(expected);
  });
});
