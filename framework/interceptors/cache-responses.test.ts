import { randomBytes } from "node:crypto";
import * as http from "node:http";
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { create, createFileRegistry, type DescMethodUnary, setExtension } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  file_google_protobuf_wrappers,
  MethodOptions_IdempotencyLevel,
  MethodOptionsSchema,
  type StringValueSchema,
} from "@bufbuild/protobuf/wkt";
import {
  type Client,
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
import { ToolOptionsSchema, tool } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { createMemoryStore } from "../policies/cache/test-support/memory-store.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import type { Gate } from "./begin-call.ts";
import { cacheHeader, createResponseCaching, type ResponseCachingOptions } from "./cache-responses.ts";
import { anonymous, callContext, principalKey } from "./call-context.ts";

const MINUTE = 60_000;

/** Calls come with their principal in a header. */
const identify: Gate = (call, context) => {
  call.principal = { ...anonymous, id: context.requestHeader.get("x-user") ?? "user:ada" };
};

type Echo = (text: string, context: HandlerContext, call: number) => string | Promise<string>;

/** A server that caches, and a handler whose answers tell how often it was called. */
async function serveCached(
  options: Partial<ResponseCachingOptions> = {},
  echo: Echo = (text, _, call) => `${text} ${call}`,
) {
  const clock = createFakeClock();
  const caching = createResponseCaching({
    name: "sample",
    clock,
    random: () => 0,
    ttlMs: () => MINUTE,
    ...options,
  });
  let calls = 0;
  const server = await serveSample(
    { interceptors: [caching.interceptor], gates: [identify] },
    {
      async echo({ value }, context) {
        context.responseHeader.set("set-cookie", "session=first");
        context.responseHeader.set("etag", '"1"');
        return { value: await echo(value, context, ++calls) };
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  return { clock, caching, server, client, calls: () => calls };
}

/** What a call brings, in short, and its headers. */
async function ask(
  client: Client<typeof SampleService>,
  value: string,
  headers: Record<string, string> = {},
) {
  let header = new Headers();
  const answer = await client.echo(
    { value },
    {
      headers,
      onHeader(received) {
        header = received;
      },
    },
  );
  return { text: answer.value, cache: header.get(cacheHeader), age: header.get("age"), header };
}

test.each(Object.entries(transports))("an answer is given again, and says so: %s", async (_, connect) => {
  const { server, clock } = await serveCached();
  const client = createClient(SampleService, connect(server.url));
  expect(await ask(client, "a")).toMatchObject({ text: "a 1", cache: "miss", age: null });
  clock.advance(2_500);
  expect(await ask(client, "a")).toMatchObject({ text: "a 1", cache: "hit", age: "2" });
  expect(await ask(client, "b")).toMatchObject({ text: "b 2", cache: "miss" });
  clock.advance(MINUTE);
  expect(await ask(client, "a")).toMatchObject({ text: "a 3", cache: "miss" });
});

test("an answer is the same over every protocol, whichever brought it", async () => {
  const { server } = await serveCached();
  const answers = [];
  for (const connect of Object.values(transports)) {
    answers.push((await ask(createClient(SampleService, connect(server.url)), "a")).text);
  }
  expect(new Set(answers)).toEqual(new Set(["a 1"]));
});

test("what describes an answer is kept with it, and what belongs to a call is not", async () => {
  const { client } = await serveCached();
  const first = await ask(client, "a");
  const second = await ask(client, "a");
  expect([first.header.get("set-cookie"), first.header.get("etag")]).toEqual(["session=first", '"1"']);
  expect([second.header.get("set-cookie"), second.header.get("etag")]).toEqual([null, '"1"']);
});

test("principals, and headers that matter, have answers of their own", async () => {
  const { client } = await serveCached({ keyHeaders: ["x-tenant"] });
  const cached = async (headers: Record<string, string>) => (await ask(client, "a", headers)).cache;
  expect(await cached({ "x-user": "user:ada" })).toBe("miss");
  expect(await cached({ "x-user": "user:bob" })).toBe("miss");
  expect(await cached({ "x-user": "user:ada", "x-tenant": "t" })).toBe("miss");
  expect(await cached({ "x-user": "user:ada", "x-other": "o" })).toBe("hit");
});

test.each(["authorization", "cookie", "x-api-key"])(
  "where nobody has found out who calls, %s has answers of its own, and is in no key",
  async (name) => {
    const store = createMemoryStore();
    const caching = createResponseCaching({
      name: "sample",
      ttlMs: () => MINUTE,
      durable: { store, secrets: [randomBytes(32)] },
    });
    const server = await serveSample(
      {},
      { echo: (_, { requestHeader }) => ({ value: `for ${requestHeader.get(name)}` }) },
    );
    const client = createClient(
      SampleService,
      createGrpcTransport({ baseUrl: server.url, interceptors: [caching.interceptor] }),
    );
    const texts = [];
    for (const secret of ["ada's", "bob's", "ada's"]) {
      texts.push((await client.echo({ value: "a" }, { headers: { [name]: secret } })).value);
    }
    expect(texts).toEqual(["for ada's", "for bob's", "for ada's"]);
    expect(caching.cache.stats()).toMatchObject({ misses: 2, memoryHits: 1 });
    await caching.cache.close();
    expect(store.rows.size).toBe(2);
    expect([...store.rows.keys()].join()).not.toContain("ada's");
  },
);

test("failures are not kept, and those who share one get errors of their own", async () => {
  const { client, caching } = await serveCached({}, async (_, __, call) => {
    if (call === 1) {
      await expect.poll(() => caching.cache.stats().entries).toBe(0);
      throw new ConnectError("not now", Code.Unavailable);
    }
    return "fine";
  });
  const outcomes = await Promise.allSettled([client.echo({ value: "a" }), client.echo({ value: "a" })]);
  for (const outcome of outcomes) {
    expect(
      outcome.status === "fulfilled" ? outcome.value.value : ConnectError.from(outcome.reason).code,
    ).toSatisfy((seen) => seen === Code.Unavailable || seen === "fine");
  }
  expect(await ask(client, "a")).toMatchObject({ text: "fine" });
});

test("an answer that must not be stored is not", async () => {
  const { client } = await serveCached({}, (text, context, call) => {
    context.responseHeader.set("cache-control", "private, no-store");
    return `${text} ${call}`;
  });
  expect(await ask(client, "a")).toMatchObject({ text: "a 1", cache: "miss" });
  expect(await ask(client, "a")).toMatchObject({ text: "a 2", cache: "miss" });
});

test("methods with side effects, and streams, pass untouched", async () => {
  const { client, caching } = await serveCached();
  await client.measure({ value: new Uint8Array(3) });
  await client.measure({ value: new Uint8Array(3) });
  for await (const _ of client.count({ value: 3 })) {
    // Only that they come.
  }
  expect(caching.cache.stats()).toMatchObject({ misses: 0, memoryHits: 0, entries: 0 });
});

test("answers are purged by method and by service, and methods can be excluded", async () => {
  const excluded = new Set<string>();
  const { client, caching } = await serveCached({ excluded: (tag) => excluded.has(tag) });
  for (const tag of ["sample.v1.SampleService", "sample.v1.SampleService/Echo"]) {
    expect((await ask(client, "a")).cache).toBe("miss");
    expect((await ask(client, "a")).cache).toBe("hit");
    expect(await caching.cache.purge({ kind: "tag", tag })).toBe(1);
  }
  excluded.add("sample.v1.SampleService/Echo");
  expect(await ask(client, "a")).toMatchObject({ text: "a 3", cache: null });
  expect(await ask(client, "a")).toMatchObject({ text: "a 4", cache: null });
});

test("after its time an answer is given at once and replaced behind the callers' backs", async () => {
  const { client, clock, caching, calls } = await serveCached(
    { staleWhileRevalidateMs: MINUTE },
    (text, context, call) => {
      // The call that asked for it is over, and this one goes on.
      expect(callContext(context).signal.aborted).toBe(false);
      expect(callContext(context).deadline).toBeGreaterThan(clock.now());
      return `${text} ${call}`;
    },
  );
  await ask(client, "a");
  clock.advance(MINUTE + 1_000);
  expect(await ask(client, "a")).toMatchObject({ text: "a 1", cache: "stale", age: "61" });
  await expect.poll(calls).toBe(2);
  await expect.poll(async () => (await ask(client, "a")).text).toBe("a 2");
  expect(caching.cache.stats()).toMatchObject({ refreshes: 1, refreshFailures: 0 });
});

test("a caller that leaves does not take the answer away from the others", async () => {
  const gate = Promise.withResolvers<string>();
  const { client, caching, calls } = await serveCached({}, () => gate.promise);
  const leaving = new AbortController();
  const first = client.echo({ value: "a" }, { signal: leaving.signal });
  await expect.poll(calls).toBe(1);
  const second = client.echo({ value: "a" }, { timeoutMs: 30_000 });
  leaving.abort();
  await expect(first).rejects.toMatchObject({ code: Code.Canceled });
  gate.resolve("late");
  expect((await second).value).toBe("late");
  expect((await ask(client, "a")).text).toBe("late");
  expect(calls()).toBe(1);
  expect(caching.cache.stats().entries).toBe(1);
});

test.each([
  ["Connect", createConnectTransport],
  ["gRPC-Web", createGrpcWebTransport],
] as const)(
  "clients cache in the same way, also of servers made without this framework: %s",
  async (_, connect) => {
    let calls = 0;
    const server = await serveSample({}, { echo: ({ value }) => ({ value: `${value} ${++calls}` }) });
    const { interceptor } = createResponseCaching({ name: "client", ttlMs: () => MINUTE });
    const client = createClient(
      SampleService,
      connect({ baseUrl: server.url, httpVersion: "1.1", interceptors: [interceptor] }),
    );
    expect(await ask(client, "a")).toMatchObject({ text: "a 1", cache: "miss" });
    expect(await ask(client, "a")).toMatchObject({ text: "a 1", cache: "hit", age: "0" });
  },
);

test("a client whose deadline was short does not fail those that have time", async () => {
  const server = await serveSample(
    {},
    {
      async echo({ value }, context) {
        if ((context.timeoutMs() ?? Number.POSITIVE_INFINITY) < 10_000) {
          await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
        }
        return { value };
      },
    },
  );
  const { interceptor, cache } = createResponseCaching({ name: "client", ttlMs: () => MINUTE });
  const client = createClient(
    SampleService,
    createGrpcTransport({ baseUrl: server.url, interceptors: [interceptor] }),
  );
  const short = client.echo({ value: "a" }, { timeoutMs: 300 });
  const long = client.echo({ value: "a" }, { timeoutMs: 60_000 });
  await expect(short).rejects.toMatchObject({ code: Code.DeadlineExceeded });
  expect((await long).value).toBe("a");
  expect(cache.stats().entries).toBe(1);
});

test("in a server made without this framework, principals set by its own interceptor count", async () => {
  const { interceptor } = createResponseCaching({ name: "router", ttlMs: () => MINUTE });
  let calls = 0;
  const authenticate: Interceptor = (next) => (request) => {
    request.contextValues.set(principalKey, { ...anonymous, id: request.header.get("x-user") ?? "" });
    return next(request);
  };
  const client = createClient(
    SampleService,
    createRouterTransport(
      (router) => {
        router.service(SampleService, {
          ...sampleImplementation,
          echo: ({ value }) => ({ value: `${value} ${++calls}` }),
        });
      },
      { router: { interceptors: [authenticate, interceptor] } },
    ),
  );
  const texts = [];
  for (const user of ["ada", "bob", "ada"]) {
    texts.push((await client.echo({ value: "a" }, { headers: { "x-user": user } })).value);
  }
  expect(texts).toEqual(["a 1", "a 2", "a 1"]);
});

test.each(["http/1.1", "h2c"])(
  "a plain Connect server caches over each of its protocols: %s",
  async (protocol) => {
    const { interceptor } = createResponseCaching({ name: "plain", ttlMs: () => MINUTE });
    let calls = 0;
    const handler = connectNodeAdapter({
      routes: (router) => {
        router.service(SampleService, {
          ...sampleImplementation,
          echo: ({ value }) => ({ value: `${value} ${++calls}` }),
        });
      },
      interceptors: [interceptor],
    });
    const server = protocol === "h2c" ? http2.createServer(handler) : http.createServer(handler);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const connections = new Set<Socket>();
    server.on("connection", (connection: Socket) => connections.add(connection));
    onTestFinished(() => {
      server.close();
      for (const connection of connections) {
        connection.destroy();
      }
    });
    const { port } = server.address() as AddressInfo;
    for (const [name, connect] of Object.entries(transports)) {
      const isHttp2 = name.includes("HTTP/2");
      if (isHttp2 === (protocol === "h2c")) {
        const client = createClient(SampleService, connect(`http://127.0.0.1:${port}`));
        const first = await ask(client, "a".repeat(5_000));
        const second = await ask(client, "a".repeat(5_000));
        expect([name, second.text, second.cache]).toEqual([name, first.text, "hit"]);
      }
    }
    expect(calls).toBeGreaterThan(0);
  },
);

test("what one caller does to its answer does not reach the next", async () => {
  const store = createMemoryStore();
  const { interceptor } = createResponseCaching({
    name: "client",
    ttlMs: () => MINUTE,
    durable: { store, secrets: [randomBytes(32)] },
  });
  const spoil: Interceptor = (next) => async (request) => {
    const response = await next(request);
    if (!response.stream) {
      Object.assign(response.message, { value: "spoiled" });
      response.header.set("etag", "spoiled");
    }
    return response;
  };
  const server = await serveSample();
  const transport = (interceptors: Interceptor[]) =>
    createGrpcTransport({ baseUrl: server.url, interceptors });
  const careless = createClient(SampleService, transport([spoil, interceptor]));
  const careful = createClient(SampleService, transport([interceptor]));
  await careless.echo({ value: "a" });
  await careless.echo({ value: "a" });
  expect(await ask(careful, "a")).toMatchObject({ text: "a", cache: "hit" });
});

test("without another word the annotation of a method says how long", async () => {
  const methods = annotatedMethods();
  const { interceptor } = createResponseCaching({ name: "annotated" });
  const transport = createRouterTransport(
    (router) => {
      for (const method of methods) {
        router.rpc(method, () => ({ value: "answer" }));
      }
    },
    { router: { interceptors: [interceptor] } },
  );
  const cached: Record<string, string | null> = {};
  for (const method of methods) {
    const { header } = await transport.unary(method, undefined, undefined, undefined, {});
    cached[method.name] = header.get(cacheHeader);
  }
  expect(cached).toEqual({ Kept: "miss", Unannotated: null, Changing: null });
});

type TextMethod = DescMethodUnary<typeof StringValueSchema, typeof StringValueSchema>;

/** Methods, some of which say how long their answers may be reused. */
function annotatedMethods(): TextMethod[] {
  const text = ".google.protobuf.StringValue";
  const methods = ["Kept", "Unannotated", "Changing"].map((name) => {
    const options = create(MethodOptionsSchema, {
      idempotencyLevel:
        name === "Changing"
          ? MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN
          : MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
    });
    if (name !== "Unannotated") {
      setExtension(options, tool, create(ToolOptionsSchema, { cacheTtl: { seconds: 60n } }));
    }
    return { name, inputType: text, outputType: text, options };
  });
  const file = create(FileDescriptorProtoSchema, {
    name: "annotated.proto",
    package: "sample.v1",
    syntax: "proto3",
    dependency: ["google/protobuf/wrappers.proto"],
    service: [{ name: "AnnotatedService", method: methods }],
  });
  const registry = createFileRegistry(file, () => file_google_protobuf_wrappers.proto);
  // The compiler cannot know what the descriptor above says.
  return (registry.getService("sample.v1.AnnotatedService")?.methods ?? []) as unknown as TextMethod[];
}
