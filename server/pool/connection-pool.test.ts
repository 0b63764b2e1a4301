import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
import type { DescMethod, DescMethodUnary, DescService, Message } from "@bufbuild/protobuf";
import { createFileRegistry } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { request } from "undici";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { createFakeClock, type FakeClock } from "../../framework/test-support/fake-clock.ts";
import { closeReasons } from "./connection.ts";
import {
  type ConnectionPool,
  createConnectionPool,
  defaultPoolLimits,
  domainErrorOf,
  type PoolLimits,
} from "./index.ts";
import type { Target } from "./target.ts";
import {
  readStockDescriptors,
  startConnectServer,
  stockService,
} from "./test-support/stock-connect-server.ts";
import {
  type GrpcServer,
  type GrpcServerOptions,
  startGrpcServer,
} from "./test-support/stock-grpc-server.ts";

let service: DescService;
const cleanups: (() => unknown)[] = [];

beforeAll(() => {
  service = stockService(createFileRegistry(readStockDescriptors()));
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

function createPool(
  limits: Partial<PoolLimits> = {},
  clock = createFakeClock(),
): [ConnectionPool, FakeClock] {
  const pool = createConnectionPool({ logger: pino({ enabled: false }), clock, limits });
  cleanups.push(() => pool.close());
  return [pool, clock];
}

async function grpcServer(options: GrpcServerOptions = {}): Promise<GrpcServer> {
  const server = await startGrpcServer(options);
  cleanups.push(() => server.close());
  return server;
}

function target(endpoint: string, protocol = Protocol.GRPC): Target {
  return { endpoint, protocol, headers: new Headers() };
}

function getQuote(): DescMethodUnary {
  const method: DescMethod | undefined = service.method["getQuote"];
  if (!method) {
    throw new Error("no GetQuote");
  }
  return { ...method, methodKind: "unary" };
}

interface QuoteOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  readonly protocol?: Protocol;
}

async function quote(
  pool: ConnectionPool,
  endpoint: string,
  symbol: string,
  { signal, timeoutMs, protocol }: QuoteOptions = {},
): Promise<Message> {
  const transport = pool.transport(target(endpoint, protocol));
  const response = await transport.unary(getQuote(), signal, timeoutMs, undefined, { symbol } as Record<
    string,
    unknown
  >);
  return response.message;
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (error: unknown) => error,
  );
}

function times<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index));
}

describe("HTTP/2 connections", () => {
  it("are shared by calls that run at the same time", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    await Promise.all(times(50, () => quote(pool, server.url, "ACME")));
    await Promise.all(times(50, () => quote(pool, server.url, "ACME")));
    const { connections, requests, reused } = pool.stats();
    expect(connections).toEqual([
      expect.objectContaining({
        origin: server.url,
        protocol: "h2",
        activeRequests: 0,
        requests: 100,
        failures: 0,
      }),
    ]);
    expect(requests).toBe(100);
    expect(reused).toBe(99);
  });

  it("are added when the peer's stream limit is reached, and no further than the limit of a host", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 3 });
    const [pool] = createPool({ maxConnectionsPerHost: 2 });
    const calls = times(10, () => quote(pool, server.url, "WAIT"));
    await expect.poll(() => server.running.now).toBe(6);
    expect(pool.stats().connections.map(({ activeRequests }) => activeRequests)).toEqual([3, 3]);
    server.letGo();
    await expect.poll(() => server.running.now).toBe(4);
    server.letGo();
    await Promise.all(calls);
    expect(server.running.most).toBe(6);
    expect(pool.stats().connections).toHaveLength(2);
  });

  it("are chosen by the fewest running calls", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 4 });
    const [pool] = createPool();
    const calls = times(8, () => quote(pool, server.url, "WAIT"));
    await expect.poll(() => server.running.now).toBe(8);
    server.letGo();
    await Promise.all(calls);
    const more = times(4, () => quote(pool, server.url, "WAIT"));
    await expect.poll(() => server.running.now).toBe(4);
    expect(pool.stats().connections.map(({ activeRequests }) => activeRequests)).toEqual([2, 2]);
    server.letGo();
    await Promise.all(more);
  });

  it("are opened anew after the server was killed, and running calls fail with UNAVAILABLE", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    const running = failure(quote(pool, server.url, "SLOW"));
    await expect.poll(() => server.started).toContain("SLOW");
    server.close();
    expect(await running).toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringContaining(`The connection to ${server.url} was lost`),
    });
    expect(await failure(quote(pool, server.url, "ACME"))).toMatchObject({ code: Code.Unavailable });
    await grpcServer({ port: server.port });
    await quote(pool, server.url, "ACME");
  });

  it("take no new calls once they are too old, and end after their last one", async () => {
    const server = await grpcServer();
    const [pool, clock] = createPool({ maxAgeMs: 1_000 });
    const old = quote(pool, server.url, "WAIT");
    await expect.poll(() => server.running.now).toBe(1);
    clock.advance(1_000);
    await quote(pool, server.url, "ACME");
    expect(pool.stats().connections.map(({ ageMs, activeRequests }) => [ageMs, activeRequests])).toEqual([
      [1_000, 1],
      [0, 0],
    ]);
    server.letGo();
    await old;
    await expect.poll(() => pool.stats().connections).toHaveLength(1);
  });

  it("that are only too old are still used when the limits allow no other", async () => {
    const server = await grpcServer();
    const [pool, clock] = createPool({ maxAgeMs: 1_000, maxConnections: 1 });
    const old = quote(pool, server.url, "WAIT");
    await expect.poll(() => server.running.now).toBe(1);
    clock.advance(1_000);
    await quote(pool, server.url, "ACME");
    expect(pool.stats().connections).toHaveLength(1);
    server.letGo();
    await old;
  });

  it("that were idle for too long are closed", async () => {
    const server = await grpcServer();
    const [pool, clock] = createPool({ idleTimeoutMs: 60_000, sweepIntervalMs: 30_000 });
    await quote(pool, server.url, "ACME");
    clock.advance(59_999);
    expect(pool.stats().connections).toHaveLength(1);
    clock.advance(30_001);
    expect(pool.stats().connections).toHaveLength(0);
  });

  it("beyond the number of idle ones to keep are closed, the one idle longest first", async () => {
    const servers = await Promise.all(times(3, () => grpcServer()));
    const [pool, clock] = createPool({ maxIdleConnections: 2 });
    for (const server of servers) {
      clock.advance(1);
      await quote(pool, server.url, "ACME");
    }
    await expect
      .poll(() => pool.stats().connections.map(({ origin }) => origin))
      .toEqual(servers.slice(1).map(({ url }) => url));
  });

  it("on which no more than half of the calls failed are kept", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    for (const symbol of times(20, (index) => (index % 2 === 0 ? "ACME" : "DOWN"))) {
      await quote(pool, server.url, symbol).catch(() => undefined);
    }
    expect(pool.stats().connections).toEqual([expect.objectContaining({ requests: 20, failures: 10 })]);
  });

  it("that are idle but too old are closed by the sweep", async () => {
    const server = await grpcServer();
    const [pool, clock] = createPool({ maxAgeMs: 40_000 });
    await quote(pool, server.url, "ACME");
    clock.advance(59_999);
    expect(pool.stats().connections).toHaveLength(1);
    clock.advance(1);
    expect(pool.stats()).toMatchObject({ connections: [], closed: { age: 1 } });
  });

  it("do not linger when the server never closes its end", async () => {
    const sockets: net.Socket[] = [];
    const ends = net.createServer({ allowHalfOpen: true }, (socket) => {
      sockets.push(socket);
      socket.on("error", () => undefined).resume();
      // The settings of HTTP/2, and nothing else.
      socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    });
    const url = await listen(ends);
    const [pool, clock] = createPool();
    await pool.warm([target(url)]);
    let closed = false;
    const [socket] = sockets;
    socket?.on("close", () => {
      closed = true;
    });
    await expect.poll(() => pool.stats().connections).toHaveLength(1);
    clock.advance(60_000);
    expect(pool.stats().connections).toHaveLength(0);
    await expect.poll(() => socket?.readableEnded).toBe(true);
    expect(closed).toBe(false);
    clock.advance(5_000);
    await expect
      .poll(() => {
        socket?.write("a peer that is gone answers with a reset");
        return closed;
      })
      .toBe(true);
  });

  it("on which too many calls failed are replaced", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    for (const symbol of [...times(4, () => "ACME"), ...times(5, () => "DOWN")]) {
      await quote(pool, server.url, symbol).catch(() => undefined);
    }
    expect(pool.stats().connections).toEqual([expect.objectContaining({ requests: 9, failures: 5 })]);
    await failure(quote(pool, server.url, "DOWN"));
    await expect.poll(() => pool.stats().connections).toHaveLength(0);
    await quote(pool, server.url, "ACME");
  });

  it("do not suffer from the mistakes of callers", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    for (const _ of times(20, () => 0)) {
      await failure(quote(pool, server.url, "MISSING"));
    }
    expect(pool.stats().connections).toEqual([expect.objectContaining({ requests: 20, failures: 0 })]);
  });

  it("that a GOAWAY ended are replaced while running calls go on", async () => {
    const sessions: http2.ServerHttp2Session[] = [];
    const streams: http2.ServerHttp2Stream[] = [];
    const server = http2.createServer();
    server.on("session", (session) => sessions.push(session));
    server.on("stream", (stream) => streams.push(stream));
    const url = await listen(server);
    const [pool] = createPool();
    const calls = [quote(pool, url, "ACME")];
    await expect.poll(() => streams).toHaveLength(1);
    sessions[0]?.goaway(http2.constants.NGHTTP2_NO_ERROR);
    await vi.waitFor(
      () => {
        calls.push(quote(pool, url, "ACME"));
        expect(sessions).toHaveLength(2);
      },
      { timeout: 20_000 },
    );
    await expect.poll(() => streams).toHaveLength(calls.length);
    for (const stream of streams) {
      answerGrpc(stream);
    }
    await Promise.all(calls);
    await expect.poll(() => pool.stats().connections).toHaveLength(1);
  });

  it("whose peer went silent are found by a ping", async () => {
    // A proxy that stops passing anything on, like a network that drops packets.
    const server = await grpcServer();
    const sockets: net.Socket[] = [];
    const proxy = net.createServer((inner) => {
      const outer = net.connect(server.port, "127.0.0.1");
      inner.pipe(outer).pipe(inner);
      inner.on("error", () => undefined);
      outer.on("error", () => undefined);
      sockets.push(inner, outer);
    });
    cleanups.push(() => {
      for (const socket of sockets) {
        socket.destroy();
      }
    });
    const url = await listen(proxy);
    const [pool, clock] = createPool({ verifyAfterMs: 10_000, pingTimeoutMs: 5_000, idleTimeoutMs: 1e6 });
    await quote(pool, url, "ACME");
    clock.advance(10_000);
    await quote(pool, url, "ACME");
    for (const socket of sockets) {
      socket.unpipe();
    }
    clock.advance(10_000);
    const hanging = failure(quote(pool, url, "ACME"));
    await expect
      .poll(() => pool.stats().connections)
      .toEqual([expect.objectContaining({ activeRequests: 1 })]);
    clock.advance(5_000);
    expect(await hanging).toMatchObject({ code: Code.Unavailable });
    expect(pool.stats().connections).toHaveLength(0);
    await quote(pool, url, "ACME");
  });

  it("are reused for at least 95 % of a steady load", async () => {
    const server = await grpcServer();
    const [pool] = createPool({}, Object.assign(createFakeClock(), systemClock));
    for (const _ of times(20, () => 0)) {
      await Promise.all(times(20, () => quote(pool, server.url, "ACME")));
    }
    const { requests, reused } = pool.stats();
    expect(requests).toBe(400);
    expect(reused / requests).toBeGreaterThanOrEqual(0.95);
  });
});

describe("the figures of a pool", () => {
  it("are by default those that are promised", () => {
    expect(defaultPoolLimits).toMatchObject({
      maxConnections: 100,
      maxConnectionsPerHost: 10,
      maxIdleConnections: 20,
      connectTimeoutMs: 5_000,
      idleTimeoutMs: 60_000,
      maxAgeMs: 300_000,
      failureThreshold: 0.5,
      failureMinRequests: 10,
      sweepIntervalMs: 30_000,
    });
  });

  it("tell the state, age and use of each connection", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 7 });
    const silent = await listen(net.createServer());
    const [pool, clock] = createPool();
    await quote(pool, server.url, "ACME");
    clock.advance(500);
    const connecting = failure(quote(pool, silent, "ACME"));
    clock.advance(250);
    expect(pool.stats().connections).toEqual([
      {
        ...{ origin: server.url, protocol: "h2", state: "open", ageMs: 750, idleMs: 750 },
        ...{ activeRequests: 0, maxConcurrentRequests: 7, requests: 1, failures: 0 },
        bytesRead: expect.any(Number),
        bytesWritten: expect.any(Number),
      },
      {
        ...{ origin: silent, protocol: undefined, state: "connecting", ageMs: 250, idleMs: 0 },
        ...{ activeRequests: 0, maxConcurrentRequests: 0, requests: 0, failures: 0 },
        ...{ bytesRead: 0, bytesWritten: 0 },
      },
    ]);
    const before = pool.stats().connections[0];
    await quote(pool, server.url, "ACME");
    const after = pool.stats().connections[0];
    expect(after).toMatchObject({ idleMs: 0, requests: 2 });
    expect(after?.bytesRead).toBeGreaterThan(before?.bytesRead ?? Number.NaN);
    expect(after?.bytesWritten).toBeGreaterThan(before?.bytesWritten ?? Number.NaN);
    clock.advance(5_000);
    await connecting;
    expect(pool.stats()).toMatchObject({ connections: [{ state: "open" }], opened: 1, connectFailures: 1 });
  });

  it("tell how long requests waited, and how many were refused", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 1 });
    const [pool, clock] = createPool({ maxConnectionsPerHost: 1, maxQueue: 2, queueTimeoutMs: 1_000 });
    const running = quote(pool, server.url, "WAIT");
    await expect.poll(() => server.running.now).toBe(1);
    const first = failure(quote(pool, server.url, "ACME"));
    clock.advance(400);
    const second = quote(pool, server.url, "ACME");
    await failure(quote(pool, server.url, "ACME"));
    expect(pool.stats()).toMatchObject({ waiting: 2, waits: { count: 1, totalMs: 0 }, refused: 1 });
    clock.advance(600);
    await first;
    server.letGo();
    await Promise.all([running, second]);
    expect(pool.stats()).toMatchObject({
      waiting: 0,
      waits: { count: 3, totalMs: 1_600, maxMs: 1_000 },
      refused: 2,
      requests: 2,
      reused: 1,
    });
  });

  it("tell why connections were closed", async () => {
    const [first, second] = await Promise.all([grpcServer(), grpcServer()]);
    const [pool, clock] = createPool({ maxAgeMs: 200_000, idleTimeoutMs: 60_000, maxIdleConnections: 1 });
    const none = Object.fromEntries(closeReasons.map((reason) => [reason, 0]));
    expect(pool.stats().closed).toEqual(none);

    await quote(pool, first.url, "ACME");
    clock.advance(60_000);
    expect(pool.stats().closed).toEqual({ ...none, idle: 1 });

    const old = quote(pool, first.url, "WAIT");
    await expect.poll(() => first.running.now).toBe(1);
    clock.advance(220_000);
    expect(pool.stats().connections).toMatchObject([{ state: "draining" }]);
    first.letGo();
    await old;
    await expect.poll(() => pool.stats().closed).toEqual({ ...none, idle: 1, age: 1 });

    await quote(pool, first.url, "ACME");
    await quote(pool, second.url, "ACME");
    expect(pool.stats().closed).toEqual({ ...none, idle: 1, age: 1, capacity: 1 });

    for (const _ of times(11, () => 0)) {
      await failure(quote(pool, second.url, "DOWN"));
    }
    await expect
      .poll(() => pool.stats().closed)
      .toEqual({ ...none, idle: 1, age: 1, capacity: 1, failures: 1 });

    const running = failure(quote(pool, second.url, "SLOW"));
    await expect.poll(() => second.started).toContain("SLOW");
    second.close();
    await running;
    await expect.poll(() => pool.stats().closed["goaway"]).toBe(1);

    await quote(pool, first.url, "ACME");
    await pool.close();
    expect(pool.stats()).toMatchObject({
      opened: 6,
      closed: { ...none, idle: 1, age: 1, capacity: 1, failures: 1, goaway: 1, shutdown: 1 },
    });
  });

  it("tell of connections that the server closes between requests", async () => {
    const server = http.createServer((_request, response) => response.end("hello"));
    const url = await listen(server);
    const [pool] = createPool();
    const { body } = await request(url, { dispatcher: pool.dispatcher });
    await body.text();
    server.closeIdleConnections();
    await expect.poll(() => pool.stats()).toMatchObject({ connections: [], closed: { peer: 1 } });
  });
});

async function listen(server: net.Server | http2.Http2Server): Promise<string> {
  const sockets = new Set<net.Socket>();
  server.on("connection", (socket: net.Socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    server.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** An empty message with status OK. */
function answerGrpc(stream: http2.ServerHttp2Stream): void {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(Buffer.from([0, 0, 0, 0, 0]));
}

describe("the queue", () => {
  it("is bounded: what does not fit is refused with RESOURCE_EXHAUSTED", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 1 });
    const [pool] = createPool({ maxConnectionsPerHost: 1, maxQueue: 2 });
    const calls = [quote(pool, server.url, "WAIT")];
    await expect.poll(() => server.running.now).toBe(1);
    calls.push(quote(pool, server.url, "ACME"), quote(pool, server.url, "ACME"));
    const error = await failure(quote(pool, server.url, "ACME"));
    expect(domainErrorOf(error)?.init).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "POOL_EXHAUSTED",
      metadata: { endpoint: server.url },
    });
    server.letGo();
    await Promise.all(calls);
  });

  it("is left after a while", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 1 });
    const [pool, clock] = createPool({ maxConnectionsPerHost: 1, queueTimeoutMs: 10_000 });
    const running = quote(pool, server.url, "WAIT");
    await expect.poll(() => server.running.now).toBe(1);
    const waiting = failure(quote(pool, server.url, "ACME"));
    clock.advance(10_000);
    expect(await waiting).toMatchObject({
      code: Code.ResourceExhausted,
      rawMessage: expect.stringContaining("all were busy for 10000 ms"),
    });
    server.letGo();
    await running;
  });

  it("is left at once by calls that are cancelled", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 1 });
    const [pool] = createPool({ maxConnectionsPerHost: 1, maxQueue: 1 });
    const running = quote(pool, server.url, "WAIT");
    await expect.poll(() => server.running.now).toBe(1);
    const left = new AbortController();
    const waiting = failure(quote(pool, server.url, "ACME", { signal: left.signal }));
    left.abort(new ConnectError("never mind", Code.Canceled));
    expect(await waiting).toMatchObject({ code: Code.Canceled });
    const next = quote(pool, server.url, "ACME");
    server.letGo();
    await Promise.all([running, next]);
  });

  it("of one host does not hold up another when idle connections can make room", async () => {
    const [first, second] = await Promise.all([grpcServer(), grpcServer()]);
    const [pool] = createPool({ maxConnections: 1 });
    await quote(pool, first.url, "ACME");
    await quote(pool, second.url, "ACME");
    expect(pool.stats().connections.map(({ origin }) => origin)).toEqual([second.url]);
  });

  it("moves on when another host's connection becomes free", async () => {
    const [first, second] = await Promise.all([grpcServer(), grpcServer()]);
    const [pool] = createPool({ maxConnections: 1 });
    const running = quote(pool, first.url, "WAIT");
    await expect.poll(() => first.running.now).toBe(1);
    const waiting = quote(pool, second.url, "ACME");
    first.letGo();
    await Promise.all([running, waiting]);
  });
});

describe("connecting", () => {
  it("is not tried again at once while other connections of the route are left", async () => {
    // It accepts the first connection only, and on that one call at a time.
    const server = await grpcServer({ maxConcurrentStreams: 1 });
    let accepted = 0;
    const sockets: net.Socket[] = [];
    const door = net.createServer((inner) => {
      if (accepted++ > 0) {
        inner.destroy();
        return;
      }
      const outer = net.connect(server.port, "127.0.0.1");
      inner.pipe(outer).pipe(inner);
      inner.on("error", () => undefined);
      outer.on("error", () => undefined);
      sockets.push(outer);
    });
    cleanups.push(() => sockets[0]?.destroy());
    const url = await listen(door);
    const [pool, clock] = createPool();
    const running = quote(pool, url, "WAIT");
    await expect.poll(() => server.running.now).toBe(1);
    const waiting = quote(pool, url, "ACME");
    await expect.poll(() => accepted).toBe(2);
    await new Promise((resolve) => setImmediate(resolve));
    expect(accepted).toBe(2);
    clock.advance(1_000);
    await expect.poll(() => accepted).toBe(3);
    server.letGo();
    await Promise.all([running, waiting]);
  });

  it("fails after the connect timeout when the server says nothing", async () => {
    const url = await listen(net.createServer());
    const [pool, clock] = createPool({ connectTimeoutMs: 5_000 });
    const calls = times(3, () => failure(quote(pool, url, "ACME")));
    await expect.poll(() => clock.pending).toBeGreaterThan(4);
    clock.advance(5_000);
    for (const error of await Promise.all(calls)) {
      expect(error).toMatchObject({ code: Code.Unavailable });
    }
    expect(domainErrorOf(await calls[0])?.init).toMatchObject({ reason: "UNREACHABLE" });
    expect(pool.stats().connections).toHaveLength(0);
  });

  it("to a server whose certificate nobody vouches for says what to do", async () => {
    const server = await startConnectServer("h2s", readStockDescriptors());
    cleanups.push(() => server.close());
    const [pool] = createPool();
    expect(await failure(quote(pool, server.url, "ACME"))).toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringMatching(/certificate .* not trusted: .* NODE_EXTRA_CA_CERTS/),
    });
  });

  it("is done ahead of the first call by warming, which survives servers that are not there", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    await pool.warm([target(server.url), target(server.url), target("http://127.0.0.1:1")]);
    expect(pool.stats()).toMatchObject({ requests: 0, connections: [{ origin: server.url, requests: 0 }] });
    await quote(pool, server.url, "ACME");
    expect(pool.stats()).toMatchObject({ requests: 1, reused: 1 });
  });

  it("ends with the pool, and so do running and waiting calls", async () => {
    const server = await grpcServer({ maxConcurrentStreams: 1 });
    const [pool] = createPool({ maxConnectionsPerHost: 1 });
    const running = failure(quote(pool, server.url, "SLOW"));
    await expect.poll(() => server.started).toContain("SLOW");
    const waiting = failure(quote(pool, server.url, "ACME"));
    await pool.close();
    expect(await running).toMatchObject({ code: Code.Unavailable });
    expect(await waiting).toMatchObject({ code: Code.Unavailable });
    expect(await failure(quote(pool, server.url, "ACME"))).toMatchObject({ code: Code.Unavailable });
    expect(pool.stats().connections).toEqual([]);
  });

  it("tells the backend how much time is left", async () => {
    const server = await grpcServer();
    const [pool] = createPool();
    await quote(pool, server.url, "ACME", { timeoutMs: 60_000 });
    expect(server.timeLeftMs()).toBeGreaterThan(30_000);
    expect(server.timeLeftMs()).toBeLessThanOrEqual(60_000);
  });
});

describe("HTTP/1.1 connections", () => {
  async function httpServer(
    listener: http.RequestListener,
  ): Promise<{ url: string; connections: () => number }> {
    let connections = 0;
    const server = http.createServer(listener);
    server.on("connection", () => connections++);
    return { url: await listen(server), connections: () => connections };
  }

  it("carry one request at a time and are used again", async () => {
    const server = await httpServer((_request, response) => response.end("hello"));
    const [pool] = createPool();
    const get = async () => {
      const response = await request(server.url, { dispatcher: pool.dispatcher });
      return response.body.text();
    };
    expect(await Promise.all(times(3, get))).toEqual(["hello", "hello", "hello"]);
    expect(server.connections()).toBe(3);
    for (const _ of times(10, () => 0)) {
      await get();
    }
    expect(server.connections()).toBe(3);
    expect(pool.stats()).toMatchObject({ requests: 13, reused: 10 });
    expect(pool.stats().connections.map(({ protocol }) => protocol)).toEqual(["h1", "h1", "h1"]);
  });

  it("count towards the same limits as HTTP/2 connections to the host", async () => {
    const waiting: http.ServerResponse[] = [];
    const server = await httpServer((_request, response) => waiting.push(response));
    const [pool] = createPool({ maxConnectionsPerHost: 2 });
    const calls = times(4, async () => {
      const response = await request(server.url, { dispatcher: pool.dispatcher });
      return response.body.text();
    });
    await expect.poll(() => waiting).toHaveLength(2);
    expect(pool.stats().connections).toHaveLength(2);
    for (let answered = 0; answered < 4; answered++) {
      await expect.poll(() => waiting.length).toBeGreaterThan(answered);
      waiting[answered]?.end("hello");
    }
    await Promise.all(calls);
    expect(server.connections()).toBe(2);
  });

  it("that the server closes are replaced", async () => {
    const server = await httpServer((_request, response) => {
      response.setHeader("connection", "close");
      response.end("bye");
    });
    const [pool] = createPool({ maxConnectionsPerHost: 1 });
    const texts = times(3, async () => {
      const response = await request(server.url, { dispatcher: pool.dispatcher });
      return response.body.text();
    });
    expect(await Promise.all(texts)).toEqual(["bye", "bye", "bye"]);
    expect(server.connections()).toBe(3);
  });

  it("fail with UNAVAILABLE when the server hangs up without an answer", async () => {
    const server = await httpServer((message) => message.socket.destroy());
    const [pool] = createPool();
    const error = await failure(request(server.url, { dispatcher: pool.dispatcher }));
    expect(error).toMatchObject({ code: Code.Unavailable });
    await expect.poll(() => pool.stats()).toMatchObject({ connections: [], closed: { error: 1 } });
  });

  it("are given up by requests that are aborted, running or waiting", async () => {
    const server = await httpServer((message) => message.resume());
    const [pool] = createPool({ maxConnectionsPerHost: 1 });
    const left = new AbortController();
    const calls = times(2, () =>
      failure(request(server.url, { dispatcher: pool.dispatcher, signal: left.signal })),
    );
    await expect.poll(() => pool.stats()).toMatchObject({ requests: 1, waiting: 1 });
    left.abort(new ConnectError("never mind", Code.Canceled));
    for (const error of await Promise.all(calls)) {
      expect(error).toMatchObject({ code: Code.Canceled });
    }
    await expect.poll(() => pool.stats().connections).toHaveLength(0);
  });

  it("send bodies, and receive large ones slowly", async () => {
    const server = await httpServer((message, response) => message.pipe(response));
    const [pool] = createPool();
    const body = Buffer.alloc(3_000_000, "x");
    const response = await request(server.url, { dispatcher: pool.dispatcher, method: "POST", body });
    let received = 0;
    for await (const chunk of response.body) {
      received += chunk.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(received).toBe(body.length);
  });

  it("are what Connect falls back to, and that is remembered", async () => {
    const server = await startConnectServer("h1");
    cleanups.push(() => server.close());
    const [pool] = createPool();
    await quote(pool, server.url, "ACME", { protocol: Protocol.CONNECT });
    await Promise.all(times(3, () => quote(pool, server.url, "ACME", { protocol: Protocol.CONNECT })));
    expect(server.versions).toEqual(["1.1", "1.1", "1.1", "1.1"]);
    // One to find out, one to call, and two more to call three at once.
    expect(server.connections()).toBe(4);
  });
});
