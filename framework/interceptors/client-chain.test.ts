import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { describe, expect, onTestFinished, test } from "vitest";
import { createBreakerSet } from "../policies/breaker/breaker-set.ts";
import { createAdaptiveRate } from "../policies/rate-limit/adaptive-rate.ts";
import { startHttp2Server } from "../test-support/http2-server.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { type ClientChainOptions, createClientChain } from "./client-chain.ts";

const ECHO = "sample.v1.SampleService/Echo";
const quick = { baseDelayMs: 1 };

type Echo = (value: string, call: number) => Promise<string>;

const unavailable = () => Promise.reject(new ConnectError("not now", Code.Unavailable));

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

const reasonOf = (error: ConnectError) => error.findDetails(ErrorInfoSchema)[0]?.reason;

const protocols = {
  gRPC: createGrpcTransport,
  "gRPC-Web": (options: Parameters<typeof createGrpcTransport>[0]) =>
    createGrpcWebTransport({ ...options, httpVersion: "2" }),
  Connect: (options: Parameters<typeof createGrpcTransport>[0]) =>
    createConnectTransport({ ...options, httpVersion: "2" }),
};

describe.each(Object.entries(protocols))("%s", (_name, createTransport) => {
  async function start(options: ClientChainOptions, echo: Echo = async (value) => value) {
    let handled = 0;
    const server = await startHttp2Server((router) =>
      router.service(SampleService, {
        ...sampleImplementation,
        echo: async ({ value }) => ({ value: await echo(value, ++handled) }),
      }),
    );
    onTestFinished(() => server.close());
    const transport = createTransport({ baseUrl: server.url, interceptors: createClientChain(options) });
    return { client: createClient(SampleService, transport), handled: () => handled };
  }

  test("those who share a call share its attempts", async () => {
    const first = Promise.withResolvers<void>();
    const { client, handled } = await start({ retry: quick }, async (value, call) => {
      await first.promise;
      return call === 1 ? await unavailable() : value;
    });
    const all = Array.from({ length: 10 }, () => client.echo({ value: "a" }));
    await expect.poll(handled).toBe(1);
    first.resolve();
    expect((await Promise.all(all)).map(({ value }) => value)).toEqual(Array(10).fill("a"));
    expect(handled()).toBe(2);
  });

  test("each attempt counts for the breaker, whose refusal ends the call", async () => {
    const breakers = createBreakerSet();
    const { client, handled } = await start(
      { retry: { ...quick, attempts: 10 }, breaker: { breakers } },
      unavailable,
    );
    const failure = await failureOf(client.echo({ value: "a" }));
    expect(reasonOf(failure)).toBe("CIRCUIT_OPEN");
    // Three failures in a row open it.
    expect(handled()).toBe(3);
    expect(reasonOf(await failureOf(client.echo({ value: "b" })))).toBe("CIRCUIT_OPEN");
    expect(handled()).toBe(3);
  });

  test("what is kept is not asked for, also while the breaker is open", async () => {
    const breakers = createBreakerSet();
    const { client, handled } = await start({
      cache: { name: "sample" },
      methods: { [ECHO]: { cacheTtlMs: 60_000 } },
      breaker: { breakers },
    });
    await client.echo({ value: "kept" });
    breakers.isolate(`method/${ECHO}`);
    expect((await client.echo({ value: "kept" })).value).toBe("kept");
    expect(reasonOf(await failureOf(client.echo({ value: "new" })))).toBe("CIRCUIT_OPEN");
    expect(handled()).toBe(1);
  });

  test("every attempt takes its turn of the adaptive rate", async () => {
    const rate = createAdaptiveRate();
    onTestFinished(() => rate.close());
    const { client, handled } = await start(
      { retry: quick, adaptiveRate: { rateOf: () => rate } },
      async (value, call) => (call < 3 ? await unavailable() : value),
    );
    expect((await client.echo({ value: "a" })).value).toBe("a");
    expect(handled()).toBe(3);
    expect(rate.stats()).toMatchObject({ acquired: 3 });
  });

  test("a method may be told how often it is tried, and not to share", async () => {
    const { client, handled } = await start(
      { methods: { [ECHO]: { retryAttempts: 1, sharing: false } }, retry: quick },
      unavailable,
    );
    const failures = await Promise.all(
      [client.echo({ value: "a" }), client.echo({ value: "a" })].map(failureOf),
    );
    expect(failures.map(({ code }) => code)).toEqual([Code.Unavailable, Code.Unavailable]);
    expect(handled()).toBe(2);
  });

  test("a caller that leaves is no failure, and nothing is tried for it again", async () => {
    const breakers = createBreakerSet();
    const { client, handled } = await start(
      { retry: quick, breaker: { breakers } },
      () => new Promise(() => {}),
    );
    const caller = new AbortController();
    const call = failureOf(client.echo({ value: "a" }, { signal: caller.signal }));
    await expect.poll(handled).toBe(1);
    caller.abort();
    expect((await call).code).toBe(Code.Canceled);
    expect(handled()).toBe(1);
    expect(breakers.get(`method/${ECHO}`).snapshot().window.calls).toBe(0);
  });

  test("streams pass, and a stream that ends well is a success", async () => {
    const breakers = createBreakerSet();
    const { client } = await start({ breaker: { breakers } });
    const numbers = await Array.fromAsync(client.count({ value: 3 }));
    expect(numbers.map(({ value }) => value)).toEqual([1, 2, 3]);
    const counted = breakers.get("method/sample.v1.SampleService/Count").snapshot().window;
    expect(counted).toMatchObject({ calls: 1, failures: 0 });
  });

  test("nothing is left of what is switched off", async () => {
    const { client, handled } = await start(
      { deduplication: false, retry: false, breaker: false },
      unavailable,
    );
    for (let call = 0; call < 5; call++) {
      expect((await failureOf(client.echo({ value: "a" }))).rawMessage).toBe("not now");
    }
    expect(handled()).toBe(5);
  });
});
