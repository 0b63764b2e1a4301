import { once } from "node:events";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
import type { JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { anonymous } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  authorityCertificate,
  serverCertificate,
  serverKey,
} from "../../framework/test-support/certificates.ts";
import { createFakeClock, type FakeClock } from "../../framework/test-support/fake-clock.ts";
import { type ConnectionPool, createConnectionPool, type PoolLimits } from "../pool/index.ts";
import {
  goaway,
  type RawConnection,
  reset,
  startRawHttp2Server,
} from "../pool/test-support/raw-http2-server.ts";
import { readStockDescriptors } from "../pool/test-support/stock-connect-server.ts";
import type { Invoker } from "./invocation.ts";
import { createRpcBackend } from "./rpc/backend.ts";
import { discoverFromDescriptors } from "./rpc/descriptors.ts";
import type { Definition } from "./source.ts";
import { isUnreached, neverReached } from "./unreached.ts";
import { createUtcpBackend } from "./utcp/backend.ts";

const { NGHTTP2_NO_ERROR, NGHTTP2_INTERNAL_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants;
const cleanups: (() => unknown)[] = [];
let descriptors: Definition;

beforeAll(() => {
  const source = { fileDescriptorSet: readStockDescriptors() };
  const { definition } = discoverFromDescriptors({ source, services: [] });
  if (!definition) {
    throw new Error("nothing was discovered");
  }
  descriptors = definition;
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

function createPool(limits: Partial<PoolLimits> = {}): [ConnectionPool, FakeClock] {
  const clock = createFakeClock();
  const pool = createConnectionPool({
    ...{ logger: pino({ enabled: false }), clock, limits },
    tls: { ca: authorityCertificate },
  });
  cleanups.push(() => pool.close());
  return [pool, clock];
}

async function rawServer(onRequest: (stream: number, connection: RawConnection) => void): Promise<string> {
  const server = await startRawHttp2Server(onRequest);
  cleanups.push(() => server.close());
  return server.url;
}

type Call = (pool: ConnectionPool, url: string) => Promise<unknown>;

/** The error of a call of each kind. */
const kinds: readonly [string, Call][] = [
  ["a gRPC call", (pool, url) => rpc(pool, url, Protocol.GRPC, "GetQuote")],
  ["a gRPC stream", (pool, url) => rpc(pool, url, Protocol.GRPC, "WatchQuotes")],
  ["a gRPC-Web call", (pool, url) => rpc(pool, url, Protocol.GRPC_WEB, "GetQuote")],
  ["a Connect call", (pool, url) => rpc(pool, url, Protocol.CONNECT, "GetQuote")],
  ["a Connect stream", (pool, url) => rpc(pool, url, Protocol.CONNECT, "WatchQuotes")],
  ["a UTCP call", (pool, url) => utcp(pool, url)],
];

function rpc(pool: ConnectionPool, url: string, protocol: Protocol, method: string): Promise<unknown> {
  const backend = createRpcBackend({ pool, maxResultBytes: 1_000 });
  return failure(backend.invoker(descriptors, `acme.stock.v1.StockService/${method}`), url, protocol);
}

function utcp(pool: ConnectionPool, url: string, path = "/x"): Promise<unknown> {
  const template: JsonObject = { call_template_type: "http", url: path, http_method: "POST" };
  const manual = { tools: [{ name: "t", tool_call_template: template }] };
  const definition: Definition = { kind: "utcp", bytes: Buffer.from(JSON.stringify(manual)) };
  const invoker = createUtcpBackend({ pool, maxResultBytes: 1_000 }).invoker(definition, "t");
  return failure(invoker, url, Protocol.HTTP);
}

async function failure(invoker: Invoker, endpoint: string, protocol: Protocol): Promise<unknown> {
  try {
    const invocation = {
      service: "stock",
      target: { endpoint, protocol, headers: new Headers() },
      principal: anonymous,
      headers: new Headers(),
      signal: new AbortController().signal,
      timeoutMs: 60_000,
    };
    for await (const _ of invoker.invoke([invoker.parse({}, "arguments")], invocation)) {
      // Whatever comes is followed by the failure.
    }
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

describe.each(kinds)("%s", (_kind, call) => {
  it("to where nobody listens has never reached a server", async () => {
    const [pool] = createPool();
    const error = await call(pool, "https://127.0.0.1:1");
    expect([neverReached(error), isUnreached(error)]).toEqual([true, true]);
    expect(error).toMatchObject({ code: Code.Unavailable });
  });

  it("to a server that says nothing has never reached it", async () => {
    const silent = net.createServer();
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    const sockets: net.Socket[] = [];
    silent.on("connection", (socket) => sockets.push(socket));
    cleanups.push(() => {
      silent.close();
      for (const socket of sockets) {
        socket.destroy();
      }
    });
    const [pool, clock] = createPool();
    const { port } = silent.address() as AddressInfo; // what a TCP server that listens has
    const running = call(pool, `https://127.0.0.1:${port}`);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ state: "connecting" }]);
    clock.advance(5_000);
    const error = await running;
    expect([neverReached(error), isUnreached(error)]).toEqual([true, true]);
  });

  it("that waits for a connection for too long has never reached a server", async () => {
    const url = await rawServer(() => undefined);
    const [pool, clock] = createPool({
      maxConnections: 1,
      maxStreamsPerConnection: 1,
      queueTimeoutMs: 1_000,
    });
    const running = call(pool, url);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 1 }]);
    const waiting = call(pool, url);
    await expect.poll(() => pool.stats().waiting).toBe(1);
    clock.advance(1_000);
    const error = await waiting;
    expect([neverReached(error), isUnreached(error)]).toEqual([true, false]);
    await pool.close();
    expect(neverReached(await running)).toBe(false);
  });

  it.each<[string, (stream: number, connection: RawConnection) => void]>([
    ["refuses", (stream, { send }) => send(reset(stream, NGHTTP2_REFUSED_STREAM))],
    ["leaves out of its GOAWAY", (_stream, { send }) => send(goaway(0, NGHTTP2_NO_ERROR))],
    ["leaves out of a GOAWAY with an error", (_stream, { send }) => send(goaway(0, NGHTTP2_INTERNAL_ERROR))],
  ])("that the server %s has never reached it", async (_what, refuse) => {
    let requests = 0;
    const url = await rawServer((stream, connection) => {
      requests++;
      refuse(stream, connection);
    });
    const [pool] = createPool();
    const error = await call(pool, url);
    expect([neverReached(error), isUnreached(error)]).toEqual([true, true]);
    expect(error).toMatchObject({ code: Code.Unavailable });
    expect(requests).toBe(3);
  });

  it.each<[string, boolean, (stream: number, connection: RawConnection) => void]>([
    ["cuts off", true, (_stream, { cut }) => cut()],
    ["ends by a GOAWAY", true, (stream, { send }) => send(goaway(stream, NGHTTP2_INTERNAL_ERROR))],
    ["resets", false, (stream, { send }) => send(reset(stream, NGHTTP2_INTERNAL_ERROR))],
  ])("that the server %s may have reached it", async (_what, unreached, breakOff) => {
    let requests = 0;
    const url = await rawServer((stream, connection) => {
      requests++;
      breakOff(stream, connection);
    });
    const [pool] = createPool();
    const error = await call(pool, url);
    expect([neverReached(error), isUnreached(error)]).toEqual([false, unreached]);
    expect(requests).toBe(1);
  });

  it("that ends with the pool has reached a server if it was running", async () => {
    const url = await rawServer(() => undefined);
    const [pool] = createPool();
    const running = call(pool, url);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 1 }]);
    await pool.close();
    expect(neverReached(await running)).toBe(false);
    expect(neverReached(await call(pool, url))).toBe(true);
  });
});

describe("a UTCP call that was redirected", () => {
  it("may have been acted on, even when the next server refuses it", async () => {
    const server = http2.createSecureServer({ cert: serverCertificate, key: serverKey });
    const sessions: http2.ServerHttp2Session[] = [];
    server.on("session", (session) => sessions.push(session));
    server.on("stream", (stream, headers) => {
      stream.on("error", () => undefined);
      if (headers[":path"] === "/x") {
        stream.respond({ ":status": 303, location: "/result" }, { endStream: true });
      } else {
        stream.close(NGHTTP2_REFUSED_STREAM);
      }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => {
      server.close();
      for (const session of sessions) {
        session.destroy();
      }
    });
    const [pool] = createPool();
    const { port } = server.address() as AddressInfo;
    const error = await utcp(pool, `https://127.0.0.1:${port}`);
    expect(error).toMatchObject({ code: Code.Unavailable });
    expect(neverReached(error)).toBe(false);
  });
});

describe("an error of a backend", () => {
  it("is never one of a server that was not reached, whatever it says", () => {
    const error = new ConnectError("Cannot connect to the database", Code.Unavailable);
    expect([neverReached(error), isUnreached(error)]).toEqual([false, false]);
  });
});
