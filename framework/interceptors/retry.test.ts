import { createServer, type Socket } from "node:net";
import {
  Code,
  ConnectError,
  createClient,
  createContextKey,
  createContextValues,
  createRouterTransport,
  type Interceptor,
  type ServiceImpl,
  type Transport,
} from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { expect, onTestFinished, test } from "vitest";
import type { RetryEvent } from "../policies/retry/retrier.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { type RetryOptions, retry } from "./retry.ts";

const soon = { baseDelayMs: 1, maxDelayMs: 1 };
const unavailable = () => new ConnectError("not now", Code.Unavailable);

async function setUp(implementation: Partial<ServiceImpl<typeof SampleService>>, options: RetryOptions = {}) {
  const server = await serveSample({}, implementation);
  const events: RetryEvent[] = [];
  const interceptors = [retry({ ...soon, onEvent: (event) => events.push(event), ...options })];
  const client = (transport: Transport) => createClient(SampleService, transport);
  return {
    events,
    grpc: client(createGrpcTransport({ baseUrl: server.url, interceptors })),
    connect: client(createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", interceptors })),
  };
}

/** Fails as often as told; notes what the attempts say about themselves. */
function failing(times: number, error: () => ConnectError = unavailable) {
  const previous: (string | null)[] = [];
  return {
    previous,
    attempt(header: Headers) {
      previous.push(header.get("grpc-previous-rpc-attempts"));
      if (previous.length <= times) {
        throw error();
      }
    },
  };
}

test.each(["grpc", "connect"] as const)("a call without side effects is repeated: %s", async (protocol) => {
  const { previous, attempt } = failing(2);
  const clients = await setUp({
    echo(request, { requestHeader }) {
      attempt(requestHeader);
      return request;
    },
  });
  await expect(clients[protocol].echo({ value: "a" })).resolves.toMatchObject({ value: "a" });
  expect(previous).toEqual([null, "1", "2"]);
  expect(clients.events.map(({ kind }) => kind)).toEqual(["retry-scheduled", "retry-scheduled", "recovered"]);
});

test("a call that may have side effects is repeated only with a request id", async () => {
  const { previous, attempt } = failing(1);
  const { grpc, events } = await setUp({
    measure(_, { requestHeader }) {
      attempt(requestHeader);
      return { value: 1 };
    },
  });
  await expect(grpc.measure({})).rejects.toMatchObject({ code: Code.Unavailable });
  expect(events).toMatchObject([{ kind: "gave-up", reason: "not-repeatable" }]);
  previous.length = 0;
  await expect(grpc.measure({}, { headers: { "idempotency-key": "1" } })).resolves.toMatchObject({
    value: 1,
  });
  expect(previous).toEqual([null, "1"]);
});

test("the id under which a call is logged does not make it safe to repeat, nor does any for a stream", async () => {
  const { grpc, events } = await setUp({
    measure() {
      throw unavailable();
    },
    // biome-ignore lint/correctness/useYield: it fails before it has brought anything
    async *count() {
      throw unavailable();
    },
  });
  const headers = { "x-request-id": "1", "x-correlation-id": "1" };
  await expect(grpc.measure({}, { headers })).rejects.toMatchObject({ code: Code.Unavailable });
  const stream = grpc.count({ value: 3 }, { headers: { "idempotency-key": "1" } });
  await expect(Array.fromAsync(stream)).rejects.toMatchObject({ code: Code.Unavailable });
  expect(events).toMatchObject([{ reason: "not-repeatable" }, { reason: "not-repeatable" }]);
});

test("a wait that the server asks for is kept, and one that is forbidden ends the call", async () => {
  let pushBack = "20";
  const { grpc, events } = await setUp({
    echo() {
      throw new ConnectError("not now", Code.Unavailable, { "grpc-retry-pushback-ms": pushBack });
    },
  });
  await expect(grpc.echo({ value: "a" })).rejects.toMatchObject({ code: Code.Unavailable });
  expect(events.map((event) => event.kind === "retry-scheduled" && event.delayMs >= 20)).toEqual([
    true,
    true,
    false,
  ]);
  events.length = 0;
  pushBack = "-1";
  await expect(grpc.echo({ value: "a" })).rejects.toMatchObject({ code: Code.Unavailable });
  expect(events).toMatchObject([{ kind: "gave-up", reason: "forbidden" }]);
});

test.each(["grpc", "connect"] as const)("an attempt gets no more time than is left: %s", async (protocol) => {
  const { attempt } = failing(1);
  const timeouts: (number | undefined)[] = [];
  const clients = await setUp(
    {
      echo(request, { requestHeader, timeoutMs }) {
        timeouts.push(timeoutMs());
        attempt(requestHeader);
        return request;
      },
    },
    { baseDelayMs: 100, maxDelayMs: 100, random: () => 0.99 },
  );
  await clients[protocol].echo({ value: "a" }, { timeoutMs: 60_000 });
  expect(timeouts).toHaveLength(2);
  expect(timeouts[1]).toBeLessThanOrEqual(60_000 - 90);
});

test("time that takes more digits than gRPC allows is said with as many as it does", async () => {
  const { attempt } = failing(1);
  const timeouts: (string | null)[] = [];
  const transport = createRouterTransport(
    (router) =>
      router.service(SampleService, {
        echo(request, { requestHeader }) {
          timeouts.push(requestHeader.get("grpc-timeout"));
          attempt(requestHeader);
          return request;
        },
      }),
    { transport: { interceptors: [retry(soon)] } },
  );
  const headers = { "grpc-timeout": "30H" };
  await createClient(SampleService, transport).echo({ value: "a" }, { headers });
  expect(timeouts).toEqual(["30H", "99999999m"]);
});

test("a call is given up when the next wait would take it past its deadline", async () => {
  const { grpc, events } = await setUp(
    {
      echo() {
        throw unavailable();
      },
    },
    { baseDelayMs: 100_000, maxDelayMs: 100_000, random: () => 0.99 },
  );
  await expect(grpc.echo({ value: "a" }, { timeoutMs: 60_000 })).rejects.toMatchObject({
    code: Code.Unavailable,
  });
  expect(events).toMatchObject([{ kind: "gave-up", reason: "deadline" }]);
});

test("a caller that leaves during a wait is let go", async () => {
  const caller = new AbortController();
  const { grpc } = await setUp(
    {
      echo() {
        throw unavailable();
      },
    },
    { baseDelayMs: 100_000, maxDelayMs: 100_000, random: () => 0.99, onEvent: () => caller.abort() },
  );
  await expect(grpc.echo({ value: "a" }, { signal: caller.signal })).rejects.toMatchObject({
    code: Code.Canceled,
  });
});

/** For streams of methods that do not say of themselves that they may be called twice. */
const repeatable = () => true;

test("a stream is begun again as long as nothing of it has come", async () => {
  const { previous, attempt } = failing(2);
  const { grpc } = await setUp(
    {
      async *count({ value }, { requestHeader }) {
        attempt(requestHeader);
        for (let number = 1; number <= value; number++) {
          yield { value: number };
        }
      },
    },
    { repeatable },
  );
  const received: number[] = [];
  for await (const { value } of grpc.count({ value: 3 })) {
    received.push(value);
  }
  expect(received).toEqual([1, 2, 3]);
  expect(previous).toEqual([null, "1", "2"]);
  expect(await Array.fromAsync(grpc.count({ value: 0 }))).toEqual([]);
});

test("a stream that fails later has failed", async () => {
  let begun = 0;
  const { grpc } = await setUp(
    {
      async *count() {
        begun += 1;
        yield { value: 1 };
        throw unavailable();
      },
    },
    { repeatable },
  );
  const received: number[] = [];
  const read = async () => {
    for await (const { value } of grpc.count({ value: 3 })) {
      received.push(value);
    }
  };
  await expect(read()).rejects.toMatchObject({ code: Code.Unavailable });
  expect(received).toEqual([1]);
  expect(begun).toBe(1);
});

test("a reader that leaves a stream ends it on the server", async () => {
  let over = false;
  const { grpc } = await setUp(
    {
      async *flood(_, { signal }) {
        try {
          while (!signal.aborted) {
            yield { value: new Uint8Array(1_000) };
          }
        } finally {
          over = true;
        }
      },
    },
    { repeatable },
  );
  const caller = new AbortController();
  for await (const _ of grpc.flood({}, { signal: caller.signal })) {
    break;
  }
  caller.abort();
  await expect.poll(() => over).toBe(true);
});

test("calls that send a stream pass as they are", async () => {
  const { grpc, events } = await setUp({}, { repeatable });
  async function* words() {
    yield { value: "to" };
    yield { value: "be" };
  }
  await expect(grpc.join(words())).resolves.toMatchObject({ value: "to be" });
  const answers = await Array.fromAsync(grpc.chat(words()), ({ value }) => value);
  expect(answers).toEqual(["to!", "be!"]);
  expect(events).toEqual([]);
});

test("what inner interceptors add to one attempt is not in the next", async () => {
  const { attempt } = failing(2);
  const seen: (string | null)[] = [];
  const add: Interceptor = (next) => (request) => {
    request.header.append("x-tag", "once");
    return next(request);
  };
  const transport = createRouterTransport(
    (router) =>
      router.service(SampleService, {
        echo(request, { requestHeader }) {
          seen.push(requestHeader.get("x-tag"));
          attempt(requestHeader);
          return request;
        },
      }),
    { transport: { interceptors: [retry(soon), add] } },
  );
  await createClient(SampleService, transport).echo({ value: "a" });
  expect(seen).toEqual(["once", "once", "once"]);
});

test("context values reach every attempt", async () => {
  const key = createContextKey(0);
  const { attempt } = failing(1);
  const seen: number[] = [];
  const note: Interceptor = (next) => (request) => {
    seen.push(request.contextValues.get(key));
    return next(request);
  };
  const transport = createRouterTransport(
    (router) =>
      router.service(SampleService, {
        echo(request, { requestHeader }) {
          attempt(requestHeader);
          return request;
        },
      }),
    { transport: { interceptors: [retry(soon), note] } },
  );
  const contextValues = createContextValues().set(key, 7);
  await createClient(SampleService, transport).echo({ value: "a" }, { contextValues });
  expect(seen).toEqual([7, 7]);
});

test("a server that is down gets a fifth more calls, not three times as many", async () => {
  let attempts = 0;
  const transport = createRouterTransport(
    (router) =>
      router.service(SampleService, {
        echo() {
          attempts += 1;
          throw unavailable();
        },
      }),
    { transport: { interceptors: [retry(soon)] } },
  );
  const client = createClient(SampleService, transport);
  await Promise.allSettled(Array.from({ length: 500 }, () => client.echo({ value: "a" })));
  // A fifth, and three a second over ten seconds.
  expect(attempts).toBeGreaterThan(500);
  expect(attempts).toBeLessThanOrEqual(630);
});

/** Accepts connections and does with them as told, until the test is over. */
async function listen(onConnection: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === "string") {
    throw new Error("no port");
  }
  return `http://127.0.0.1:${address.port}`;
}

const transports: Readonly<Record<string, (baseUrl: string, interceptors: Interceptor[]) => Transport>> = {
  gRPC: (baseUrl, interceptors) => createGrpcTransport({ baseUrl, interceptors }),
  "gRPC-Web over HTTP/1.1": (baseUrl, interceptors) =>
    createGrpcWebTransport({ baseUrl, interceptors, httpVersion: "1.1" }),
  "Connect over HTTP/1.1": (baseUrl, interceptors) =>
    createConnectTransport({ baseUrl, interceptors, httpVersion: "1.1" }),
  "Connect over HTTP/2": (baseUrl, interceptors) =>
    createConnectTransport({ baseUrl, interceptors, httpVersion: "2" }),
};

test.each(Object.entries(transports))(
  "a connection that is lost under a call is no reason to give up: %s",
  async (_, transport) => {
    const losses: ((socket: Socket) => void)[] = [
      (socket) => socket.resetAndDestroy(),
      (socket) => socket.end(),
      (socket) => socket.once("data", () => socket.resetAndDestroy()),
      (socket) => socket.once("data", () => socket.end()),
    ];
    for (const lose of losses) {
      let connections = 0;
      const url = await listen((socket) => {
        connections += 1;
        lose(socket);
      });
      await expect(
        createClient(SampleService, transport(url, [retry(soon)])).echo({ value: "a" }),
      ).rejects.toBeInstanceOf(ConnectError);
      expect(connections).toBeGreaterThanOrEqual(3);
    }
  },
);

test.each(Object.entries(transports))(
  "a connection that is refused is retried whatever the call does: %s",
  async (_, transport) => {
    const events: RetryEvent[] = [];
    const client = createClient(
      SampleService,
      transport("http://127.0.0.1:1", [retry({ ...soon, onEvent: (event) => events.push(event) })]),
    );
    await expect(client.measure({})).rejects.toMatchObject({ code: Code.Unavailable });
    expect(events.map((event) => (event.kind === "gave-up" ? event.reason : event.kind))).toEqual([
      "retry-scheduled",
      "retry-scheduled",
      "attempts",
    ]);
  },
);
