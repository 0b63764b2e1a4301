import { once } from "node:events";
import { createServer as createHttp1 } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { createTransport } from "@connectrpc/connect/protocol-connect";
import { connectNodeAdapter, createConnectTransport } from "@connectrpc/connect-node";
import {
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createLogger } from "../logging.ts";
import { createLimitSet } from "../policies/rate-limit/limit-set.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { rawConnect } from "../test-support/raw-client.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import type { Gate } from "./begin-call.ts";
import { principalKey } from "./call-context.ts";
import { observeCalls } from "./observe-calls.ts";
import { rateLimit, rateLimitGate } from "./rate-limit.ts";
import { type CallLevelsOptions, callLevels } from "./rate-limit-levels.ts";

const minute = 60_000;
const perMinute = (limit: number, burst: number) => ({ limit, periodMs: minute, burst });

function createLimits(options: CallLevelsOptions) {
  const clock = createFakeClock();
  const limits = createLimitSet(callLevels({ ...options, clock }), { clock });
  onTestFinished(() => limits.close());
  return { limits, clock };
}

/** Where limits can stand: both have to say the same. */
const places = {
  "a gate": (limits: ReturnType<typeof createLimits>["limits"]) => ({ gates: [rateLimitGate({ limits })] }),
  "a gate that has to wait for its limits": (limits: ReturnType<typeof createLimits>["limits"]) => ({
    gates: [rateLimitGate({ limits: { take: async (call) => limits.take(call) } })],
  }),
  "an interceptor": (limits: ReturnType<typeof createLimits>["limits"]) => ({
    interceptors: [rateLimit({ limits })],
  }),
};
const cases = Object.entries(places).flatMap(([place, options]) =>
  Object.entries(transports).map(([name, open]) => ({ place, name, options, open })),
);

async function refusal(call: Promise<unknown> | AsyncIterable<unknown>): Promise<ConnectError> {
  const error = await (Symbol.asyncIterator in call ? Array.fromAsync(call) : call).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConnectError)) {
    throw new Error("the call was not refused");
  }
  return error;
}

function limitHeaders(header: Headers) {
  return Object.fromEntries(
    ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map((name) => [
      name,
      header.get(name),
    ]),
  );
}

function expectRefusal(error: ConnectError): void {
  expect(error).toMatchObject({
    code: Code.ResourceExhausted,
    rawMessage:
      "service sample.v1.SampleService has reached the limit of 60 requests in 60 s, 2 at once: try again in 1 s",
  });
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([
    { reason: "RATE_LIMITED", domain: "toolplane", metadata: { level: "service" } },
  ]);
  expect(error.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds: 1n, nanos: 0 } }]);
  expect(error.findDetails(QuotaFailureSchema)).toMatchObject([
    {
      violations: [
        { subject: "service:sample.v1.SampleService", description: "60 requests in 60 s, 2 at once" },
      ],
    },
  ]);
  expect(limitHeaders(error.metadata)).toEqual({
    "retry-after": "1",
    "x-ratelimit-limit": "60",
    "x-ratelimit-remaining": "0",
    "x-ratelimit-reset": "2",
  });
}

test.each(cases)("unary calls by $name are limited by $place", async ({ options, open }) => {
  const { limits, clock } = createLimits({ global: perMinute(1_000, 20), service: perMinute(60, 2) });
  const server = await serveSample(options(limits));
  const client = createClient(SampleService, open(server.url));
  const headers: Headers[] = [];
  const onHeader = (header: Headers) => headers.push(header);
  expect(await client.measure({ value: new Uint8Array(3) }, { onHeader })).toMatchObject({ value: 3 });
  await client.measure({}, { onHeader });
  expect(headers.map(limitHeaders)).toEqual([
    {
      "retry-after": null,
      "x-ratelimit-limit": "60",
      "x-ratelimit-remaining": "1",
      "x-ratelimit-reset": "1",
    },
    {
      "retry-after": null,
      "x-ratelimit-limit": "60",
      "x-ratelimit-remaining": "0",
      "x-ratelimit-reset": "2",
    },
  ]);
  expectRefusal(await refusal(client.measure({})));
  clock.advance(1_000);
  await client.measure({});
});

test.each(cases)("streams by $name are limited by $place, each as one call", async ({ options, open }) => {
  const { limits } = createLimits({ service: perMinute(60, 2) });
  const server = await serveSample(options(limits));
  const client = createClient(SampleService, open(server.url));
  const headers: Headers[] = [];
  const onHeader = (header: Headers) => headers.push(header);
  expect(await Array.fromAsync(client.count({ value: 30 }, { onHeader }))).toHaveLength(30);
  expect(limitHeaders(headers[0] ?? new Headers())).toMatchObject({ "x-ratelimit-remaining": "1" });
  await Array.fromAsync(client.count({ value: 1 }));
  expectRefusal(await refusal(client.count({ value: 1 })));
});

test.each(cases.filter(({ name }) => /HTTP\/2/.test(name) && !/Web/.test(name)))(
  "streams of requests by $name are limited by $place, each as one call",
  async ({ options, open }) => {
    const { limits } = createLimits({ service: perMinute(60, 2) });
    const server = await serveSample(options(limits));
    const client = createClient(SampleService, open(server.url));
    async function* texts() {
      yield { value: "a" };
      yield { value: "b" };
    }
    expect(await client.join(texts())).toMatchObject({ value: "a b" });
    expect(await Array.fromAsync(client.chat(texts()))).toHaveLength(2);
    expectRefusal(await refusal(client.join(texts())));
    expectRefusal(await refusal(client.chat(texts())));
  },
);

test("over HTTP a refusal is a 429 with its headers, before the body has come", async () => {
  const { limits } = createLimits({ global: perMinute(60, 1) });
  const server = await serveSample({ gates: [rateLimitGate({ limits })] });
  const call = () =>
    fetch(`${server.url}/sample.v1.SampleService/Echo`, {
      method: "POST",
      headers: { "content-type": "application/json", origin: server.url },
      body: '"hello"',
    });
  const allowed = await call();
  expect(allowed.status).toBe(200);
  expect(allowed.headers.get("access-control-expose-headers")).toMatch(
    /retry-after.*x-ratelimit-limit.*x-ratelimit-remaining.*x-ratelimit-reset/i,
  );
  const refused = await call();
  expect(refused.status).toBe(429);
  expect(limitHeaders(refused.headers)).toEqual({
    "retry-after": "1",
    "x-ratelimit-limit": "60",
    "x-ratelimit-remaining": "0",
    "x-ratelimit-reset": "1",
  });
  expect(await refused.json()).toMatchObject({
    code: "resource_exhausted",
    message: "the server has reached the limit of 60 requests in 60 s, 1 at once: try again in 1 s",
  });

  const { socket, received } = await rawConnect(server.address.port);
  socket.write(
    "POST /sample.v1.SampleService/Echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n",
  );
  await expect.poll(() => received().toString()).toMatch(/^HTTP\/1\.1 429 /);
});

test("an allowed call that fails still says how its limit stands", async () => {
  const { limits } = createLimits({ global: perMinute(60, 2) });
  const server = await serveSample(
    { gates: [rateLimitGate({ limits })] },
    {
      echo: () => {
        throw new ConnectError("no", Code.NotFound);
      },
    },
  );
  const answer = await fetch(`${server.url}/sample.v1.SampleService/Echo`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '"hello"',
  });
  expect(answer.status).toBe(404);
  expect(limitHeaders(answer.headers)).toMatchObject({ "x-ratelimit-remaining": "1" });
});

test("callers have limits of their own, by who they are, else by where they call from", async () => {
  const { limits } = createLimits({ caller: perMinute(60, 1), callers: { "key:big": perMinute(600, 3) } });
  const authenticate: Gate = (call, { requestHeader }) => {
    const id = requestHeader.get("x-test-principal");
    if (id !== null) {
      call.principal = { id, role: "caller" };
    }
  };
  const server = await serveSample({ gates: [authenticate, rateLimitGate({ limits })] });
  const client = createClient(
    SampleService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "2" }),
  );
  const as = (id: string) => client.echo({ value: "x" }, { headers: { "x-test-principal": id } });
  await as("key:a");
  expect((await refusal(as("key:a"))).findDetails(QuotaFailureSchema)).toMatchObject([
    { violations: [{ subject: "caller:key:a" }] },
  ]);
  await as("key:b");
  await as("key:big");
  await as("key:big");
  await client.echo({ value: "x" });
  expect((await refusal(client.echo({ value: "x" }))).findDetails(QuotaFailureSchema)).toMatchObject([
    { violations: [{ subject: "caller:address:127.0.0.1" }] },
  ]);
});

test("calls from the server's own process are not counted again", async () => {
  const { limits } = createLimits({ global: perMinute(60, 1) });
  const server = await serveSample(places["a gate"](limits));
  const local = createClient(
    SampleService,
    createTransport({
      httpClient: server.localClient(),
      baseUrl: server.url,
      useBinaryFormat: true,
      interceptors: [],
      acceptCompression: [],
      sendCompression: null,
      compressMinBytes: 0,
      readMaxBytes: 1_024,
      writeMaxBytes: 1_024,
    }),
  );
  await local.echo({ value: "x" });
  await local.echo({ value: "x" });
  expect(limits.snapshot(1)).toMatchObject([{ allowed: 0, refused: 0 }]);
});

test("methods and services have limits where they are given some", async () => {
  const { limits } = createLimits({
    services: { "another.Service": perMinute(60, 1) },
    limitOf: ({ localName }) => (localName === "echo" ? perMinute(60, 1) : undefined),
  });
  const server = await serveSample({ gates: [rateLimitGate({ limits })] });
  const client = createClient(
    SampleService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "2" }),
  );
  await client.echo({ value: "x" });
  expect((await refusal(client.echo({ value: "x" }))).findDetails(QuotaFailureSchema)).toMatchObject([
    { violations: [{ subject: "method:sample.v1.SampleService/Echo" }] },
  ]);
  const headers: Headers[] = [];
  await client.measure({}, { onHeader: (header) => headers.push(header) });
  expect(headers[0]?.has("x-ratelimit-limit")).toBe(false);
});

test("health and reflection are answered whatever the limits say", async () => {
  const { limits } = createLimits({ global: perMinute(60, 1) });
  const server = await serveSample({ gates: [rateLimitGate({ limits })] });
  const transport = createConnectTransport({ baseUrl: server.url, httpVersion: "2" });
  const health = createClient(Health, transport);
  const reflection = createClient(ServerReflection, transport);
  async function* list() {
    yield { messageRequest: { case: "listServices" as const, value: "" } };
  }
  for (let call = 0; call < 5; call++) {
    await health.check({});
    await Array.fromAsync(reflection.serverReflectionInfo(list()));
  }
  expect(limits.snapshot(1)).toMatchObject([{ name: "global", allowed: 0, refused: 0 }]);
});

test("which ones are exempt can be said", async () => {
  const { limits } = createLimits({ global: perMinute(60, 1) });
  const server = await serveSample({
    gates: [rateLimitGate({ limits, exempt: new Set(["sample.v1.SampleService/Echo"]) })],
  });
  const client = createClient(
    SampleService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "2" }),
  );
  await client.echo({ value: "x" });
  await client.echo({ value: "x" });
  await client.measure({});
  expect(await refusal(client.measure({}))).toMatchObject({ code: Code.ResourceExhausted });
});

test.each(["1.1", "2"] as const)("any Connect server can be limited, over HTTP/%s", async (httpVersion) => {
  const { limits } = createLimits({ caller: perMinute(60, 1) });
  const handler = connectNodeAdapter({
    routes: (router) => {
      router.service(SampleService, sampleImplementation);
    },
    interceptors: [
      (next) => (request) => {
        const id = request.header.get("x-test-principal");
        if (id !== null) {
          request.contextValues.set(principalKey, { id, role: "caller" });
        }
        return next(request);
      },
      rateLimit({ limits, peerOf: ({ header }) => header.get("x-test-peer") ?? undefined }),
    ],
  });
  const server = httpVersion === "2" ? createHttp2(handler) : createHttp1(handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
  });
  const address = server.address();
  const baseUrl = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  const client = createClient(SampleService, createConnectTransport({ baseUrl, httpVersion }));
  const as = (headers: Record<string, string>) => client.echo({ value: "x" }, { headers });
  for (const headers of [
    { "x-test-principal": "key:a" },
    { "x-test-peer": "192.0.2.1:4711" },
    { "x-test-peer": "[2001:db8::1]:4711" },
    {},
  ]) {
    await as(headers);
    expect(await refusal(as(headers))).toMatchObject({ code: Code.ResourceExhausted });
  }
  expect(
    limits
      .snapshot(9)[0]
      ?.top.map(({ key }) => key)
      .toSorted(),
  ).toEqual(["address:192.0.2.1", "address:2001:db8:0:0::/64", "address:unknown", "key:a"]);
});

test("nobody is let through for saying that the call comes from the server's own process", async () => {
  const transport = createRouterTransport((router) => router.service(SampleService, sampleImplementation), {
    router: {
      interceptors: [
        observeCalls({
          logger: createLogger({ level: "silent" }),
          peerOf: ({ header }) => header.get("x-forwarded-for") ?? undefined,
        }),
        rateLimit({ limits: createLimits({ caller: perMinute(1, 1) }).limits }),
      ],
    },
  });
  const client = createClient(SampleService, transport);
  const headers = { "x-forwarded-for": "local" };
  await client.echo({ value: "a" }, { headers });
  expect((await refusal(client.echo({ value: "a" }, { headers }))).code).toBe(Code.ResourceExhausted);
});
