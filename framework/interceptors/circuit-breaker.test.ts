import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import {
  Code,
  ConnectError,
  createClient,
  createContextValues,
  type Interceptor,
  type ServiceImpl,
} from "@connectrpc/connect";
import { connectNodeAdapter, createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { systemClock } from "../clock.ts";
import { DomainError } from "../errors/domain-error.ts";
import { createBreakerSet } from "../policies/breaker/breaker-set.ts";
import type { BreakerOptions } from "../policies/breaker/options.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import { principalKey } from "./call-context.ts";
import { type CircuitBreakerOptions, circuitBreaker } from "./circuit-breaker.ts";
import { fixedResponse, lastGoodResponse } from "./circuit-breaker-fallback.ts";
import { outcomeOfCode } from "./circuit-breaker-outcome.ts";
import { circuitOpenError, isCircuitOpen } from "./circuit-breaker-refusal.ts";
import { keepOwnHeaders } from "./own-headers.ts";

type Implementation = Partial<ServiceImpl<typeof SampleService>>;

const method = (name: string) => `method/sample.v1.SampleService/${name}`;
const service = "service/sample.v1.SampleService";
const broken = () => new ConnectError("the disk is full", Code.Internal);

function setUpBreakers(options: BreakerOptions = {}) {
  const clock = createFakeClock();
  const breakers = createBreakerSet({ defaults: { clock, ...options } });
  return {
    clock,
    breakers,
    stateOf: (name: string) => breakers.get(name).snapshot(),
  };
}

/** A server without breakers and a client with them. */
async function clientSide(implementation: Implementation, options: CircuitBreakerOptions = {}, breaker = {}) {
  const parts = setUpBreakers(breaker);
  const server = await serveSample({}, implementation);
  const interceptors = [circuitBreaker({ breakers: parts.breakers, clock: parts.clock, ...options })];
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url, interceptors }));
  return { ...parts, client };
}

/** A server with breakers and a client without. */
async function serverSide(implementation: Implementation, options: CircuitBreakerOptions = {}, breaker = {}) {
  const parts = setUpBreakers(breaker);
  const interceptor = circuitBreaker({
    breakers: parts.breakers,
    clock: parts.clock,
    side: "server",
    ...options,
  });
  const server = await serveSample({ interceptors: [interceptor] }, implementation);
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  return { ...parts, client, url: server.url };
}

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(
    () => {
      throw new Error("the call succeeded");
    },
    (error: unknown) => ConnectError.from(error),
  );
}

async function drain(messages: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of messages) {
    count++;
  }
  return count;
}

async function* texts(...values: string[]) {
  for (const value of values) {
    yield { value };
  }
}

describe("on a client", () => {
  test("three failures open the method's breaker: calls are refused at once, until probes succeed", async () => {
    let health: "broken" | "well" = "broken";
    const echo = vi.fn((request: { value: string }) => {
      if (health === "broken") {
        throw broken();
      }
      return request;
    });
    const { client, clock, stateOf } = await clientSide({ echo });
    for (let call = 0; call < 3; call++) {
      expect(await failure(client.echo({ value: "a" }))).toMatchObject({ code: Code.Internal });
    }
    clock.advance(10_000);
    const refusal = await failure(client.echo({ value: "a" }));
    expect(echo).toHaveBeenCalledTimes(3);
    expect(isCircuitOpen(refusal)).toBe(true);
    expect(refusal).toMatchObject({
      code: Code.Unavailable,
      rawMessage: `"${method("Echo")}" has failed and is not called for now; try again in 20 s`,
    });
    expect(refusal.findDetails(ErrorInfoSchema)).toMatchObject([
      { reason: "CIRCUIT_OPEN", domain: "toolplane", metadata: { breaker: method("Echo"), state: "open" } },
    ]);
    expect(refusal.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds: 20n } }]);
    expect(refusal.metadata.get("retry-after")).toBe("20");
    expect(await client.measure({ value: new Uint8Array(3) })).toMatchObject({ value: 3 });

    health = "well";
    clock.advance(20_000);
    await client.echo({ value: "a" });
    await client.echo({ value: "a" });
    expect(stateOf(method("Echo"))).toMatchObject({
      state: { kind: "closed" },
      rejected: 1,
      lastFailure: { text: "[internal] the disk is full" },
    });
  });

  test("what cannot be reached opens the breaker of the whole service", async () => {
    const { breakers, clock } = setUpBreakers();
    const interceptors = [circuitBreaker({ breakers, clock })];
    // Nothing listens there: the port is reserved, and closed again.
    const reserved = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => reserved.once("listening", resolve));
    const { port } = reserved.address() as AddressInfo;
    await new Promise((resolve) => reserved.close(resolve));
    const client = createClient(
      SampleService,
      createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}`, interceptors }),
    );
    await failure(client.echo({}));
    await failure(client.measure({}));
    await failure(client.reflect({}));
    const refusal = await failure(client.join(texts("a")));
    expect(refusal.findDetails(ErrorInfoSchema)).toMatchObject([{ metadata: { breaker: service } }]);
  });

  test("no number of the caller's mistakes opens a breaker", async () => {
    const mistakes = [
      Code.InvalidArgument,
      Code.NotFound,
      Code.AlreadyExists,
      Code.PermissionDenied,
      Code.Unauthenticated,
      Code.FailedPrecondition,
      Code.OutOfRange,
      Code.Unimplemented,
      Code.Aborted,
      Code.Canceled,
      Code.ResourceExhausted,
    ];
    const { client, breakers } = await clientSide({
      echo({ value }) {
        throw new ConnectError("no", Number(value));
      },
    });
    for (let round = 0; round < 5; round++) {
      for (const code of mistakes) {
        expect(await failure(client.echo({ value: String(code) }))).toMatchObject({ code });
      }
    }
    expect(breakers.list()).toMatchObject([
      { state: { kind: "closed" }, window: { calls: 0 } },
      { state: { kind: "closed" }, window: { calls: 0 } },
    ]);
  });

  test("a backend that hangs opens it, by the deadlines that pass", async () => {
    const { client, stateOf } = await clientSide({ echo: () => new Promise(() => {}) });
    for (let call = 0; call < 3; call++) {
      expect(await failure(client.echo({}, { timeoutMs: 5 }))).toMatchObject({
        code: Code.DeadlineExceeded,
      });
    }
    expect(stateOf(method("Echo")).state.kind).toBe("open");
    expect(stateOf(service).state.kind).toBe("closed");
  });

  test("a caller with less time than calls usually take does not open it", async () => {
    const { client, clock, stateOf } = await clientSide({
      async echo(request, { signal }) {
        if (request.value === "hang") {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        } else {
          clock.advance(1_000);
        }
        return request;
      },
    });
    await client.echo({ value: "usual" });
    for (let call = 0; call < 10; call++) {
      await failure(client.echo({ value: "hang" }, { timeoutMs: 5 }));
    }
    expect(stateOf(method("Echo"))).toMatchObject({ consecutiveFailures: 0, window: { calls: 1 } });
  });

  test("callers that leave say nothing, and give the places of probes back", async () => {
    let hangs = false;
    const { client, clock, stateOf } = await clientSide({
      echo() {
        if (hangs) {
          return new Promise(() => {});
        }
        throw broken();
      },
    });
    for (let call = 0; call < 3; call++) {
      await failure(client.echo({}));
    }
    hangs = true;
    clock.advance(30_000);
    for (let round = 0; round < 5; round++) {
      const leaving = new AbortController();
      const probes = [1, 2].map(() => failure(client.echo({}, { signal: leaving.signal })));
      await expect.poll(() => stateOf(method("Echo")).state).toMatchObject({ probing: 2 });
      expect(isCircuitOpen(await failure(client.echo({})))).toBe(true);
      leaving.abort();
      for (const probe of probes) {
        expect(await probe).toMatchObject({ code: Code.Canceled });
      }
      expect(stateOf(method("Echo")).state).toMatchObject({ kind: "half-open", probing: 0 });
    }
  });

  test("refusals of an inner breaker do not count for an outer one", async () => {
    const outer = setUpBreakers();
    const inner = setUpBreakers();
    inner.breakers.isolate(method("Echo"));
    const server = await serveSample();
    const interceptors = [circuitBreaker(outer), circuitBreaker(inner)];
    const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url, interceptors }));
    for (let call = 0; call < 5; call++) {
      const refusal = await failure(client.echo({}));
      expect(refusal.rawMessage).toContain("is isolated");
      expect(refusal.findDetails(RetryInfoSchema)).toEqual([]);
    }
    expect(outer.stateOf(method("Echo"))).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
  });

  test("slow answers open it where it is said what slow means", async () => {
    const { client, clock, stateOf } = await clientSide(
      {
        echo(request) {
          clock.advance(500);
          return request;
        },
      },
      {},
      { slowCallMs: 500 },
    );
    for (let call = 0; call < 10; call++) {
      await client.echo({});
    }
    expect(stateOf(method("Echo")).state).toMatchObject({ kind: "open", cause: "slow-call-rate" });
  });

  test("names and meanings may be given", async () => {
    const { client, breakers } = await clientSide(
      {
        echo() {
          throw new ConnectError("full", Code.ResourceExhausted);
        },
      },
      { namesOf: () => ["instance/i-1"], outcomeFor: () => "failure" },
    );
    for (let call = 0; call < 4; call++) {
      await failure(client.echo({}));
    }
    expect(breakers.list()).toMatchObject([{ name: "instance/i-1", state: { kind: "open" }, rejected: 1 }]);
  });
});

describe("streams", () => {
  test("their result is how they end", async () => {
    const { client, stateOf } = await clientSide({
      async *count({ value }) {
        yield { value: 1 };
        if (value === 0) {
          throw broken();
        }
      },
    });
    for (let call = 0; call < 2; call++) {
      await failure(drain(client.count({ value: 0 })));
    }
    const reading = client.count({ value: 1 })[Symbol.asyncIterator]();
    await reading.next();
    expect(stateOf(method("Count"))).toMatchObject({ consecutiveFailures: 2 });
    await reading.next();
    expect(stateOf(method("Count"))).toMatchObject({ consecutiveFailures: 0, window: { calls: 3 } });
  });

  test("one that lasts closes a probing breaker with its first message", async () => {
    let well = false;
    const { client, clock, stateOf } = await clientSide({
      async *count(_, { signal }) {
        if (!well) {
          throw broken();
        }
        yield { value: 1 };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    for (let call = 0; call < 3; call++) {
      await failure(drain(client.count({})));
    }
    well = true;
    clock.advance(30_000);
    const leaving = new AbortController();
    const streams = [1, 2].map(() => client.count({}, { signal: leaving.signal })[Symbol.asyncIterator]());
    for (const stream of streams) {
      await stream.next();
    }
    expect(stateOf(method("Count")).state.kind).toBe("closed");
    leaving.abort();
    for (const stream of streams) {
      expect(await failure(stream.next())).toMatchObject({ code: Code.Canceled });
    }
    expect(stateOf(method("Count"))).toMatchObject({ window: { calls: 0 } });
  });

  test("how long a caller watches is its own affair", async () => {
    const { client, stateOf } = await clientSide({
      async *count(_, { signal }) {
        yield { value: 1 };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    await Promise.all(
      Array.from({ length: 5 }, async () => {
        const stream = client.count({}, { timeoutMs: 1_000 })[Symbol.asyncIterator]();
        await stream.next();
        expect(await failure(stream.next())).toMatchObject({ code: Code.DeadlineExceeded });
      }),
    );
    expect(stateOf(method("Count"))).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
  });

  test("a caller whose own messages fail says nothing about the backend", async () => {
    const { client, stateOf } = await clientSide({});
    async function* failing() {
      yield { value: "a" };
      throw new Error("the caller's file cannot be read");
    }
    for (let call = 0; call < 5; call++) {
      await failure(client.join(failing()));
    }
    expect(stateOf(method("Join"))).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
    expect(await client.join(texts("a", "b"))).toMatchObject({ value: "a b" });
    expect(await drain(client.chat(texts("a", "b")))).toBe(2);
    expect(stateOf(method("Chat"))).toMatchObject({ window: { calls: 1, failures: 0 } });
  });

  test("they are refused like other calls", async () => {
    const { client, breakers } = await clientSide({});
    breakers.isolate(service);
    for (const call of [
      client.join(texts("a")),
      drain(client.count({ value: 1 })),
      drain(client.chat(texts("a"))),
    ]) {
      expect(isCircuitOpen(await failure(call))).toBe(true);
    }
  });
});

describe("on a server", () => {
  test.each(Object.keys(transports))("a broken method is refused, with reason and time: %s", async (name) => {
    const { url, stateOf } = await serverSide({
      echo() {
        throw new Error("a bug");
      },
    });
    const transport = transports[name]?.(url);
    if (transport === undefined) {
      throw new Error(name);
    }
    const client = createClient(SampleService, transport);
    for (let call = 0; call < 3; call++) {
      expect(await failure(client.echo({}))).toMatchObject({ code: Code.Internal });
    }
    const refusal = await failure(client.echo({}));
    expect(isCircuitOpen(refusal)).toBe(true);
    expect(refusal.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds: 30n } }]);
    expect(refusal.metadata.get("retry-after")).toBe("30");
    expect(await drain(client.count({ value: 3 }))).toBe(3);
    expect(stateOf(method("Count"))).toMatchObject({ window: { calls: 1, failures: 0 } });
  });

  test("a handler that outlives the deadline counts when the deadline passes", async () => {
    const { url, stateOf } = await serverSide({ echo: () => new Promise(() => {}) });
    const client = createClient(SampleService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
    // A client that says how long it waits, but does not give up by itself.
    const headers = { "connect-timeout-ms": "20" };
    for (let call = 0; call < 3; call++) {
      expect(await failure(client.echo({}, { headers }))).toMatchObject({ code: Code.DeadlineExceeded });
    }
    expect(stateOf(method("Echo")).state.kind).toBe("open");
  });

  test("a client that gives up at its deadline, just before the server does, counts as well", async () => {
    // Deadlines pass in real time.
    const breakers = createBreakerSet();
    const { client } = await serverSide(
      { echo: () => new Promise(() => {}) },
      { breakers, clock: systemClock },
    );
    await expect
      .poll(async () => {
        await failure(client.echo({}, { timeoutMs: 200 }));
        return breakers.get(method("Echo")).state;
      })
      .toBe("open");
  });

  test("callers that leave and messages that are not valid do not count", async () => {
    const { client, stateOf } = await serverSide({ echo: () => new Promise(() => {}) });
    for (let call = 0; call < 5; call++) {
      const leaving = new AbortController();
      const call = failure(client.echo({}, { signal: leaving.signal }));
      leaving.abort();
      await call;
    }
    await failure(
      client.join(
        (async function* () {
          yield { value: "a" };
          throw new Error("gone");
        })(),
      ),
    );
    expect(stateOf(method("Echo"))).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
    expect(stateOf(method("Join"))).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
  });

  test("backends that fail do not shut the method that calls them", async () => {
    const backend = await serveSample(
      {},
      {
        echo() {
          throw broken();
        },
      },
    );
    const downstream = createClient(SampleService, createGrpcTransport({ baseUrl: backend.url }));
    const refusal = circuitOpenError({ allowed: false, name: "b", state: "open", retryAfterMs: 1 });
    const { client, stateOf } = await serverSide({
      async echo({ value }) {
        switch (value) {
          case "refused":
            throw refusal;
          case "translated":
            throw new DomainError({
              code: Code.Unavailable,
              reason: "BACKEND_DOWN",
              message: "down",
              cause: await failure(downstream.echo({})),
            });
          default:
            return await downstream.echo({});
        }
      },
    });
    for (const value of ["", "refused", "translated"]) {
      for (let call = 0; call < 4; call++) {
        await failure(client.echo({ value }));
      }
    }
    expect(stateOf(method("Echo"))).toMatchObject({ state: { kind: "closed" }, window: { calls: 0 } });
  });
});

describe("fallbacks", () => {
  test("the last good answer to the same request is given again, marked as stale", async () => {
    const { clock, breakers } = setUpBreakers();
    const server = await serveSample({}, { echo: (request) => request });
    const fallback = lastGoodResponse({ clock, maxAgeMs: 60_000 });
    const client = createClient(
      SampleService,
      createGrpcTransport({
        baseUrl: server.url,
        interceptors: [circuitBreaker({ breakers, clock, fallback })],
      }),
    );
    let header = new Headers();
    const options = { onHeader: (received: Headers) => (header = received) };
    await client.echo({ value: "a" }, options);
    expect(header.has("x-toolplane-stale")).toBe(false);
    await client.measure({ value: new Uint8Array(1) });

    breakers.isolate(service);
    clock.advance(59_000);
    expect(await client.echo({ value: "a" }, options)).toMatchObject({ value: "a" });
    expect(Object.fromEntries(header)).toMatchObject({
      "x-toolplane-stale": "true",
      "x-toolplane-fallback": "last-good",
      age: "59",
    });
    expect(isCircuitOpen(await failure(client.echo({ value: "b" })))).toBe(true);
    // It may have had an effect the first time.
    expect(isCircuitOpen(await failure(client.measure({ value: new Uint8Array(1) })))).toBe(true);
    const bearer = { headers: { authorization: "Bearer somebody" } };
    expect(isCircuitOpen(await failure(client.echo({ value: "a" }, bearer)))).toBe(true);
    const other = createContextValues().set(principalKey, { id: "user:eve", role: "caller" });
    expect(isCircuitOpen(await failure(client.echo({ value: "a" }, { contextValues: other })))).toBe(true);
    clock.advance(2_000);
    expect(isCircuitOpen(await failure(client.echo({ value: "a" })))).toBe(true);
  });

  test.each(Object.entries(transports))("answers reach every kind of client: %s", async (_, transport) => {
    for (const fallback of [lastGoodResponse(), fixedResponse(() => ({ value: "a" }))]) {
      const parts = await serverSide({}, { fallback });
      const client = createClient(SampleService, transport(parts.url));
      await client.echo({ value: "a" });
      parts.breakers.isolate(service);
      let header = new Headers();
      const options = { onHeader: (received: Headers) => (header = received) };
      expect(await client.echo({ value: "a" }, options)).toMatchObject({ value: "a" });
      expect(header.get("x-toolplane-fallback")).toMatch(/^(last-good|fixed)$/);
    }
  });

  test("an answer that cannot be kept is given all the same", async () => {
    const remember = () => {
      throw new TypeError("the fallback is broken");
    };
    const { client } = await clientSide({}, { fallback: { remember, answer: () => undefined } });
    await expect(client.echo({ value: "a" })).resolves.toMatchObject({ value: "a" });
  });

  test("a fixed answer stands in where there is one", async () => {
    const fallback = fixedResponse(({ method: { name } }) => (name === "Measure" ? { value: 0 } : undefined));
    const { client, breakers } = await clientSide({}, { fallback });
    breakers.isolate(service);
    expect(await client.measure({ value: new Uint8Array(3) })).toMatchObject({ value: 0 });
    expect(isCircuitOpen(await failure(client.echo({})))).toBe(true);
  });

  test("on any Connect server, a gate keeps what an answer needs", async () => {
    const { breakers, clock } = setUpBreakers();
    const interceptors: Interceptor[] = [
      circuitBreaker({ breakers, clock, side: "server", fallback: lastGoodResponse() }),
    ];
    const server = createServer(
      connectNodeAdapter({
        routes: (router) => {
          router.service(SampleService, sampleImplementation);
        },
        interceptors,
        requestGate: keepOwnHeaders,
      }),
    ).listen(0, "127.0.0.1");
    onTestFinished(() => {
      server.close();
    });
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    const baseUrl = `http://127.0.0.1:${port}`;
    const clients = [
      createGrpcTransport({ baseUrl }),
      createConnectTransport({ baseUrl, httpVersion: "2" }),
    ].map((transport) => createClient(SampleService, transport));
    await clients[0]?.echo({ value: "a" });
    breakers.isolate(service);
    for (const client of clients) {
      expect(await client.echo({ value: "a" })).toMatchObject({ value: "a" });
    }
  });
});

test("every code has a meaning", () => {
  const codes = Object.values(Code).filter((code) => typeof code === "number");
  expect(codes.filter((code) => outcomeOfCode(code) === "failure")).toEqual([
    Code.Unknown,
    Code.DeadlineExceeded,
    Code.Internal,
    Code.Unavailable,
    Code.DataLoss,
  ]);
});
