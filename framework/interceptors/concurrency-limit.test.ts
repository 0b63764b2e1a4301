import { createServer } from "node:http2";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createClient,
  type Interceptor,
  type ServiceImpl,
} from "@connectrpc/connect";
import { createTransport } from "@connectrpc/connect/protocol-connect";
import { connectNodeAdapter, createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createLogger } from "../logging.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { type ConcurrencyLimitOptions, createConcurrencyLimit } from "./concurrency-limit.ts";
import { methodConcurrency } from "./concurrency-limit-method.ts";
import { createConnectChain } from "./server-chain-connect.ts";

/** A handler that goes on until it is told to end, or its call is over unless it does not look. */
function held({ stubborn = false } = {}) {
  const ends: (() => void)[] = [];
  const echo: ServiceImpl<typeof SampleService>["echo"] = (request, { signal }) =>
    new Promise((resolve, reject) => {
      ends.push(() => resolve(request));
      if (!stubborn) {
        signal.addEventListener("abort", () => reject(signal.reason));
      }
    });
  return { ends, echo };
}

async function setUp(
  implementation: Partial<ServiceImpl<typeof SampleService>>,
  options: ConcurrencyLimitOptions = { min: 1, initial: 2 },
  how: { readonly gate: boolean } = { gate: true },
) {
  const concurrency = createConcurrencyLimit(options);
  const server = await serveSample(
    { gates: how.gate ? [concurrency.gate] : [], interceptors: [concurrency.interceptor] },
    implementation,
  );
  const transport = createGrpcTransport({ baseUrl: server.url });
  return {
    concurrency,
    server,
    client: createClient(SampleService, transport),
    health: createClient(Health, transport),
    inFlight: () => concurrency.stats()[0]?.inFlight,
  };
}

async function failureOf(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConnectError)) {
    throw new Error("the call did not fail");
  }
  return error;
}

test.each([true, false])("calls above the limit are refused, others go on (gate: %s)", async (gate) => {
  const { ends, echo } = held();
  const { client, server, health, inFlight, concurrency } = await setUp({ echo }, undefined, { gate });
  const calls = [client.echo({ value: "a" }), client.echo({ value: "b" })];
  await expect.poll(inFlight).toBe(2);

  const refused = await failureOf(client.echo({ value: "c" }));
  expect(refused.code).toBe(Code.Unavailable);
  expect(refused.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "OVERLOADED", domain: "toolplane" }]);
  expect(refused.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds: 1n } }]);
  expect(refused.metadata.get("retry-after")).toBe("1");
  const overHttp = createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" });
  const same = await failureOf(createClient(SampleService, overHttp).echo({ value: "c" }));
  expect(same.code).toBe(Code.Unavailable);
  expect(same.metadata.get("retry-after")).toBe("1");

  await expect(health.check({})).resolves.toBeDefined();
  for (const end of ends) {
    end();
  }
  await expect(Promise.all(calls)).resolves.toHaveLength(2);
  expect(concurrency.stats()).toMatchObject([
    { name: SampleService.typeName, limit: 2, inFlight: 0, admitted: 2, refused: 2 },
  ]);
});

test("a place is free again when the caller leaves, the deadline passes, or the handler fails", async () => {
  const { echo } = held();
  const { client, inFlight } = await setUp({
    echo,
    measure() {
      throw new ConnectError("no", Code.Internal);
    },
  });
  const caller = new AbortController();
  const call = failureOf(client.echo({ value: "a" }, { signal: caller.signal }));
  await expect.poll(inFlight).toBe(1);
  caller.abort();
  await call;
  expect((await failureOf(client.echo({ value: "a" }, { timeoutMs: 50 }))).code).toBe(Code.DeadlineExceeded);
  expect((await failureOf(client.measure({}))).code).toBe(Code.Internal);
  await expect.poll(inFlight).toBe(0);
});

test("a handler that goes on after its call keeps its place until it ends, and for 10 s if it does not", async () => {
  const clock = createFakeClock();
  const { ends, echo } = held({ stubborn: true });
  const { client, inFlight } = await setUp({ echo }, { min: 1, initial: 2, clock });
  const caller = new AbortController();
  const calls = [1, 2].map(() => failureOf(client.echo({ value: "a" }, { signal: caller.signal })));
  await expect.poll(() => ends.length).toBe(2);
  caller.abort();
  await Promise.all(calls);
  await expect.poll(() => clock.pending).toBe(2);
  expect(inFlight()).toBe(2);
  ends[0]?.();
  await expect.poll(inFlight).toBe(1);
  expect(clock.pending).toBe(1);
  clock.advance(10_000);
  expect(inFlight()).toBe(0);
});

test("streams take no place, and are refused when there is none", async () => {
  const { ends, echo } = held();
  const { client, inFlight } = await setUp({ echo });
  const caller = new AbortController();
  onTestFinished(() => caller.abort());
  for (let stream = 0; stream < 3; stream++) {
    for await (const { value } of client.flood({}, { signal: caller.signal })) {
      expect(value.length).toBeGreaterThan(0);
      break;
    }
  }
  const calls = [client.echo({ value: "a" }), client.echo({ value: "b" })];
  await expect.poll(inFlight).toBe(2);
  const refused = await failureOf(Array.fromAsync(client.count({ value: 1 })));
  expect(refused.code).toBe(Code.Unavailable);
  for (const end of ends) {
    end();
  }
  await Promise.all(calls);
  await expect(Array.fromAsync(client.count({ value: 1 }))).resolves.toHaveLength(1);
});

test("calls from the server's own process are not limited again", async () => {
  const { ends, echo } = held();
  const { server, client, inFlight } = await setUp({ echo }, { min: 1, initial: 1 });
  const call = client.echo({ value: "a" });
  await expect.poll(inFlight).toBe(1);
  const local = createTransport({
    httpClient: server.localClient(),
    baseUrl: "http://local",
    useBinaryFormat: true,
    interceptors: [],
    acceptCompression: [],
    sendCompression: null,
    compressMinBytes: 1_000_000,
    readMaxBytes: 1_000_000,
    writeMaxBytes: 1_000_000,
  });
  await expect(createClient(SampleService, local).measure({})).resolves.toMatchObject({ value: 0 });
  ends[0]?.();
  await call;
});

test("methods can share a limit, or have none", async () => {
  const { ends, echo } = held();
  const { client, inFlight, concurrency } = await setUp(
    { echo },
    { min: 1, initial: 1, limitOf: ({ name }) => (name === "Measure" ? undefined : "all") },
  );
  const call = client.echo({ value: "a" });
  await expect.poll(inFlight).toBe(1);
  expect((await failureOf(client.reflect({}))).code).toBe(Code.Unavailable);
  await expect(client.measure({})).resolves.toMatchObject({ value: 0 });
  expect(concurrency.stats().map(({ name }) => name)).toEqual(["all"]);
  ends[0]?.();
  await call;
});

test("the interceptor works in a server that was not made with serve()", async () => {
  const { ends, echo } = held();
  const concurrency = createConcurrencyLimit({ min: 1, initial: 1 });
  const server = createServer(
    connectNodeAdapter({
      routes: (router) => router.service(SampleService, { echo }),
      interceptors: [concurrency.interceptor],
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const baseUrl = `http://127.0.0.1:${port}`;
  const client = createClient(SampleService, createConnectTransport({ baseUrl, httpVersion: "2" }));
  const call = client.echo({ value: "a" });
  await expect.poll(() => ends.length).toBe(1);
  expect((await failureOf(client.echo({ value: "b" }))).findDetails(ErrorInfoSchema)).toMatchObject([
    { reason: "OVERLOADED" },
  ]);
  ends[0]?.();
  await expect(call).resolves.toMatchObject({ value: "a" });
});

test("a method's own cap holds for unary calls and for streams as long as they last", async () => {
  const { ends, echo } = held();
  const server = await serveSample({ interceptors: [methodConcurrency({ maxOf: () => 1 })] }, { echo });
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const call = client.echo({ value: "a" });
  await expect.poll(() => ends.length).toBe(1);
  const refused = await failureOf(client.echo({ value: "b" }));
  expect(refused.code).toBe(Code.ResourceExhausted);
  expect(refused.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "TOO_MANY_CALLS" }]);
  ends[0]?.();
  await call;

  const caller = new AbortController();
  const stream = client.flood({}, { signal: caller.signal })[Symbol.asyncIterator]();
  await stream.next();
  expect((await failureOf(Array.fromAsync(client.flood({})))).code).toBe(Code.ResourceExhausted);
  caller.abort();
  await expect(stream.next()).rejects.toMatchObject({ code: Code.Canceled });
  const again = () =>
    client
      .flood({}, { signal: AbortSignal.timeout(10_000) })
      [Symbol.asyncIterator]()
      .next()
      .then(
        () => "begun",
        () => "refused",
      );
  await expect.poll(again).toBe("begun");
});

test("calls that are over before their turn take no place, whatever a handler would do with them", async () => {
  const concurrency = createConcurrencyLimit({ min: 1, initial: 1, max: 1 });
  let waiting = 0;
  /** As a limit in a store, or another gate that takes its time. */
  const dawdle: Interceptor = (next) => async (request) => {
    if (request.header.has("x-leaves")) {
      waiting += 1;
      await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
    }
    return next(request);
  };
  const server = await serveSample(
    { interceptors: [dawdle, concurrency.interceptor, methodConcurrency({ maxOf: () => 1 })] },
    {
      echo: (request, { requestHeader }) =>
        requestHeader.has("x-leaves") ? new Promise(() => undefined) : request,
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const caller = new AbortController();
  const options = { signal: caller.signal, headers: { "x-leaves": "1" } };
  const left = [client.echo({ value: "a" }, options), Array.fromAsync(client.count({ value: 1 }, options))];
  await expect.poll(() => waiting).toBe(2);
  caller.abort();
  await Promise.allSettled(left);
  await expect(client.echo({ value: "b" })).resolves.toMatchObject({ value: "b" });
  await expect(Array.fromAsync(client.count({ value: 2 }))).resolves.toHaveLength(2);
});

test("a method's cap counts handlers that go on when their callers leave, for 10 s", async () => {
  const clock = createFakeClock();
  const { ends, echo } = held({ stubborn: true });
  const server = await serveSample(
    { interceptors: [methodConcurrency({ maxOf: () => 1, clock })] },
    { echo },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const leave = async () => {
    const caller = new AbortController();
    const call = client.echo({ value: "a" }, { signal: caller.signal });
    call.catch(() => undefined);
    await expect.poll(() => ends.length).toBe(1);
    caller.abort();
    await expect.poll(() => clock.pending).toBe(1);
  };
  await leave();
  expect((await failureOf(client.echo({ value: "b" }))).code).toBe(Code.ResourceExhausted);
  ends.pop()?.();
  await expect.poll(() => clock.pending).toBe(0);
  await leave();
  clock.advance(10_000);
  const call = client.echo({ value: "c" });
  await expect.poll(() => ends.length).toBe(2);
  ends.pop()?.();
  await expect(call).resolves.toMatchObject({ value: "c" });
});

test("a stream gives its place back when its last message was sent, whoever looks after the time it has", async () => {
  const method = "sample.v1.SampleService/Count";
  const chain = createConnectChain({
    methods: { [method]: { timeoutMs: 60_000, maxConcurrency: 1 } },
    logger: createLogger({ level: "silent" }),
  });
  const { interceptors, requestGate } = chain;
  const routes = (router: ConnectRouter) => router.service(SampleService, sampleImplementation);
  const server = createServer(connectNodeAdapter({ routes, interceptors, requestGate }));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.close();
    await chain.close();
  });
  const address = server.address();
  const baseUrl = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  const client = createClient(SampleService, createGrpcTransport({ baseUrl }));
  for (let call = 0; call < 3; call++) {
    const numbers = () => Array.fromAsync(client.count({ value: 2 })).catch(() => []);
    await expect.poll(async () => (await numbers()).length, { timeout: 2_000 }).toBe(2);
  }
});

test("methods without a cap of their own have none", async () => {
  const server = await serveSample({ interceptors: [methodConcurrency()] });
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const answers = await Promise.all(Array.from({ length: 50 }, () => client.echo({ value: "a" })));
  expect(answers).toHaveLength(50);
});
