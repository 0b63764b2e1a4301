import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { describe, expect, onTestFinished, test } from "vitest";
import { callContext, createLogger, type FinishedCall, serve, writeChunk } from "../index.ts";
import {
  authorityCertificate,
  clientCertificate,
  clientKey,
  serverCertificate,
  serverKey,
} from "../test-support/certificates.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { envelope, rawGrpc } from "../test-support/raw-client.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";

const tls = { cert: serverCertificate, key: serverKey };

async function collect<T>(items: AsyncIterable<{ value: T }>): Promise<T[]> {
  const all: T[] = [];
  for await (const { value } of items) {
    all.push(value);
  }
  return all;
}

async function* texts(...values: string[]) {
  for (const value of values) {
    yield { value };
  }
}

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  return promise.then(
    () => expect.unreachable("the call succeeded"),
    (error: unknown) => ConnectError.from(error),
  );
}

describe.each(Object.entries(transports))("%s", (name, connect) => {
  test.each([
    { port: "a cleartext port", options: {}, clientTls: undefined },
    { port: "a TLS port", options: { tls }, clientTls: { ca: authorityCertificate } },
  ])("carries every kind of call on $port", async ({ options, clientTls }) => {
    const server = await serveSample(options);
    const client = createClient(SampleService, connect(server.url, clientTls));
    expect((await client.echo({ value: "héllo" })).value).toBe("héllo");
    expect(await collect(client.count({ value: 3 }))).toEqual([1, 2, 3]);
    expect((await client.join(texts("a", "b"))).value).toBe("a b");
    if (name.endsWith("HTTP/2")) {
      expect(await collect(client.chat(texts("a", "b")))).toEqual(["a!", "b!"]);
    }
  });

  test("carries a typed error before and within a stream", async () => {
    const server = await serveSample(
      {},
      {
        echo: () => {
          throw new ConnectError("no", Code.FailedPrecondition);
        },
        async *count() {
          yield { value: 1 };
          throw new ConnectError("no more", Code.OutOfRange);
        },
      },
    );
    const client = createClient(SampleService, connect(server.url));
    const refused = await failure(client.echo({ value: "" }));
    expect(refused).toMatchObject({ code: Code.FailedPrecondition, rawMessage: "no" });
    expect(refused.findDetails(ErrorInfoSchema)[0]).toMatchObject({
      reason: "FAILED_PRECONDITION",
      domain: "toolplane",
    });
    const broken = await failure(collect(client.count({ value: 3 })));
    expect(broken).toMatchObject({ code: Code.OutOfRange, rawMessage: "no more" });
    expect(broken.findDetails(ErrorInfoSchema)).toHaveLength(1);
  });

  test("says that a method, a service or a path does not exist", async () => {
    const server = await serveSample({}, { echo: undefined as never });
    const sample = createClient(SampleService, connect(server.url));
    expect((await failure(sample.echo({ value: "" }))).code).toBe(Code.Unimplemented);
    const missing = createClient(RegistryService, connect(server.url));
    const error = await failure(missing.getService({}));
    expect(error.code).toBe(Code.Unimplemented);
    expect(error.rawMessage).toContain("/toolplane.registry.v1.RegistryService/GetService");
  });
});

test("a Connect client may GET what has no side effects", async () => {
  const server = await serveSample();
  const client = createClient(
    SampleService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", useHttpGet: true }),
  );
  expect((await client.echo({ value: "hello" })).value).toBe("hello");
  const url = `${server.url}/sample.v1.SampleService/Echo?encoding=json&message=%22plain%22`;
  const response = await fetch(url);
  expect([response.status, await response.json()]).toEqual([200, "plain"]);
  expect((await fetch(url.replace("Echo", "Reflect"))).status).toBe(405);
});

test("a TLS port may ask clients for a certificate", async () => {
  const server = await serveSample({ tls: { ...tls, clientCa: authorityCertificate } });
  const known = createGrpcTransport({
    baseUrl: server.url,
    nodeOptions: { ca: authorityCertificate, cert: clientCertificate, key: clientKey },
  });
  expect((await createClient(SampleService, known).echo({ value: "in" })).value).toBe("in");
  const unknown = createGrpcTransport({ baseUrl: server.url, nodeOptions: { ca: authorityCertificate } });
  await expect(createClient(SampleService, unknown).echo({ value: "out" })).rejects.toThrow();
});

test("health follows readiness, as do /healthz and /readyz", async () => {
  let problem: string | undefined = "the database is away";
  const server = await serveSample({
    version: "1.2.3",
    ready: async () => {
      if (problem !== undefined) {
        throw new Error(problem);
      }
    },
  });
  const health = createClient(Health, createGrpcTransport({ baseUrl: server.url }));
  expect((await health.check({})).status).toBe(2);
  const away = await fetch(`${server.url}/readyz`);
  expect([away.status, await away.json()]).toEqual([
    503,
    { status: "not ready", message: "the database is away", name: "sample", version: "1.2.3" },
  ]);
  problem = undefined;
  expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
  expect((await health.check({ service: SampleService.typeName })).status).toBe(1);
  const alive = await fetch(`${server.url}/healthz`);
  expect(await alive.json()).toEqual({ status: "alive", name: "sample", version: "1.2.3" });
});

test("/healthz asks nobody and answers while the server is overloaded", async () => {
  let asked = 0;
  const server = await serveSample({
    limits: { maxRequests: 0 },
    ready: async () => {
      asked += 1;
    },
  });
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
  expect(asked).toBe(1);
});

test("every service is listed through reflection", async () => {
  const server = await serveSample();
  const client = createClient(ServerReflection, createGrpcTransport({ baseUrl: server.url }));
  const answers = client.serverReflectionInfo(
    (async function* () {
      yield { messageRequest: { case: "listServices" as const, value: "" } };
    })(),
  );
  for await (const { messageResponse } of answers) {
    expect(
      messageResponse.case === "listServicesResponse" &&
        messageResponse.value.service.map(({ name }) => name),
    ).toEqual(server.services.map(({ typeName }) => typeName).sort());
  }
});

test("a handler finds the circumstances of its call", async () => {
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  let seen: ReturnType<typeof callContext> | undefined;
  const server = await serveSample(
    {},
    {
      echo(request, context) {
        seen = callContext(context);
        return request;
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  let answered: string | null = null;
  await client.echo(
    { value: "" },
    {
      headers: { "x-correlation-id": "order-7", traceparent, tracestate: "a=b" },
      timeoutMs: 5_000,
      onHeader: (header) => {
        answered = header.get("x-correlation-id");
      },
    },
  );
  expect(answered).toBe("order-7");
  expect(seen).toMatchObject({
    correlationId: "order-7",
    principal: { id: "anonymous" },
    traceparent,
    tracestate: "a=b",
    peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
  });
  expect(seen?.deadline).toBeLessThanOrEqual(Date.now() + 5_000);
});

test.each([
  ["x-request-id", "req-1", "req-1"],
  ["x-correlation-id", "forged\tline", expect.stringMatching(/^[0-9a-f-]{36}$/)],
  ["x-correlation-id", "x".repeat(129), expect.stringMatching(/^[0-9a-f-]{36}$/)],
])("the correlation id for %s: %j is taken over or made up", async (name, given, expected) => {
  const server = await serveSample();
  const response = await fetch(`${server.url}/nowhere`, { headers: { [name]: given } });
  expect(response.headers.get("x-correlation-id")).toEqual(expected);
});

test.each([
  "",
  "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  "00-00000000000000000000000000000000-b7ad6b7169203331-01",
  "junk",
])("the trace context %j is not passed on", async (traceparent) => {
  let seen: string | undefined = "unset";
  const server = await serveSample(
    {},
    {
      echo(request, context) {
        seen = callContext(context).traceparent;
        return request;
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  await client.echo({ value: "" }, { headers: { traceparent, tracestate: "a=b" } });
  expect(seen).toBeUndefined();
});

test("every call is logged and reported once, with its outcome", async () => {
  const calls: FinishedCall[] = [];
  const server = await serveSample(
    { onCall: (call) => calls.push(call) },
    {
      reflect: () => {
        throw new Error("secret detail");
      },
    },
  );
  const grpc = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  await grpc.echo({ value: "" }, { headers: { "x-correlation-id": "a" } });
  await collect(grpc.count({ value: 2 }));
  await failure(grpc.reflect({}, { headers: { "x-correlation-id": "b" } }));
  expect(calls).toMatchObject([
    { method: "sample.v1.SampleService/Echo", protocol: "grpc", code: "ok", correlationId: "a" },
    { method: "sample.v1.SampleService/Count", code: "ok" },
    { method: "sample.v1.SampleService/Reflect", code: "internal", correlationId: "b" },
  ]);
  expect(server.logged.filter(({ msg }) => msg === "call")).toHaveLength(3);
  const cause = server.logged.find(({ msg }) => msg === "internal error");
  expect(cause).toMatchObject({ correlationId: "b", err: { message: "secret detail" }, level: "error" });
});

test("health checks are logged at level debug", async () => {
  const server = await serveSample();
  await createClient(Health, createGrpcTransport({ baseUrl: server.url })).check({});
  expect(server.logged.find(({ msg }) => msg === "call")).toMatchObject({ level: "debug" });
});

test("gates refuse a call before its body is read, and say who calls", async () => {
  let bodies = 0;
  let seen: string | undefined;
  const server = await serveSample(
    {
      gates: [
        (call, context) => {
          const user = context.requestHeader.get("authorization");
          if (user === null) {
            throw new ConnectError("who are you?", Code.Unauthenticated);
          }
          call.principal = { id: `user:${user}`, role: "operator" };
        },
      ],
    },
    {
      echo(request, context) {
        seen = callContext(context).principal.id;
        return request;
      },
      async join(requests) {
        for await (const _ of requests) {
          bodies += 1;
        }
        return {};
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const refused = await failure(client.join(texts("a")));
  expect(refused.code).toBe(Code.Unauthenticated);
  expect(refused.findDetails(ErrorInfoSchema)).toHaveLength(1);
  expect(bodies).toBe(0);
  await client.echo({ value: "" }, { headers: { authorization: "ada" } });
  expect(seen).toBe("user:ada");
  expect(server.logged.find(({ msg, code }) => msg === "call" && code === "ok")).toMatchObject({
    principal: "user:ada",
  });
});

test("options given with a service come on top of the chain instead of replacing it", async () => {
  const order: string[] = [];
  const note =
    (name: string): Interceptor =>
    (next) =>
    (request) => {
      order.push(name);
      return next(request);
    };
  const server = await serveSample({
    interceptors: [note("server")],
    routes: (router) =>
      router.service(
        SampleService,
        {
          ...sampleImplementation,
          reflect: () => {
            throw new Error("secret detail");
          },
        },
        { interceptors: [note("service")] },
      ),
  });
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const error = await failure(client.reflect({}));
  expect(order).toEqual(["server", "service"]);
  expect(error.code).toBe(Code.Internal);
  expect(error.rawMessage).not.toContain("secret");
});

test("plain HTTP handlers are asked in turn, after RPCs", async () => {
  const server = await serveSample({
    http: [
      () => false,
      (request, response) => {
        response.end(`page ${request.url}`);
        return true;
      },
    ],
  });
  expect(await (await fetch(`${server.url}/x?y`)).text()).toBe("page /x?y");
});

test("what is nowhere is answered with a typed error", async () => {
  const server = await serveSample();
  const response = await fetch(`${server.url}/nowhere`);
  expect([response.status, await response.json()]).toMatchObject([
    404,
    {
      code: "unimplemented",
      message: "there is nothing at /nowhere",
      details: [{ debug: { reason: "UNKNOWN_PATH" } }],
    },
  ]);
});

test.each([
  [
    "a method",
    { method: "PUT", body: '""', headers: { "content-type": "application/json" } },
    405,
    "unimplemented",
  ],
  [
    "a content type",
    { method: "POST", body: "", headers: { "content-type": "application/json5" } },
    415,
    "invalid_argument",
  ],
  [
    "a protocol",
    { method: "POST", body: "", headers: { "content-type": "application/connect+proto" } },
    200,
    "invalid_argument",
  ],
])("%s that is not possible is refused with a typed error", async (_, request, status, code) => {
  const server = await serveSample();
  const response = await fetch(`${server.url}/sample.v1.SampleService/Echo`, request);
  expect([response.status, await response.text()]).toEqual([
    status,
    expect.stringContaining(`"code":"${code}"`),
  ]);
});

test("a stream in both directions over HTTP/1.1 is refused with a typed error", async () => {
  const server = await serveSample();
  const response = await fetch(`${server.url}/sample.v1.SampleService/Chat`, {
    method: "POST",
    headers: { "content-type": "application/connect+json" },
    body: "",
  });
  expect(response.headers.get("connection")).toBe("close");
  expect(await response.text()).toContain("HTTP_2_REQUIRED");
});

test("a plain HTTP handler may answer for as long as it likes", async () => {
  const clock = createFakeClock();
  const server = await serveSample({
    clock,
    http: [
      (_, response) => {
        writeChunk(response, Buffer.from("first "));
        return true;
      },
    ],
  });
  const session = connectHttp2(server.url);
  onTestFinished(() => session.destroy());
  const stream = session.request({ ":path": "/events" });
  const [chunk] = await once(stream, "data");
  clock.advance(1_000_000);
  await new Promise(setImmediate);
  expect([String(chunk), stream.closed]).toEqual(["first ", false]);
});

test("large answers are compressed for those who accept it, events of a stream are not", async () => {
  const server = await serveSample();
  const text = JSON.stringify("a".repeat(50_000));
  const post = async (body: string) => {
    const response = await fetch(`${server.url}/sample.v1.SampleService/Echo`, {
      method: "POST",
      headers: { "content-type": "application/json", "accept-encoding": "gzip" },
      body,
    });
    return { encoding: response.headers.get("content-encoding"), body: await response.text() };
  };
  expect(await post(text)).toEqual({ encoding: "gzip", body: text });
  expect(await post('"a"')).toEqual({ encoding: null, body: '"a"' });
  const events = await rawGrpc(
    server.url,
    "/sample.v1.SampleService/Count",
    envelope(Buffer.from([0x08, 3])),
    { "grpc-accept-encoding": "gzip" },
  );
  // Three messages, each with the flag for "not compressed", as it was produced.
  expect([...events.body]).toEqual([0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 2, 0, 0, 0, 0, 2, 8, 3]);
});

test("a service takes ten lines", async () => {
  const server = await serve({
    name: "greeter",
    routes: (router) => {
      router.service(SampleService, { echo: ({ value }) => ({ value: `Hello, ${value}!` }) });
    },
    register: false,
    logger: createLogger({ level: "silent" }),
  });
  onTestFinished(() => server.close());
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  expect((await client.echo({ value: "Ada" })).value).toBe("Hello, Ada!");
});

test.each(["7400", "localhost:99999", "[::1", ""])(
  "the address %j is refused with an explanation",
  async (listen) => {
    await expect(serveSample({ listen })).rejects.toThrow("listen");
  },
);

test("a path that is routed twice is an error of serve()", async () => {
  const twice = serveSample({
    routes: (router) => {
      router.service(SampleService, {}).service(SampleService, {});
    },
  });
  await expect(twice).rejects.toThrow("/sample.v1.SampleService/Echo is routed twice");
});
