import { once } from "node:events";
import * as http from "node:http";
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type HandlerContext,
  type Transport,
} from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import {
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Verifier } from "../access/verifier.ts";
import { createLogger } from "../logging.ts";
import { sampleImplementation } from "../test-support/sample-implementation.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";
import { callContext } from "./call-context.ts";
import { deduplicatedHeader } from "./deduplicate.ts";
import type { FinishedCall } from "./report-calls.ts";
import { type ChainParts, createServerChain, type ServerChainOptions } from "./server-chain.ts";
import { createConnectChain } from "./server-chain-connect.ts";

const ECHO = "sample.v1.SampleService/Echo";
const limit = { limit: 1_000, periodMs: 3_600_000 };

type Echo = (request: { value: string }, context: HandlerContext) => Promise<{ value: string }>;

interface Chained {
  readonly url: string;
  readonly parts: ChainParts;
  readonly calls: FinishedCall[];
  /** How often the handler was called. */
  handled(): number;
}

interface Kind {
  readonly name: string;
  start(options: ServerChainOptions, echo: Echo, version: "1.1" | "2"): Promise<Omit<Chained, "handled">>;
}

const kinds: readonly Kind[] = [
  {
    name: "serve()",
    async start(options, echo) {
      const calls: FinishedCall[] = [];
      const chain = createServerChain(options);
      const { gates, interceptors, timeoutOf } = chain;
      const { url } = await serveSample(
        { gates, interceptors, timeoutOf, onCall: (call) => calls.push(call) },
        { echo },
      );
      onTestFinished(() => chain.close());
      return { url, parts: chain.parts, calls };
    },
  },
  {
    name: "connectNodeAdapter",
    async start(options, echo, version) {
      const calls: FinishedCall[] = [];
      const chain = createConnectChain({
        ...options,
        logger: createLogger({ level: "silent" }),
        onCall: (call) => calls.push(call),
      });
      const { interceptors, requestGate } = chain;
      const adapter = connectNodeAdapter({
        interceptors,
        requestGate,
        routes: (router) => router.service(SampleService, { ...sampleImplementation, echo }),
      });
      const server = version === "2" ? http2.createServer(adapter) : http.createServer(adapter);
      const sockets = new Set<Socket>();
      server.on("connection", (socket: Socket) => sockets.add(socket));
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      onTestFinished(async () => {
        for (const socket of sockets) {
          socket.destroy();
        }
        server.close();
        await chain.close();
      });
      // A TCP server's address is always an object.
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      return { url, parts: chain.parts, calls };
    },
  },
];

const keys: Verifier = {
  verify: (token) =>
    token.startsWith("key-")
      ? { kind: "accepted", identity: { id: token, role: "operator" } }
      : { kind: "foreign" },
};

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

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

describe.each(kinds)("$name", (kind) => {
  describe.each(Object.entries(transports))("%s", (protocol, connect) => {
    async function start(
      options: ServerChainOptions,
      echo: Echo = async ({ value }) => ({ value }),
    ): Promise<Chained & { readonly client: Client<typeof SampleService> }> {
      let handled = 0;
      const counted: Echo = (request, context) => {
        handled += 1;
        return echo(request, context);
      };
      const started = await kind.start(options, counted, protocol.endsWith("HTTP/1.1") ? "1.1" : "2");
      const transport: Transport = connect(started.url);
      return { ...started, handled: () => handled, client: createClient(SampleService, transport) };
    }

    test("whoever is unknown spends nothing, and whoever is over a limit reaches nothing further in", async () => {
      const { client, parts, handled, calls } = await start({
        authenticate: { verifiers: [keys] },
        limits: { caller: { ...limit, burst: 1 } },
      });

      const unknown = await failureOf(client.echo({ value: "a" }));
      expect(unknown.code).toBe(Code.Unauthenticated);
      const invalid = await failureOf(client.echo({ value: "a" }, bearer("guess")));
      expect(reasonOf(invalid)).toBe("CREDENTIALS_INVALID");
      expect(parts.deduplication?.stats().led).toBe(0);

      await client.echo({ value: "a" }, bearer("key-ada"));
      const limited = await failureOf(client.echo({ value: "b" }, bearer("key-ada")));
      expect(limited.code).toBe(Code.ResourceExhausted);
      expect(limited.findDetails(RetryInfoSchema)).toHaveLength(1);
      expect(limited.findDetails(QuotaFailureSchema)[0]?.violations[0]?.subject).toBe("caller:key-ada");
      await client.echo({ value: "c" }, bearer("key-bob"));

      expect(parts.deduplication?.stats().led).toBe(2);
      expect(handled()).toBe(2);
      await expect
        .poll(() => calls.map(({ code, principal }) => [code, principal.id]))
        .toEqual([
          ["unauthenticated", "anonymous"],
          ["unauthenticated", "anonymous"],
          ["ok", "key-ada"],
          ["resource_exhausted", "key-ada"],
          ["ok", "key-bob"],
        ]);
    });

    test("what is kept is answered whatever the breaker says, and is no success for it", async () => {
      const { client, parts, handled } = await start({
        cache: { name: "sample" },
        methods: { [ECHO]: { cacheTtlMs: 60_000 } },
      });
      for (let call = 0; call < 5; call++) {
        expect((await client.echo({ value: "kept" })).value).toBe("kept");
      }
      expect(handled()).toBe(1);
      expect(parts.breakers?.get(`method/${ECHO}`).snapshot().window.calls).toBe(1);

      parts.breakers?.isolate(`method/${ECHO}`);
      expect((await client.echo({ value: "kept" })).value).toBe("kept");
      const refused = await failureOf(client.echo({ value: "new" }));
      expect(refused.code).toBe(Code.Unavailable);
      expect(reasonOf(refused)).toBe("CIRCUIT_OPEN");
      expect(handled()).toBe(1);
    });

    test("identical calls of one principal are one execution for the breaker", async () => {
      const executions = Promise.withResolvers<void>();
      const { client, parts, handled } = await start(
        { authenticate: { verifiers: [keys] } },
        async (request) => {
          await executions.promise;
          return request;
        },
      );
      const shared: string[] = [];
      const onHeader = (headers: Headers) => shared.push(headers.get(deduplicatedHeader) ?? "own");
      const all = ["key-ada", "key-ada", "key-ada", "key-bob"].map((key) =>
        client.echo({ value: "a" }, { ...bearer(key), onHeader }),
      );
      await expect.poll(() => parts.deduplication?.stats()).toMatchObject({ led: 2, joined: 2 });
      executions.resolve();
      await Promise.all(all);
      expect(handled()).toBe(2);
      expect(shared.toSorted()).toEqual(["own", "own", "true", "true"]);
      expect(parts.breakers?.get(`method/${ECHO}`).snapshot().window.calls).toBe(2);
    });

    test("a method may be told not to share, and how many calls run at once", async () => {
      const executions = Promise.withResolvers<void>();
      const { client, parts, handled } = await start(
        { methods: { [ECHO]: { sharing: false, maxConcurrency: 2 } } },
        async (request) => {
          await executions.promise;
          return request;
        },
      );
      const admitted = [client.echo({ value: "a" }), client.echo({ value: "a" })];
      await expect.poll(handled).toBe(2);
      const refused = await failureOf(client.echo({ value: "a" }));
      expect(reasonOf(refused)).toBe("TOO_MANY_CALLS");
      executions.resolve();
      await Promise.all(admitted);
      expect(parts.deduplication?.stats().led).toBe(0);
    });

    test("a method's timeout is the deadline of calls that name none or a later one", async () => {
      const deadlines: number[] = [];
      const { client } = await start({ methods: { [ECHO]: { timeoutMs: 50 } } }, (_, context) => {
        deadlines.push(callContext(context).deadline - Date.now());
        return new Promise(() => {});
      });
      expect((await failureOf(client.echo({ value: "a" }))).code).toBe(Code.DeadlineExceeded);
      const later = await failureOf(client.echo({ value: "b" }, { timeoutMs: 3_600_000 }));
      expect(later.code).toBe(Code.DeadlineExceeded);
      for (const deadline of deadlines) {
        expect(deadline).toBeLessThanOrEqual(50);
      }
    });

    test("a caller that leaves ends its execution, gives its place back and is no failure", async () => {
      let ended: unknown;
      const { client, parts, handled } = await start(
        {},
        (_, { signal }) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener("abort", () => {
              ended = signal.reason;
              reject(signal.reason);
            });
          }),
      );
      const caller = new AbortController();
      const call = failureOf(client.echo({ value: "a" }, { signal: caller.signal }));
      await expect.poll(handled).toBe(1);
      caller.abort();
      expect((await call).code).toBe(Code.Canceled);
      await expect.poll(() => ended).toBeDefined();
      await expect.poll(() => parts.concurrency?.stats()[0]?.inFlight).toBe(0);
      expect(parts.deduplication?.stats()).toMatchObject({ inFlight: 0, cancelled: 1 });
      expect(parts.breakers?.get(`method/${ECHO}`).snapshot().window).toMatchObject({
        calls: 0,
        failures: 0,
      });
    });

    test("failures of the handler are told nothing but their id, and open the breaker", async () => {
      const { client, handled } = await start({}, () => Promise.reject(new Error("the disk is full")));
      for (let call = 0; call < 3; call++) {
        const failure = await failureOf(client.echo({ value: `${call}` }));
        expect(failure.code).toBe(Code.Internal);
        expect(failure.rawMessage).not.toContain("disk");
        expect(reasonOf(failure)).toBe("INTERNAL");
      }
      expect(reasonOf(await failureOf(client.echo({ value: "a" })))).toBe("CIRCUIT_OPEN");
      expect(handled()).toBe(3);
    });

    test("what the server sheds does not open its breaker", async () => {
      const executions = Promise.withResolvers<void>();
      const { client, parts, handled } = await start(
        { concurrency: { min: 1, initial: 1, max: 1 } },
        async (request) => {
          await executions.promise;
          return request;
        },
      );
      const admitted = client.echo({ value: "a" });
      await expect.poll(handled).toBe(1);
      for (let call = 0; call < 5; call++) {
        const shed = await failureOf(client.echo({ value: `${call}` }));
        expect(reasonOf(shed)).toBe("OVERLOADED");
      }
      executions.resolve();
      await admitted;
      expect(parts.breakers?.list().map(({ state }) => state.kind)).toEqual(["closed", "closed"]);
    });

    test("streams pass all that applies to them", async () => {
      const { client, calls } = await start({
        authenticate: { verifiers: [keys] },
        limits: { global: { ...limit, burst: 2 } },
      });
      const numbers = await Array.fromAsync(client.count({ value: 3 }, bearer("key-ada")));
      expect(numbers.map(({ value }) => value)).toEqual([1, 2, 3]);
      const joined = await client.join(texts("a", "b"), bearer("key-ada"));
      expect(joined.value).toBe("a b");
      const limited = await failureOf(Array.fromAsync(client.count({ value: 3 }, bearer("key-ada"))));
      expect(limited.code).toBe(Code.ResourceExhausted);
      await expect
        .poll(() => calls.map(({ method, code }) => [method, code]))
        .toEqual([
          ["sample.v1.SampleService/Count", "ok"],
          ["sample.v1.SampleService/Join", "ok"],
          ["sample.v1.SampleService/Count", "resource_exhausted"],
        ]);
    });
  });
});

async function* texts(...values: string[]) {
  for (const value of values) {
    yield { value };
  }
}
