import { once } from "node:events";
import http2 from "node:http2";
import https from "node:https";
import net, { type AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { setImmediate as turn } from "node:timers/promises";
import { createFileRegistry } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { type Dispatcher, errors, FormData, fetch, request } from "undici";
import { afterEach, describe, expect, it } from "vitest";
import {
  authorityCertificate,
  serverCertificate,
  serverKey,
} from "../../framework/test-support/certificates.ts";
import { createFakeClock, type FakeClock } from "../../framework/test-support/fake-clock.ts";
import { neverReached } from "../backends/unreached.ts";
import { H1Link, type H1Outcome } from "./h1-link.ts";
import { type ConnectionPool, createConnectionPool, domainErrorOf, type PoolLimits } from "./index.ts";
import {
  data,
  goaway,
  okHeaders,
  type RawConnection,
  reset,
  startRawHttp2Server,
} from "./test-support/raw-http2-server.ts";
import {
  readStockDescriptors,
  startConnectServer,
  stockService,
  testCertificate,
} from "./test-support/stock-connect-server.ts";

const { NGHTTP2_NO_ERROR, NGHTTP2_INTERNAL_ERROR, NGHTTP2_REFUSED_STREAM, NGHTTP2_ENHANCE_YOUR_CALM } =
  http2.constants;
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

function createPool(
  limits: Partial<PoolLimits> = {},
  ca = authorityCertificate,
): [ConnectionPool, FakeClock] {
  const clock = createFakeClock();
  const pool = createConnectionPool({ logger: pino({ enabled: false }), clock, limits, tls: { ca } });
  cleanups.push(() => pool.close());
  return [pool, clock];
}

interface Http2Server {
  readonly url: string;
  readonly sessions: http2.ServerHttp2Session[];
}

async function h2Server(
  onStream: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void,
): Promise<Http2Server> {
  const sessions: http2.ServerHttp2Session[] = [];
  const server = http2.createSecureServer({ cert: serverCertificate, key: serverKey });
  server.on("session", (session) => sessions.push(session));
  server.on("stream", (stream, headers) => {
    stream.on("error", () => undefined);
    onStream(stream, headers);
  });
  cleanups.push(() => {
    server.close();
    for (const session of sessions) {
      session.destroy();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: urlOf(server), sessions };
}

function urlOf(server: http2.Http2SecureServer | https.Server): string {
  const { port } = server.address() as AddressInfo; // what a TCP server that listens has
  return `https://127.0.0.1:${port}`;
}

async function rawServer(onRequest: (stream: number, connection: RawConnection) => void): Promise<string> {
  const server = await startRawHttp2Server(onRequest);
  cleanups.push(() => server.close());
  return server.url;
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

/** Lets everything happen that does not wait for anything else. */
async function settle(): Promise<void> {
  for (let turns = 0; turns < 200; turns++) {
    await turn();
  }
}

async function read(pool: ConnectionPool, url: string): Promise<string> {
  const { body } = await request(url, { dispatcher: pool.dispatcher });
  return body.text();
}

/** Sends back what came: the headers as JSON in a header, and the body. */
async function echoServer(): Promise<Http2Server> {
  return h2Server((stream, headers) => {
    stream.respond({ ":status": 200, "x-seen": JSON.stringify(headers) });
    stream.pipe(stream);
  });
}

interface Echo {
  readonly seen: Record<string, unknown>;
  readonly body: string;
}

async function echo(
  pool: ConnectionPool,
  url: string,
  options: Partial<Dispatcher.RequestOptions> & { readonly body?: unknown },
): Promise<Echo> {
  const { origin, pathname } = new URL(url);
  // undici takes more kinds of bodies than its types say.
  const all = { origin, path: pathname, method: "GET", ...options } as Dispatcher.RequestOptions;
  const { headers, body } = await pool.dispatcher.request(all);
  return { seen: JSON.parse(String(headers["x-seen"])), body: await body.text() };
}

describe("plain HTTP over TLS", () => {
  it("goes over one HTTP/2 connection, many requests at once", async () => {
    const server = await h2Server((stream) => {
      stream.respond({ ":status": 200 });
      stream.end("hello");
    });
    const [pool] = createPool();
    expect(new Set(await Promise.all(times(50, () => read(pool, server.url))))).toEqual(new Set(["hello"]));
    expect(server.sessions).toHaveLength(1);
    expect(pool.stats()).toMatchObject({
      requests: 50,
      opened: 1,
      connections: [{ protocol: "h2", state: "open", requests: 50, activeRequests: 0, failures: 0 }],
    });
  });

  it("shares that connection with the calls of Connect", async () => {
    const server = await startConnectServer("h2s");
    cleanups.push(() => server.close());
    const [pool] = createPool({}, testCertificate.cert);
    const [getQuote] = stockService(createFileRegistry(readStockDescriptors())).methods;
    if (!getQuote) {
      throw new Error("no method");
    }
    const target = { endpoint: server.url, protocol: Protocol.CONNECT, headers: new Headers() };
    await pool
      .transport(target)
      .unary({ ...getQuote, methodKind: "unary" }, undefined, undefined, undefined, {});
    const { statusCode, body } = await request(`${server.url}/acme.stock.v1.StockService/GetQuote`, {
      dispatcher: pool.dispatcher,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"symbol":"ACME"}',
    });
    expect([statusCode, await body.json()]).toEqual([200, expect.objectContaining({ symbol: "ACME" })]);
    expect(server.connections()).toBe(1);
    expect(server.versions).toEqual(["2.0", "2.0"]);
  });

  it("is warmed for the requests to come", async () => {
    const server = await h2Server((stream) => stream.respond({ ":status": 204 }, { endStream: true }));
    const [pool] = createPool();
    await pool.warm([{ endpoint: `${server.url}/api`, protocol: Protocol.HTTP, headers: new Headers() }]);
    await read(pool, server.url);
    expect(pool.stats()).toMatchObject({ opened: 1, requests: 1, reused: 1 });
  });

  it("falls back to HTTP/1.1 where the server speaks nothing else", async () => {
    const versions: string[] = [];
    const server = https.createServer({ cert: serverCertificate, key: serverKey }, (message, response) => {
      versions.push(message.httpVersion);
      response.end("old");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => {
      server.close();
      server.closeAllConnections();
    });
    const [pool] = createPool();
    expect(await Promise.all(times(2, () => read(pool, urlOf(server))))).toEqual(["old", "old"]);
    expect(versions).toEqual(["1.1", "1.1"]);
    expect(pool.stats().connections.map(({ protocol }) => protocol)).toEqual(["h1", "h1"]);
  });

  it("works with undici's fetch", async () => {
    const server = await h2Server((stream, headers) => {
      stream.respond({ ":status": 200, "x-method": headers[":method"], "set-cookie": ["a=1", "b=2"] });
      stream.pipe(stream);
    });
    const [pool] = createPool();
    const response = await fetch(server.url, {
      dispatcher: pool.dispatcher,
      method: "POST",
      body: new Blob(["hello"]).stream(),
      duplex: "half",
    });
    expect(response.headers.get("x-method")).toBe("POST");
    expect(response.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
    expect(await response.text()).toBe("hello");
  });
});

describe("an HTTP/2 request", () => {
  it("carries method, path, query, host and headers, but none about the connection", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const { seen } = await echo(pool, `${url}/a%20b`, {
      method: "DELETE",
      query: { q: "x y", list: ["1", "2"] },
      headers: {
        Host: "tools.example",
        Accept: "text/plain",
        "X-Two": ["1", "2"],
        "x-gone": "1",
        Connection: "close, X-Gone",
        TE: "gzip",
        "Proxy-Connection": "keep-alive",
      },
    });
    expect(seen).toEqual({
      ":method": "DELETE",
      ":path": "/a%20b?q=x%20y&list=1&list=2",
      ":authority": "tools.example",
      ":scheme": "https",
      accept: "text/plain",
      "x-two": "1, 2",
    });
  });

  it("takes headers in all forms", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const forms: NonNullable<Dispatcher.RequestOptions["headers"]>[] = [
      ["x-a", "1", "X-B", "2"],
      new Map([
        ["x-a", "1"],
        ["x-b", "2"],
      ]),
      { "x-a": "1", "X-B": "2" },
    ];
    for (const headers of forms) {
      const { seen } = await echo(pool, url, { headers });
      expect(seen).toMatchObject({ "x-a": "1", "x-b": "2", ":authority": new URL(url).host });
    }
  });

  it.each<[string, () => unknown, string | undefined]>([
    ["text", () => "größe", "7"],
    ["bytes", () => Buffer.from("größe"), "7"],
    ["a view of bytes", () => new DataView(Uint8Array.from(Buffer.from("größe")).buffer), "7"],
    ["an ArrayBuffer", () => Uint8Array.from(Buffer.from("größe")).buffer, "7"],
    ["a Blob", () => new Blob(["größe"]), "7"],
    ["a stream", () => Readable.from([Buffer.from("grö"), "ße"]), undefined],
    ["a web stream", () => new Blob(["größe"]).stream(), undefined],
    [
      "an async iterable",
      async function* () {
        yield "grö";
        await turn();
        yield Buffer.from("ße");
      },
      undefined,
    ],
  ])("sends a body that is %s", async (_kind, make, length) => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const body = make();
    const { seen, ...answer } = await echo(pool, url, {
      method: "POST",
      body: typeof body === "function" ? body() : body,
    });
    expect(answer.body).toBe("größe");
    expect(seen["content-length"]).toBe(length);
  });

  it("sends a form with its content type", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const form = new FormData();
    form.set("name", "value");
    const { seen, body } = await echo(pool, url, { method: "POST", body: form });
    expect(seen["content-type"]).toMatch(/^multipart\/form-data; boundary=/);
    expect(body).toContain('name="name"\r\n\r\nvalue');
  });

  it("tells that a POST has no body, and nothing of a GET without one", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    expect((await echo(pool, url, { method: "POST" })).seen["content-length"]).toBe("0");
    expect((await echo(pool, url, { method: "GET", body: "" })).seen).not.toHaveProperty("content-length");
  });

  it.each<[string, Partial<Dispatcher.RequestOptions>, typeof errors.UndiciError]>([
    [
      "a header about the connection",
      { headers: { "transfer-encoding": "chunked" } },
      errors.InvalidArgumentError,
    ],
    ["a header that is no token", { headers: { "x y": "1" } }, errors.InvalidArgumentError],
    ["a value with a line break", { headers: { x: "1\r\ny: 2" } }, errors.InvalidArgumentError],
    ["two hosts", { headers: ["host", "a", "host", "b"] }, errors.InvalidArgumentError],
    ["a path with a space", { path: "/a b" }, errors.InvalidArgumentError],
    [
      "a wrong length",
      { method: "POST", headers: { "content-length": "9" }, body: "x" },
      errors.RequestContentLengthMismatchError,
    ],
    [
      "a stream shorter than told",
      { method: "POST", headers: { "content-length": "9" }, body: Readable.from(["x"]) },
      errors.RequestContentLengthMismatchError,
    ],
    [
      "a stream longer than told",
      { method: "POST", headers: { "content-length": "1" }, body: Readable.from(["xyz"]) },
      errors.RequestContentLengthMismatchError,
    ],
    ["a stream of objects", { method: "POST", body: Readable.from([1]) }, errors.InvalidArgumentError],
  ])("with %s is refused, and the connection goes on", async (_what, options, expected) => {
    const { url } = await echoServer();
    const [pool] = createPool();
    expect(await failure(echo(pool, url, options))).toBeInstanceOf(expected);
    await echo(pool, url, {});
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 0 }]);
    expect(pool.stats().opened).toBe(1);
  });

  it("with more headers than can be sent is refused, and the connection goes on", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const error = await failure(echo(pool, url, { headers: { x: "x".repeat(70_000) } }));
    expect(domainErrorOf(error)?.init).toMatchObject({ reason: "HEADERS_TOO_LARGE" });
    expect(neverReached(error)).toBe(false);
    await echo(pool, url, {});
    expect(pool.stats().opened).toBe(1);
  });

  it("fails with the error of its body, whether or not it waits for a connection", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    for (const _ of times(2, () => 0)) {
      const body = new Readable({ read: () => body.destroy(new Error("disk full")) });
      expect(await failure(echo(pool, url, { method: "POST", body }))).toMatchObject({
        message: "disk full",
      });
    }
  });

  it("fails with what its body throws", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const body: unknown = (async function* () {
      yield "a";
      throw new Error("disk full");
    })();
    const options = { method: "POST", body } as Partial<Dispatcher.RequestOptions>; // More than the types say.
    expect(await failure(echo(pool, url, options))).toMatchObject({ message: "disk full" });
  });

  it("sends no faster than the server reads", async () => {
    const streams: http2.ServerHttp2Stream[] = [];
    const { url } = await h2Server((stream) => {
      streams.push(stream);
      stream.pause();
    });
    const [pool] = createPool();
    let chunks = 0;
    async function* body() {
      for (; chunks < 1_000; chunks++) {
        yield Buffer.alloc(16 * 1024);
      }
    }
    const answer = request(url, { dispatcher: pool.dispatcher, method: "POST", body: Readable.from(body()) });
    await expect.poll(() => streams).toHaveLength(1);
    await expect.poll(() => chunks).toBeGreaterThan(2);
    await settle();
    expect(chunks).toBeLessThan(100);
    const [stream] = streams;
    stream?.resume().on("end", () => {
      stream.respond({ ":status": 200 });
      stream.end("thanks");
    });
    expect(await (await answer).body.text()).toBe("thanks");
    expect(chunks).toBe(1_000);
  });

  it("is sent without its body's rest when the server answers early", async () => {
    const { url } = await h2Server((stream) => {
      stream.respond({ ":status": 413 });
      stream.end("too much");
    });
    const [pool] = createPool();
    let left = false;
    async function* endless() {
      try {
        for (;;) {
          yield Buffer.alloc(1024);
          await turn();
        }
      } finally {
        left = true;
      }
    }
    const { statusCode, body } = await pool.dispatcher.request({
      ...{ origin: url, path: "/", method: "POST" },
      body: Readable.from(endless()),
    });
    expect([statusCode, await body.text()]).toEqual([413, "too much"]);
    await expect.poll(() => left).toBe(true);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 0, failures: 0 }]);
  });
});

describe("an HTTP/2 answer", () => {
  it("brings trailers", async () => {
    const { url } = await h2Server((stream) => {
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-checksum": "7" }));
      stream.end("hello");
    });
    const [pool] = createPool();
    const { body, trailers } = await request(url, { dispatcher: pool.dispatcher });
    expect(await body.text()).toBe("hello");
    expect(trailers).toEqual({ "x-checksum": "7" });
  });

  it.each([
    ["HEAD", 200],
    ["GET", 204],
    ["GET", 304],
  ] as const)("to %s with status %i has no body", async (method, status) => {
    const { url } = await h2Server((stream) =>
      stream.respond(
        { ":status": status, "content-length": status === 204 ? undefined : "5" },
        { endStream: true },
      ),
    );
    const [pool] = createPool();
    const { statusCode, body } = await request(url, { dispatcher: pool.dispatcher, method });
    expect([statusCode, await body.text()]).toEqual([status, ""]);
    expect(pool.stats().connections).toMatchObject([{ activeRequests: 0, failures: 0 }]);
  });

  it("may be announced", async () => {
    const { url } = await h2Server((stream) => {
      stream.additionalHeaders({ ":status": 103, link: "</style.css>" });
      stream.respond({ ":status": 200 });
      stream.end("hello");
    });
    const [pool] = createPool();
    const infos: unknown[] = [];
    const { statusCode, body } = await request(url, {
      dispatcher: pool.dispatcher,
      onInfo: (info) => infos.push(info),
    });
    expect([statusCode, await body.text()]).toEqual([200, "hello"]);
    expect(infos).toEqual([{ statusCode: 103, headers: { link: "</style.css>" } }]);
  });

  it("is read no faster than its reader wants it", async () => {
    const total = 8 * 1024 * 1024;
    let server: http2.ServerHttp2Stream | undefined;
    const { url } = await h2Server((stream) => {
      server = stream;
      stream.respond({ ":status": 200 });
      stream.end(Buffer.alloc(total));
    });
    const [pool] = createPool();
    const { body } = await request(url, { dispatcher: pool.dispatcher });
    await expect.poll(() => pool.stats().connections[0]?.bytesRead).toBeGreaterThan(100_000);
    await settle();
    expect(pool.stats().connections[0]?.bytesRead).toBeLessThan(1024 * 1024);
    expect(server?.closed).toBe(false);
    let received = 0;
    for await (const chunk of body) {
      received += chunk.length;
    }
    expect(received).toBe(total);
  });

  it("that says that the server cannot serve now counts against the connection", async () => {
    const { url } = await h2Server((stream) => stream.respond({ ":status": 503 }, { endStream: true }));
    const [pool] = createPool();
    for (const _ of times(10, () => 0)) {
      await read(pool, url);
    }
    expect(pool.stats()).toMatchObject({ opened: 1, connections: [], closed: { failures: 1 } });
  });

  it("with too many headers fails alone", async () => {
    const { url } = await h2Server((stream, headers) => {
      const many = Object.fromEntries(times(300, (index) => [`x-${index}`, "1"]));
      stream.respond({ ":status": 200, ...(headers[":path"] === "/many" ? many : {}) }, { endStream: true });
    });
    const [pool] = createPool();
    const error = await failure(read(pool, `${url}/many`));
    expect(domainErrorOf(error)?.init).toMatchObject({ reason: "REQUEST_RESET" });
    expect(await read(pool, url)).toBe("");
    expect(pool.stats().opened).toBe(1);
  });
});

describe("an HTTP/2 request that is aborted", () => {
  it("ends while it waits for a connection", async () => {
    const silent = net.createServer();
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    cleanups.push(() => silent.close());
    const [pool] = createPool();
    const left = new AbortController();
    const { port } = silent.address() as AddressInfo;
    const running = failure(
      request(`https://127.0.0.1:${port}`, { dispatcher: pool.dispatcher, signal: left.signal }),
    );
    left.abort(new ConnectError("never mind", Code.Canceled));
    expect(await running).toMatchObject({ code: Code.Canceled });
    expect(pool.stats().waiting).toBe(0);
  });

  it.each(["before the answer", "during the answer"])("%s leaves its connection to others", async (when) => {
    let reset = 0;
    const arrived: http2.ServerHttp2Stream[] = [];
    const { url } = await h2Server((stream, headers) => {
      stream.on("aborted", () => reset++);
      arrived.push(stream);
      if (headers[":path"] === "/next") {
        stream.respond({ ":status": 204 }, { endStream: true });
      } else if (when === "during the answer") {
        stream.respond({ ":status": 200 });
        stream.write("half");
      }
    });
    const [pool] = createPool();
    const left = new AbortController();
    const running = failure(
      request(url, { dispatcher: pool.dispatcher, method: "POST", signal: left.signal, body: "x" }).then(
        ({ body }) => body.text(),
      ),
    );
    await expect.poll(() => arrived).toHaveLength(1);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 1 }]);
    left.abort(new ConnectError("never mind", Code.Canceled));
    expect(await running).toMatchObject({ code: Code.Canceled });
    await expect.poll(() => reset).toBe(1);
    await read(pool, `${url}/next`);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 0, failures: 0 }]);
    expect(pool.stats().opened).toBe(1);
  });

  it("lets go of its answer when nobody reads it", async () => {
    const { url } = await h2Server((stream) => {
      stream.respond({ ":status": 200 });
      stream.end(Buffer.alloc(4 * 1024 * 1024));
    });
    const [pool] = createPool();
    const { body } = await request(url, { dispatcher: pool.dispatcher });
    body.on("error", () => undefined).destroy();
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 0 }]);
  });
});

describe("an HTTP/2 request that times out", () => {
  it("fails when no answer comes, and the server is asked whether it is there", async () => {
    let pings = 0;
    const { url, sessions } = await h2Server(() => undefined);
    const [pool, clock] = createPool();
    const running = failure(request(url, { dispatcher: pool.dispatcher, headersTimeout: 500 }));
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 1 }]);
    sessions[0]?.on("ping", () => pings++);
    clock.advance(500);
    expect(await running).toBeInstanceOf(errors.HeadersTimeoutError);
    await expect.poll(() => pings).toBe(1);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 0, failures: 1 }]);
  });

  it("fails when the answer stops, but not while its reader rests", async () => {
    let server: http2.ServerHttp2Stream | undefined;
    const { url } = await h2Server((stream) => {
      server = stream;
      stream.respond({ ":status": 200 });
      stream.write(Buffer.alloc(200_000));
    });
    const [pool, clock] = createPool();
    const { body } = await request(url, { dispatcher: pool.dispatcher, bodyTimeout: 500 });
    await expect.poll(() => body.readableLength).toBeGreaterThan(50_000);
    clock.advance(1_000);
    let received = 0;
    body.on("data", (chunk: Buffer) => {
      received += chunk.length;
    });
    const failed = once(body, "error");
    body.on("error", () => undefined);
    await expect.poll(() => received).toBe(200_000);
    clock.advance(499);
    server?.write("more");
    await expect.poll(() => received).toBe(200_004);
    clock.advance(500);
    expect(await failed).toEqual([expect.any(errors.BodyTimeoutError)]);
  });
});

describe("an HTTP/2 request that the server did not look at", () => {
  const refusals: [string, (stream: number, connection: RawConnection) => void][] = [
    ["resets with REFUSED_STREAM", (stream, { send }) => send(reset(stream, NGHTTP2_REFUSED_STREAM))],
    ["leaves out of its GOAWAY", (_stream, { send }) => send(goaway(0, NGHTTP2_NO_ERROR))],
    [
      "leaves out of a GOAWAY with an error",
      (_stream, { send }) => send(goaway(0, NGHTTP2_ENHANCE_YOUR_CALM)),
    ],
  ];

  it.each(refusals)("because it %s is sent again", async (_what, refuse) => {
    let requests = 0;
    const url = await rawServer((stream, connection) => {
      if (++requests === 1) {
        refuse(stream, connection);
      } else {
        connection.send(okHeaders(stream), data(stream, "hello", true));
      }
    });
    const [pool] = createPool();
    const { body } = await request(url, { dispatcher: pool.dispatcher, method: "POST", body: "x" });
    expect(await body.text()).toBe("hello");
    expect(requests).toBe(2);
  });

  it.each(refusals)("fails when it always %s, and is known as never reached", async (_what, refuse) => {
    let requests = 0;
    const url = await rawServer((stream, connection) => {
      requests++;
      refuse(stream, connection);
    });
    const [pool] = createPool();
    const error = await failure(read(pool, url));
    expect(error).toMatchObject({ code: Code.Unavailable });
    expect(domainErrorOf(error)?.init).toMatchObject({ reason: "CALL_REFUSED" });
    expect(neverReached(error)).toBe(true);
    expect(requests).toBe(3);
  });

  it("is sent again with its whole body, while that is short", async () => {
    const bodies: string[] = [];
    const { url } = await h2Server((stream) => {
      void text(stream).then(
        (body) => {
          if (bodies.push(body) === 1) {
            stream.close(NGHTTP2_REFUSED_STREAM);
          } else {
            stream.respond({ ":status": 204 }, { endStream: true });
          }
        },
        () => undefined,
      );
    });
    const [pool] = createPool();
    const body = Readable.from(["a", "b", "c"]);
    await request(url, { dispatcher: pool.dispatcher, method: "POST", body });
    expect(bodies).toEqual(["abc", "abc"]);
  });

  it("is given up when its body is gone, and is still known as never reached", async () => {
    const { url } = await h2Server((stream) => {
      stream.resume().on("end", () => stream.close(NGHTTP2_REFUSED_STREAM));
    });
    const [pool] = createPool();
    const body = Readable.from(times(20, () => Buffer.alloc(8 * 1024)));
    const error = await failure(request(url, { dispatcher: pool.dispatcher, method: "POST", body }));
    expect(domainErrorOf(error)?.init).toMatchObject({ reason: "CALL_REFUSED" });
    expect(neverReached(error)).toBe(true);
    expect(body.destroyed).toBe(true);
  });
});

describe("an HTTP/2 request that breaks off", () => {
  it.each<[string, string, (stream: number, connection: RawConnection) => void]>([
    [
      "reset before the answer",
      "REQUEST_RESET",
      (stream, { send }) => send(reset(stream, NGHTTP2_INTERNAL_ERROR)),
    ],
    [
      "reset during the answer",
      "REQUEST_RESET",
      (stream, { send }) =>
        send(okHeaders(stream), data(stream, "ha", false), reset(stream, NGHTTP2_INTERNAL_ERROR)),
    ],
    [
      "reset during the answer as if all were well",
      "REQUEST_RESET",
      (stream, { send }) =>
        send(okHeaders(stream), data(stream, "ha", false), reset(stream, NGHTTP2_NO_ERROR)),
    ],
    [
      "refused after the answer has begun",
      "REQUEST_RESET",
      (stream, { send }) =>
        send(okHeaders(stream), data(stream, "ha", false), reset(stream, NGHTTP2_REFUSED_STREAM)),
    ],
    ["cut off before the answer", "CONNECTION_LOST", (_stream, { cut }) => cut()],
    [
      "cut off during the answer",
      "CONNECTION_LOST",
      (stream, { send, cut }) => {
        send(okHeaders(stream), data(stream, "ha", false));
        setImmediate(cut);
      },
    ],
    [
      "ended by a GOAWAY with an error that includes it",
      "CONNECTION_LOST",
      (stream, { send }) => send(goaway(stream, NGHTTP2_INTERNAL_ERROR)),
    ],
  ])("because it was %s fails once with %s: it may have been acted on", async (_what, reason, breakOff) => {
    let requests = 0;
    const url = await rawServer((stream, connection) => {
      requests++;
      breakOff(stream, connection);
    });
    const [pool] = createPool();
    const error = await failure(read(pool, url));
    expect(error).toMatchObject({ code: Code.Unavailable });
    expect(domainErrorOf(error)?.init).toMatchObject({ reason });
    expect(neverReached(error)).toBe(false);
    expect(requests).toBe(1);
    await expect
      .poll(() => pool.stats().connections.filter(({ activeRequests }) => activeRequests > 0))
      .toEqual([]);
  });

  it("goes on after a GOAWAY that includes it, on a connection that takes no others", async () => {
    const held: (() => void)[] = [];
    const url = await rawServer((stream, { number, send }) => {
      if (number > 1) {
        send(okHeaders(stream), data(stream, "new", true));
        return;
      }
      send(goaway(stream, NGHTTP2_NO_ERROR));
      held.push(() => send(okHeaders(stream), data(stream, "old", true)));
    });
    const [pool] = createPool();
    const old = read(pool, url);
    await expect.poll(() => pool.stats().connections).toMatchObject([{ state: "draining" }]);
    expect(await read(pool, url)).toBe("new");
    held[0]?.();
    expect(await old).toBe("old");
    await expect.poll(() => pool.stats()).toMatchObject({ opened: 2, closed: { goaway: 1 } });
  });

  it("fails with the pool, as one that may have been acted on", async () => {
    const { url } = await h2Server(() => undefined);
    const [pool] = createPool();
    const running = failure(read(pool, url));
    await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 1 }]);
    await pool.close();
    const error = await running;
    expect(domainErrorOf(error)?.init).toMatchObject({ reason: "INTERRUPTED", code: Code.Unavailable });
    expect(neverReached(error)).toBe(false);
    expect(neverReached(await failure(read(pool, url)))).toBe(true);
  });
});

describe("a handler of undici", () => {
  it.each(["onResponseStart", "onResponseData", "onResponseEnd", "onBodySent"] as const)(
    "that throws in %s fails its request and nothing else",
    async (name) => {
      const { url } = await echoServer();
      const [pool] = createPool();
      const failed = new Promise<Error>((resolve, reject) => {
        pool.dispatcher.dispatch(
          { origin: url, path: "/", method: "POST", body: "hello" },
          {
            onRequestStart: () => undefined,
            onResponseStart: () => undefined,
            onResponseData: () => undefined,
            onResponseEnd: () => reject(new Error("it went on")),
            onResponseError: (_controller, error) => resolve(error),
            [name]: () => {
              throw new Error("mistake");
            },
          },
        );
      });
      expect(await failed).toMatchObject({ message: "mistake" });
      expect((await echo(pool, url, { method: "POST", body: "x" })).body).toBe("x");
      await expect.poll(() => pool.stats().connections).toMatchObject([{ activeRequests: 0 }]);
    },
  );

  it("is told what is sent", async () => {
    const { url } = await echoServer();
    const [pool] = createPool();
    const events: string[] = [];
    await new Promise((resolve, reject) => {
      pool.dispatcher.dispatch(
        { origin: url, path: "/", method: "POST", body: "hello" },
        {
          onRequestStart: () => events.push("start"),
          onBodySent: (chunk) => events.push(`sent ${chunk}`),
          onRequestSent: () => events.push("all sent"),
          onResponseStarted: () => events.push("began"),
          onResponseStart: (_controller, status) => events.push(`status ${status}`),
          onResponseData: (_controller, chunk) => events.push(`data ${chunk}`),
          onResponseEnd: () => resolve(events.push("end")),
          onResponseError: (_controller, error) => reject(error),
        },
      );
    });
    expect(events).toEqual(["start", "sent hello", "all sent", "began", "status 200", "data hello", "end"]);
  });
});

describe("an HTTP/1.1 request", () => {
  it("on a connection that is gone is known as unsent", async () => {
    const server = net.createServer((socket) => socket.resume());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    const socket = net.connect(port, "127.0.0.1");
    await once(socket, "connect");
    const origin = `http://127.0.0.1:${port}`;
    const link = new H1Link(socket, {
      origin,
      idleTimeoutMs: 1_000,
      events: { onClosed: () => undefined, onGoaway: () => undefined, onCapacity: () => undefined },
    });
    socket.destroy();
    const outcome = await new Promise<H1Outcome>((resolve) => {
      void failure(link.dispatcher(resolve).request({ origin, path: "/", method: "GET" }));
    });
    expect(outcome).toMatchObject({ unsent: true });
  });
});
