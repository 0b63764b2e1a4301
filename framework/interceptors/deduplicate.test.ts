import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  createClient,
  createRouterTransport,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import {
  connectNodeAdapter,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { expect, onTestFinished, test } from "vitest";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import type { Gate } from "./begin-call.ts";
import { anonymous, callContext, principalKey } from "./call-context.ts";
import { createDeduplication, type DeduplicationOptions } from "./deduplicate.ts";

interface Begun {
  readonly context: HandlerContext;
  readonly answer: (text: string) => void;
  readonly fail: (error: unknown) => void;
}

/** A handler that answers when it is told to, and a record of every time it was called. */
function pausedEcho() {
  const begun: Begun[] = [];
  return {
    begun,
    async echo(_: unknown, context: HandlerContext) {
      const { promise, resolve, reject } = Promise.withResolvers<{ value: string }>();
      context.responseHeader.set("set-cookie", "session=leader");
      context.responseHeader.set("x-ratelimit-remaining", "7");
      context.responseHeader.set("etag", '"1"');
      context.responseHeader.set("x-region", "eu");
      context.responseTrailer.set("x-cost", "3");
      begun.push({ context, answer: (value) => resolve({ value }), fail: reject });
      return await promise;
    },
  };
}

/** Calls come with their principal in a header, and are told how much of their limit is left. */
const identify: Gate = (call, context) => {
  call.principal = { ...anonymous, id: context.requestHeader.get("x-user") ?? "user:ada" };
  context.responseHeader.set("x-ratelimit-remaining", context.requestHeader.get("x-left") ?? "none");
};

async function serveDeduplicated(options: DeduplicationOptions = {}) {
  const deduplication = createDeduplication(options);
  const paused = pausedEcho();
  const server = await serveSample(
    { interceptors: [deduplication.interceptor], gates: [identify] },
    { echo: paused.echo },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  /** Whether so many calls have arrived. */
  const arrived = (calls: number) =>
    expect.poll(() => deduplication.stats().led + deduplication.stats().joined).toBe(calls);
  return { deduplication, server, client, arrived, ...paused };
}

const codeOf = (error: unknown) => ConnectError.from(error).code;

test.each(Object.entries(transports))(
  "100 identical calls at once reach the handler once: %s",
  async (_, connect) => {
    const { server, begun, arrived } = await serveDeduplicated();
    const client = createClient(SampleService, connect(server.url));
    const calls = Array.from({ length: 100 }, () => client.echo({ value: "same" }));
    await arrived(100);
    begun[0]?.answer("answer");
    const answers = await Promise.all(calls);
    expect(answers.map(({ value }) => value)).toEqual(Array.from({ length: 100 }, () => "answer"));
    expect(begun).toHaveLength(1);
  },
);

test("followers get what describes the answer and keep what is their own", async () => {
  const { client, begun, arrived, deduplication } = await serveDeduplicated({ sharedHeaders: ["X-Region"] });
  const seen: { header: Headers; trailer: Headers }[] = [];
  const call = async (left: string) => {
    const received = { header: new Headers(), trailer: new Headers() };
    await client.echo(
      { value: "same" },
      {
        headers: { "x-left": left, "x-correlation-id": `call-${left}` },
        onHeader: (header) => {
          received.header = header;
        },
        onTrailer: (trailer) => {
          received.trailer = trailer;
        },
      },
    );
    seen.push(received);
  };
  const leader = call("20");
  await arrived(1);
  const follower = call("19");
  await arrived(2);
  begun[0]?.answer("answer");
  await leader;
  await follower;
  const [first, second] = seen.map(({ header, trailer }) => ({
    deduplicated: header.get("x-toolplane-deduplicated"),
    cookie: header.get("set-cookie"),
    left: header.get("x-ratelimit-remaining"),
    correlation: header.get("x-correlation-id"),
    etag: header.get("etag"),
    region: header.get("x-region"),
    cost: trailer.get("x-cost"),
  }));
  expect(first).toEqual({
    deduplicated: null,
    cookie: "session=leader",
    left: "7",
    correlation: "call-20",
    etag: '"1"',
    region: "eu",
    cost: "3",
  });
  expect(second).toEqual({
    deduplicated: "true",
    cookie: null,
    left: "19",
    correlation: "call-19",
    etag: '"1"',
    region: "eu",
    cost: null,
  });
  expect(deduplication.stats()).toMatchObject({
    coalesceRate: 0.5,
    methods: new Map([["sample.v1.SampleService/Echo", { calls: 2, deduplicated: 1 }]]),
  });
});

test("two principals never share", async () => {
  const { client, begun } = await serveDeduplicated();
  const call = (user: string) => client.echo({ value: "same" }, { headers: { "x-user": user } });
  const calls = [call("user:ada"), call("user:bob")];
  await expect.poll(() => begun.length).toBe(2);
  for (const { answer, context } of begun) {
    answer(callContext(context).principal.id);
  }
  expect((await Promise.all(calls)).map(({ value }) => value)).toEqual(["user:ada", "user:bob"]);
});

test("neither do two tenants, where a header names them", async () => {
  const { client, begun } = await serveDeduplicated({ keyHeaders: ["x-tenant"] });
  const call = (tenant: string) => client.echo({ value: "same" }, { headers: { "x-tenant": tenant } });
  const calls = [call("a"), call("b")];
  await expect.poll(() => begun.length).toBe(2);
  for (const { answer } of begun) {
    answer("");
  }
  await Promise.all(calls);
});

test("the leader's leaving does not touch the call that others wait for", async () => {
  const { client, begun, arrived } = await serveDeduplicated();
  const leaving = new AbortController();
  const leader = client.echo({ value: "same" }, { signal: leaving.signal }).catch(codeOf);
  await arrived(1);
  const follower = client.echo({ value: "same" });
  await arrived(2);
  leaving.abort();
  expect(await leader).toBe(Code.Canceled);
  // The server has noticed, too: only one is present now, so its leaving would cancel the work.
  const [{ context } = expect.fail("the handler was not called")] = begun;
  expect(context.signal.aborted).toBe(false);
  expect(callContext(context).signal.aborted).toBe(false);
  begun[0]?.answer("answer");
  expect((await follower).value).toBe("answer");
  expect(begun).toHaveLength(1);
});

test("a follower's leaving does not touch the others, and the last one's leaving cancels the handler", async () => {
  const { client, begun, arrived, deduplication } = await serveDeduplicated();
  const [one, two] = [new AbortController(), new AbortController()];
  const leader = client.echo({ value: "same" }, { signal: one.signal }).catch(codeOf);
  await arrived(1);
  const follower = client.echo({ value: "same" }, { signal: two.signal }).catch(codeOf);
  await arrived(2);
  two.abort();
  expect(await follower).toBe(Code.Canceled);
  expect(begun[0]?.context.signal.aborted).toBe(false);
  one.abort();
  expect(await leader).toBe(Code.Canceled);
  await expect.poll(() => begun[0]?.context.signal.aborted).toBe(true);
  expect(deduplication.stats()).toMatchObject({ cancelled: 1, inFlight: 0 });
  const newcomer = client.echo({ value: "same" });
  await expect.poll(() => begun.length).toBe(2);
  begun[1]?.answer("anew");
  expect((await newcomer).value).toBe("anew");
});

test("the leader's deadline does not fail those who have more time", async () => {
  const { client, begun, arrived } = await serveDeduplicated();
  const leader = client.echo({ value: "same" }, { timeoutMs: 300 }).catch(codeOf);
  await arrived(1);
  const follower = client.echo({ value: "same" }, { timeoutMs: 60_000 });
  await arrived(2);
  const [{ context } = expect.fail("the handler was not called")] = begun;
  expect(callContext(context).deadline).toBeGreaterThan(Date.now() + 30_000);
  expect(await leader).toBe(Code.DeadlineExceeded);
  expect(context.signal.aborted).toBe(false);
  begun[0]?.answer("late");
  expect((await follower).value).toBe("late");
});

test("a handler that goes by the leader's timeout is called again for those who have more time", async () => {
  const { client, begun, arrived } = await serveDeduplicated();
  const leader = client.echo({ value: "same" }, { timeoutMs: 30_000 }).catch(codeOf);
  await arrived(1);
  const follower = client.echo({ value: "same" }, { timeoutMs: 60_000 });
  await arrived(2);
  begun[0]?.fail(new ConnectError("its backend was told the leader's timeout", Code.DeadlineExceeded));
  expect(await leader).toBe(Code.DeadlineExceeded);
  await expect.poll(() => begun.length).toBe(2);
  begun[1]?.answer("second");
  expect((await follower).value).toBe("second");
});

test("a failure goes to everyone who waits, each with its own correlation id, and is not kept", async () => {
  const { client, begun, arrived, server } = await serveDeduplicated();
  const call = (id: string) =>
    client.echo({ value: "same" }, { headers: { "x-correlation-id": id } }).catch(ConnectError.from);
  const leader = call("one");
  await arrived(1);
  const follower = call("two");
  await arrived(2);
  const failure = new ConnectError("nothing there", Code.NotFound, {
    "retry-after": "3",
    "x-request-cost": "1",
  });
  begun[0]?.fail(failure);
  const [one, two] = await Promise.all([leader, follower]);
  for (const [error, id] of [
    [one, "one"],
    [two, "two"],
  ] as const) {
    const failed = error instanceof ConnectError ? error : expect.fail("the call did not fail");
    expect(failed).toMatchObject({ code: Code.NotFound, rawMessage: "nothing there" });
    expect(failed.metadata.get("x-correlation-id")).toBe(id);
    expect(failed.metadata.get("retry-after")).toBe("3");
    expect(failed.metadata.get("x-request-cost")).toBe(id === "one" ? "1" : null);
  }
  const again = client.echo({ value: "same" });
  await expect.poll(() => begun.length).toBe(2);
  begun[1]?.answer("now");
  expect((await again).value).toBe("now");
  expect(server.logged.filter(({ msg }) => msg === "call")).toHaveLength(3);
});

test("methods that may have side effects, and streams, are not shared", async () => {
  let calls = 0;
  const deduplication = createDeduplication();
  const server = await serveSample(
    { interceptors: [deduplication.interceptor] },
    {
      measure: () => ({ value: ++calls }),
      async *count(request, context) {
        calls++;
        yield* sampleImplementation.count?.(request, context) ?? [];
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  await Promise.all(Array.from({ length: 5 }, () => client.measure({})));
  await Promise.all(Array.from({ length: 5 }, () => Array.fromAsync(client.count({ value: 2 }))));
  expect(calls).toBe(10);
  expect(deduplication.stats().led).toBe(0);
});

test("which methods are shared can be said", async () => {
  const { client, begun } = await serveDeduplicated({ shares: () => false });
  const calls = [client.echo({ value: "same" }), client.echo({ value: "same" })];
  await expect.poll(() => begun.length).toBe(2);
  for (const { answer } of begun) {
    answer("");
  }
  await Promise.all(calls);
});

test("what outer interceptors do to one answer does not show in another", async () => {
  let number = 0;
  const mark: Interceptor = (next) => async (request) => {
    const response = await next(request);
    response.header.set("x-toolplane-mark", String(++number));
    if (!response.stream) {
      Object.assign(response.message, { value: `changed ${number}` });
    }
    return response;
  };
  const { interceptor } = createDeduplication();
  const { begun, echo } = pausedEcho();
  const transport = createRouterTransport(
    (router) => {
      router.service(SampleService, { ...sampleImplementation, echo });
    },
    { router: { interceptors: [mark, interceptor] } },
  );
  const client = createClient(SampleService, transport);
  const calls = [1, 2, 3].map(() => client.echo({ value: "same" }));
  await expect.poll(() => begun.length).toBe(1);
  begun[0]?.answer("answer");
  expect((await Promise.all(calls)).map(({ value }) => value).sort()).toEqual([
    "changed 1",
    "changed 2",
    "changed 3",
  ]);
});

test("a client that acts for several users does not give one of them what another one asked for", async () => {
  const server = await serveSample(
    {},
    { echo: (_, { requestHeader }) => ({ value: `for ${requestHeader.get("authorization") ?? "anyone"}` }) },
  );
  const { interceptor, stats } = createDeduplication();
  const transport = createGrpcTransport({ baseUrl: server.url, interceptors: [interceptor] });
  const client = createClient(SampleService, transport);
  const users = ["ada", "bob", "ada", undefined];
  const answers = users.map((user) =>
    client.echo({ value: "same" }, { headers: user === undefined ? {} : { authorization: user } }),
  );
  expect((await Promise.all(answers)).map(({ value }) => value)).toEqual([
    "for ada",
    "for bob",
    "for ada",
    "for anyone",
  ]);
  expect(stats()).toMatchObject({ led: 3, joined: 1 });
});

test("a client shares its own calls, and errors that it hands to several callers are separate objects", async () => {
  const { begun, echo } = pausedEcho();
  const server = await serveSample({}, { echo });
  const { interceptor, stats } = createDeduplication();
  const client = createClient(
    SampleService,
    createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", interceptors: [interceptor] }),
  );
  const calls = [1, 2, 3].map(() => client.echo({ value: "same" }));
  await expect.poll(() => begun.length).toBe(1);
  begun[0]?.answer("answer");
  const answers = await Promise.all(calls);
  expect(answers).toEqual([1, 2, 3].map(() => create(StringValueSchema, { value: "answer" })));
  expect(new Set(answers).size).toBe(3);

  const failing = [1, 2, 3].map(() => client.echo({ value: "same" }).catch((error: unknown) => error));
  await expect.poll(() => begun.length).toBe(2);
  begun[1]?.fail(new ConnectError("no", Code.NotFound));
  const errors = await Promise.all(failing);
  expect(new Set(errors).size).toBe(3);
  for (const error of errors) {
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({ code: Code.NotFound, isWireError: true });
  }
  expect(stats()).toMatchObject({ led: 2, joined: 4 });
});

test("a client's calls for different principals are not shared", async () => {
  const { begun, echo } = pausedEcho();
  const server = await serveSample({}, { echo });
  const as =
    (id: string): Interceptor =>
    (next) =>
    (request) => {
      request.contextValues.set(principalKey, { ...anonymous, id });
      return next(request);
    };
  const { interceptor } = createDeduplication();
  const calls = ["user:ada", "user:bob"].map((id) =>
    createClient(
      SampleService,
      createGrpcTransport({ baseUrl: server.url, interceptors: [as(id), interceptor] }),
    ).echo({ value: "same" }),
  );
  await expect.poll(() => begun.length).toBe(2);
  for (const { answer } of begun) {
    answer("");
  }
  await Promise.all(calls);
});

test("a server without serve() shares among calls of the same protocol, and breaks none", async () => {
  const begun: Begun[] = [];
  const { interceptor, stats } = createDeduplication();
  const text = "x".repeat(10_000);
  const server = createServer(
    connectNodeAdapter({
      interceptors: [interceptor],
      routes: (router) => {
        router.service(SampleService, {
          async echo(_, context) {
            const { promise, resolve, reject } = Promise.withResolvers<{ value: string }>();
            begun.push({ context, answer: (value) => resolve({ value }), fail: reject });
            return await promise;
          },
        });
      },
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const overConnect = (options: { useBinaryFormat: boolean; useHttpGet: boolean }) =>
    createConnectTransport({ baseUrl: url, httpVersion: "2", ...options });
  const clients = [
    createGrpcTransport({ baseUrl: url }),
    createGrpcTransport({ baseUrl: url, useBinaryFormat: false }),
    // Knows no compression.
    createGrpcTransport({ baseUrl: url, acceptCompression: [] }),
    createGrpcWebTransport({ baseUrl: url, httpVersion: "2" }),
    overConnect({ useBinaryFormat: true, useHttpGet: false }),
    overConnect({ useBinaryFormat: false, useHttpGet: false }),
    overConnect({ useBinaryFormat: true, useHttpGet: true }),
    overConnect({ useBinaryFormat: false, useHttpGet: true }),
  ].map((transport) => createClient(SampleService, transport));
  const calls = clients.flatMap((client) => [1, 2, 3].map(() => client.echo({ value: "same" })));
  await expect.poll(() => stats().led + stats().joined).toBe(calls.length);
  await expect.poll(() => begun.length).toBe(clients.length);
  for (const { answer } of begun) {
    answer(text);
  }
  expect((await Promise.all(calls)).every(({ value }) => value === text)).toBe(true);
});
