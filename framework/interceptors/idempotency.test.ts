import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createClient,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { DomainError } from "../errors/domain-error.ts";
import { createMemoryIdempotencyStore } from "../policies/idempotency/memory-store.ts";
import type { IdempotencyStore } from "../policies/idempotency/store.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import type { Gate } from "./begin-call.ts";
import { anonymous, callContext } from "./call-context.ts";
import { createRequestIds, type RequestIdOptions } from "./idempotency.ts";
import { keepOwnHeaders } from "./own-headers.ts";

const identify: Gate = (call, context) => {
  call.principal = { ...anonymous, id: context.requestHeader.get("x-user") ?? "user:ada" };
  context.responseHeader.set("x-ratelimit-remaining", context.requestHeader.get("x-left") ?? "none");
};

interface Begun {
  readonly context: HandlerContext;
  readonly answer: (value: number) => void;
  readonly fail: (error: unknown) => void;
}

/** A server whose method with side effects ends when it is told to. */
async function servePaused(options: Partial<RequestIdOptions> = {}) {
  const begun: Begun[] = [];
  const store = options.store ?? createMemoryIdempotencyStore();
  const requestIds = createRequestIds({ store, ...options });
  const server = await serveSample(
    { interceptors: [requestIds.interceptor], gates: [identify] },
    {
      async measure(_, context) {
        const { promise, resolve, reject } = Promise.withResolvers<{ value: number }>();
        context.responseHeader.set("etag", '"1"');
        context.responseHeader.set("set-cookie", "session=first");
        context.responseTrailer.set("x-cost", "3");
        begun.push({ context, answer: (value) => resolve({ value }), fail: reject });
        return await promise;
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const call = (id: string, headers: Record<string, string> = {}, text = "same") =>
    client.measure({ value: Buffer.from(text) }, { headers: { "idempotency-key": id, ...headers } });
  return { begun, store, requestIds, server, client, call };
}

async function failed(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.catch((failure: unknown) => failure);
  return error instanceof ConnectError ? error : expect.fail("the call did not fail");
}

test.each(Object.entries(transports))(
  "a repetition gets the outcome, and the handler is called once: %s",
  async (_, connect) => {
    const { server, begun } = await servePaused();
    const client = createClient(SampleService, connect(server.url));
    const seen: Headers[] = [];
    const call = () =>
      client.measure(
        { value: Buffer.from("same") },
        { headers: { "idempotency-key": "1" }, onHeader: (header) => seen.push(header) },
      );
    const first = call();
    await expect.poll(() => begun.length).toBe(1);
    begun[0]?.answer(42);
    expect((await first).value).toBe(42);
    expect((await call()).value).toBe(42);
    expect(seen.map((header) => header.get("x-toolplane-replayed"))).toEqual([null, "true"]);
    expect(begun).toHaveLength(1);
  },
);

test("an outcome goes from one protocol to another", async () => {
  const { server, begun } = await servePaused();
  const values: number[] = [];
  for (const connect of Object.values(transports)) {
    const call = createClient(SampleService, connect(server.url)).measure(
      {},
      { headers: { "idempotency-key": "1" } },
    );
    if (begun.length === 0) {
      await expect.poll(() => begun.length).toBe(1);
      begun[0]?.answer(42);
    }
    values.push((await call).value);
  }
  expect(values).toEqual(Object.keys(transports).map(() => 42));
  expect(begun).toHaveLength(1);
});

test("100 calls at once with the same id reach the handler once", async () => {
  const { begun, requestIds, call } = await servePaused();
  const calls = Array.from({ length: 100 }, () => call("1"));
  await expect.poll(() => requestIds.stats().waited).toBe(99);
  begun[0]?.answer(42);
  expect((await Promise.all(calls)).map(({ value }) => value)).toEqual(Array.from({ length: 100 }, () => 42));
  expect(begun).toHaveLength(1);
});

test("a repetition gets what describes the answer and keeps what is its own", async () => {
  const { begun, client } = await servePaused();
  const seen: Record<string, string | null>[] = [];
  const call = async (left: string) => {
    let header = new Headers();
    let trailer = new Headers();
    await client.measure(
      {},
      {
        headers: { "idempotency-key": "1", "x-left": left, "x-correlation-id": `call-${left}` },
        onHeader: (received) => {
          header = received;
        },
        onTrailer: (received) => {
          trailer = received;
        },
      },
    );
    seen.push({
      left: header.get("x-ratelimit-remaining"),
      cookie: header.get("set-cookie"),
      etag: header.get("etag"),
      correlation: header.get("x-correlation-id"),
      cost: trailer.get("x-cost"),
    });
  };
  const first = call("20");
  await expect.poll(() => begun.length).toBe(1);
  begun[0]?.answer(42);
  await first;
  await call("19");
  expect(seen).toEqual([
    { left: "20", cookie: "session=first", etag: '"1"', correlation: "call-20", cost: "3" },
    { left: "19", cookie: null, etag: '"1"', correlation: "call-19", cost: null },
  ]);
});

test("the ids of two principals, tenants or methods have nothing to do with each other", async () => {
  const { begun, call, client } = await servePaused({ scopeHeaders: ["x-tenant"] });
  const calls = [
    call("1"),
    call("1", { "x-user": "user:bob" }),
    call("1", { "x-tenant": "a" }),
    call("1", { "x-tenant": "b" }),
  ];
  await expect.poll(() => begun.length).toBe(4);
  expect(await client.reflect({}, { headers: { "idempotency-key": "1" } })).toMatchObject({ fields: {} });
  for (const [index, { answer }] of begun.entries()) {
    answer(index);
  }
  expect((await Promise.all(calls)).map(({ value }) => value).sort()).toEqual([0, 1, 2, 3]);
});

test("the same id with another message is refused", async () => {
  const { begun, call } = await servePaused();
  const first = call("1");
  await expect.poll(() => begun.length).toBe(1);
  const error = await failed(call("1", {}, "other"));
  expect(error).toMatchObject({
    code: Code.InvalidArgument,
    rawMessage: expect.stringContaining('the id "1" was used for another request'),
  });
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "REQUEST_ID_REUSED" }]);
  expect(error.findDetails(BadRequestSchema)).toMatchObject([{ fieldViolations: [{ field: "request_id" }] }]);
  begun[0]?.answer(1);
  await first;
});

test("the same object is the same message, however its fields are ordered", async () => {
  const { client } = await servePaused();
  const number = (value: number) => ({ kind: { case: "numberValue" as const, value } });
  const options = { headers: { "idempotency-key": "1" } };
  const first = await client.reflect({ fields: { a: number(1), b: number(2) } }, options);
  expect(await client.reflect({ fields: { b: number(2), a: number(1) } }, options)).toEqual(first);
});

test("a definite failure is repeated as it was, an internal one without what it says inside", async () => {
  const { begun, call } = await servePaused();
  const failures = [
    new DomainError({ code: Code.NotFound, reason: "NO_ACCOUNT", message: "there is no such account" }),
    new ConnectError(
      "not like this",
      Code.FailedPrecondition,
      { "x-request-cost": "1", "retry-after": "3" },
      [{ desc: StringValueSchema, value: { value: "detail" } }],
    ),
    new Error("the password is 1234"),
  ];
  for (const [index, failure] of failures.entries()) {
    const first = failed(call(String(index)));
    await expect.poll(() => begun.length).toBe(index + 1);
    begun[index]?.fail(failure);
    const [one, two] = [await first, await failed(call(String(index)))];
    expect(two.code).toBe(one.code);
    expect(two.rawMessage).toBe(one.rawMessage);
    expect(two.findDetails(ErrorInfoSchema)).toEqual(one.findDetails(ErrorInfoSchema));
    expect(two.findDetails(StringValueSchema)).toEqual(one.findDetails(StringValueSchema));
    expect(two.rawMessage).not.toContain("1234");
    expect(two.metadata.get("x-request-cost")).toBeNull();
  }
  expect(begun).toHaveLength(failures.length);
});

test.each([Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.ResourceExhausted, Code.Aborted])(
  "a failure that may pass (%i) is none: a repetition tries again",
  async (code) => {
    const { begun, call } = await servePaused();
    const first = failed(call("1"));
    await expect.poll(() => begun.length).toBe(1);
    begun[0]?.fail(new ConnectError("not now", code));
    expect(await first).toMatchObject({ code, rawMessage: "not now" });
    const again = call("1");
    await expect.poll(() => begun.length).toBe(2);
    begun[1]?.answer(42);
    expect((await again).value).toBe(42);
  },
);

test("the handler goes on when its caller leaves or runs out of time, and a repetition gets what it did", async () => {
  const { begun, call, client, requestIds } = await servePaused();
  const leaving = new AbortController();
  const options = { headers: { "idempotency-key": "1" } };
  const first = failed(
    client.measure({ value: Buffer.from("same") }, { ...options, signal: leaving.signal }),
  );
  await expect.poll(() => begun.length).toBe(1);
  leaving.abort();
  expect(await first).toMatchObject({ code: Code.Canceled });
  const late = await failed(client.measure({ value: Buffer.from("same") }, { ...options, timeoutMs: 200 }));
  expect(late).toMatchObject({ code: Code.DeadlineExceeded });
  const [{ context } = expect.fail("the handler was not called")] = begun;
  expect(context.signal.aborted).toBe(false);
  expect(callContext(context).signal.aborted).toBe(false);
  expect(callContext(context).deadline).toBeGreaterThan(Date.now() + 100_000);
  const repetition = call("1");
  await expect.poll(() => requestIds.stats().waited).toBe(2);
  begun[0]?.answer(42);
  expect((await repetition).value).toBe(42);
  expect(begun).toHaveLength(1);
});

test("work that takes too long is stopped, and that it broke is no outcome", async () => {
  const clock = createFakeClock();
  const requestIds = createRequestIds({ store: createMemoryIdempotencyStore({ clock }), clock });
  let calls = 0;
  const server = await serveSample(
    { interceptors: [requestIds.interceptor] },
    {
      async measure(_, { signal }) {
        calls++;
        await new Promise((_resolve, reject) =>
          signal.addEventListener("abort", () => reject(new Error("the backend hung up"))),
        );
        return {};
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  for (const count of [1, 2]) {
    const call = failed(client.measure({}, { headers: { "idempotency-key": "1" } }));
    await expect.poll(() => calls).toBe(count);
    clock.advance(300_000);
    const error = await call;
    expect(error.code).toBe(Code.DeadlineExceeded);
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "IDEMPOTENCY_WORK_TIMEOUT" }]);
  }
});

test("without the store no handler with an id is called, others are", async () => {
  const memory = createMemoryIdempotencyStore();
  const store: IdempotencyStore = { ...memory, claim: () => Promise.reject(new Error("down")) };
  const { begun, call, client } = await servePaused({ store });
  const error = await failed(call("1"));
  expect(error).toMatchObject({ code: Code.Unavailable });
  expect(error.rawMessage).not.toContain("down");
  expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "IDEMPOTENCY_STORE_UNAVAILABLE" }]);
  const without = client.measure({});
  await expect.poll(() => begun.length).toBe(1);
  begun[0]?.answer(1);
  await without;
});

test("an answer that is too large to be kept is given once, and the call is never made again", async () => {
  const { begun, call } = await servePaused({ store: createMemoryIdempotencyStore({ maxOutcomeBytes: 1 }) });
  const first = call("1");
  await expect.poll(() => begun.length).toBe(1);
  begun[0]?.answer(42);
  expect((await first).value).toBe(42);
  const error = await failed(call("1"));
  expect(error).toMatchObject({ code: Code.FailedPrecondition });
  expect(begun).toHaveLength(1);
});

test("calls without an id, of methods without side effects, and streams pass", async () => {
  const { begun, client, requestIds } = await servePaused();
  const calls = [client.measure({}), client.measure({}, { headers: { "x-request-id": "1" } })];
  await expect.poll(() => begun.length).toBe(2);
  for (const { answer } of begun) {
    answer(1);
  }
  await Promise.all(calls);
  const options = { headers: { "idempotency-key": "1" } };
  await client.echo({ value: "a" }, options);
  expect((await client.echo({ value: "b" }, options)).value).toBe("b");
  await Array.fromAsync(client.count({ value: 2 }, options));
  expect(requestIds.stats().begun).toBe(0);
});

test.each(['"quoted \\" key"', "8e03978e-40d5-43dd-bc93-6894a57f9324", "a".repeat(255)])(
  "the key %s is one",
  async (key) => {
    const { begun, call, requestIds } = await servePaused();
    const first = call(key);
    await expect.poll(() => begun.length).toBe(1);
    begun[0]?.answer(1);
    await first;
    expect(requestIds.stats().recorded).toBe(1);
  },
);

test.each(["", '""', "a, b", '"a", "b"', '"unfinished', "a;b=c", "a".repeat(256)])(
  "the key <%s> is refused",
  async (key) => {
    const { call } = await servePaused();
    const error = await failed(call(key));
    expect(error).toMatchObject({ code: Code.InvalidArgument });
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "INVALID_REQUEST_ID" }]);
  },
);

test("the field request_id is an id like the header, and may not contradict it", async () => {
  let calls = 0;
  const requestIds = createRequestIds({ store: createMemoryIdempotencyStore() });
  const server = await serveSample({
    interceptors: [requestIds.interceptor],
    routes: (router) => {
      router.service(RegistryService, {
        registerService() {
          calls++;
          return {};
        },
      });
    },
  });
  const client = createClient(RegistryService, createGrpcTransport({ baseUrl: server.url }));
  const requestId = "8e03978e-40d5-43dd-bc93-6894a57f9324";
  const call = (headers: Record<string, string> = {}) =>
    client.registerService(
      { service: { name: "a" }, instance: { endpoint: "localhost:1" }, requestId },
      { headers },
    );
  await call();
  await call();
  await call({ "idempotency-key": requestId });
  expect(calls).toBe(1);
  expect(await failed(call({ "idempotency-key": "other" }))).toMatchObject({ code: Code.InvalidArgument });
});

/** A server of connect-node as it comes. */
async function servePlain(interceptor: Interceptor, gate?: typeof keepOwnHeaders) {
  let calls = 0;
  const routes = (router: ConnectRouter) =>
    router.service(SampleService, {
      measure(_, context) {
        context.responseHeader.set("etag", '"1"');
        return { value: ++calls };
      },
      echo: () => ({ value: "x".repeat(10_000) }),
    });
  const server = createServer(
    connectNodeAdapter({ routes, interceptors: [interceptor], ...(gate && { requestGate: gate }) }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("a server without serve() repeats outcomes, too, over every protocol", async () => {
  const { interceptor } = createRequestIds({ store: createMemoryIdempotencyStore() });
  const url = await servePlain(interceptor, keepOwnHeaders);
  const http2 = Object.entries(transports).filter(([name]) => name.endsWith("HTTP/2"));
  expect(http2.length).toBeGreaterThan(3);
  for (const [, connect] of http2) {
    const client = createClient(SampleService, connect(url));
    for (const _ of [1, 2]) {
      let etag: string | null = null;
      const answer = await client.measure(
        {},
        {
          headers: { "idempotency-key": "1" },
          onHeader: (header) => {
            etag = header.get("etag");
          },
        },
      );
      expect({ value: answer.value, etag }).toEqual({ value: 1, etag: '"1"' });
    }
  }
});

test("a server without serve() is told what it lacks", async () => {
  const { interceptor } = createRequestIds({ store: createMemoryIdempotencyStore() });
  const url = await servePlain((next) => async (request) => {
    try {
      return await interceptor(next)(request);
    } catch (error) {
      throw new ConnectError(String(error), Code.Internal);
    }
  });
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: url }));
  const error = await failed(client.measure({}, { headers: { "idempotency-key": "1" } }));
  expect(error.rawMessage).toContain("give it the request gate keepOwnHeaders");
});
