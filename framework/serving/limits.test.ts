import { once } from "node:events";
import { connect as connectHttp2, constants } from "node:http2";
import { connect as connectTls } from "node:tls";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { credentials, makeGenericClientConstructor, status } from "@grpc/grpc-js";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { serverCertificate, serverKey } from "../test-support/certificates.ts";
import { createFakeClock } from "../test-support/fake-clock.ts";
import { envelope, rawConnect, rawGrpc, rawRequest } from "../test-support/raw-client.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { SampleService } from "../test-support/sample-service.ts";
import { transports } from "../test-support/transports.ts";

const echo = "/sample.v1.SampleService/Echo";

function http2Session(url: string) {
  const session = connectHttp2(url);
  session.on("error", () => {}); // being cut off is what is tested
  onTestFinished(() => session.destroy());
  return session;
}

function rejection(promise: Promise<unknown>): Promise<ConnectError> {
  return promise.then(
    () => expect.unreachable("the call succeeded"),
    (error: unknown) => ConnectError.from(error),
  );
}

test.each(Object.entries(transports))(
  "a server that is full refuses %s in its own terms",
  async (_, connect) => {
    const server = await serveSample({ limits: { maxRequests: 0 } });
    const client = createClient(SampleService, connect(server.url));
    for (const call of [() => client.echo({}), () => client.count({})[Symbol.asyncIterator]().next()]) {
      const error = await rejection(call());
      expect(error.code).toBe(Code.ResourceExhausted);
      expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({ reason: "TOO_MANY_REQUESTS" });
      expect(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBe(1n);
    }
  },
);

test("a server that is full answers HTTP clients with 429 and says when to come back", async () => {
  const server = await serveSample({ limits: { maxRequests: 0 } });
  const response = await fetch(server.url + echo, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '""',
  });
  expect([response.status, response.headers.get("retry-after")]).toEqual([429, "1"]);
});

test("a refusal over gRPC is a response of headers only, which grpc-js understands", async () => {
  const server = await serveSample({ limits: { maxRequests: 0 } });
  const answer = await rawGrpc(server.url, echo, []);
  expect(answer.headers).toMatchObject({ ":status": 200, "grpc-status": "8" });
  expect(answer.trailers).toEqual({});
  const Client = makeGenericClientConstructor({}, "sample");
  const client = new Client(server.url.replace("http://", ""), credentials.createInsecure());
  onTestFinished(() => client.close());
  const code = await new Promise((resolve) => {
    const identity = (bytes: Buffer) => bytes;
    client.makeUnaryRequest(echo, identity, identity, Buffer.alloc(0), (error) => resolve(error?.code));
  });
  expect(code).toBe(status.RESOURCE_EXHAUSTED);
});

test("a full server still answers health checks, and is free again when a request ends", async () => {
  const gate = Promise.withResolvers<void>();
  const server = await serveSample(
    { limits: { maxRequests: 1 } },
    {
      async echo(request) {
        await gate.promise;
        return request;
      },
    },
  );
  const transport = createGrpcTransport({ baseUrl: server.url });
  const client = createClient(SampleService, transport);
  const first = client.echo({ value: "first" });
  await expect
    .poll(() =>
      rejection(client.measure({})).then(
        ({ code }) => code,
        () => 0,
      ),
    )
    .toBe(Code.ResourceExhausted);
  expect((await createClient(Health, transport).check({})).status).toBe(1);
  gate.resolve();
  expect((await first).value).toBe("first");
  await expect
    .poll(() =>
      client.echo({ value: "next" }).then(
        ({ value }) => value,
        () => "",
      ),
    )
    .toBe("next");
});

test("connections beyond the limit are closed", async () => {
  const server = await serveSample({ limits: { maxConnections: 1 } });
  const first = await rawConnect(server.address.port);
  const second = await rawConnect(server.address.port);
  await second.closed;
  first.socket.write("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
  await expect.poll(() => first.received().toString()).toContain("200 OK");
  expect(server.logged.some(({ msg }) => String(msg).startsWith("too many connections"))).toBe(true);
});

test("streams beyond the limit of a connection wait for others to end", async () => {
  let running = 0;
  let most = 0;
  const two = Promise.withResolvers<void>();
  const server = await serveSample(
    { limits: { maxConcurrentStreams: 2 } },
    {
      async echo(request) {
        running += 1;
        most = Math.max(most, running);
        if (running === 2) {
          two.resolve();
        }
        await two.promise;
        await new Promise(setImmediate);
        running -= 1;
        return request;
      },
    },
  );
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  // The first request comes before the client can know of the limit.
  await client.measure({});
  await Promise.all(Array.from({ length: 10 }, () => client.echo({})));
  expect(most).toBe(2);
});

test("headers beyond the limit are refused over HTTP/1.1 and HTTP/2", async () => {
  const server = await serveSample({ limits: { maxHeaderBytes: 4_096 } });
  const h1 = await fetch(`${server.url}/healthz`, { headers: { padding: "x".repeat(5_000) } });
  expect(h1.status).toBe(431);
  // The first request comes before the client can know of the limit.
  const h2 = await rawRequest(server.url, { ":path": "/healthz", padding: "x".repeat(5_000) });
  expect(h2.headers).toMatchObject({ ":status": 431 });
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
});

test.each([
  ["nothing", ""],
  ["half the preface of HTTP/2", "PR"],
  ["the preface of HTTP/2 and nothing else", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
])("a connection on which %s arrives is closed in time", async (_, bytes) => {
  const clock = createFakeClock();
  const server = await serveSample({ clock, limits: { headersTimeoutMs: 5_000 } });
  const before = clock.pending;
  const connection = await rawConnect(server.address.port);
  connection.socket.write(bytes);
  await expect.poll(() => clock.pending).toBe(before + 1);
  if (bytes.length > 3) {
    // The session's settings show that it was recognised.
    await expect.poll(() => connection.received().byteLength).toBeGreaterThan(0);
  }
  clock.advance(5_000);
  await connection.closed;
});

test("a connection over which headers trickle is closed in time", async () => {
  const server = await serveSample({ limits: { headersTimeoutMs: 50 } });
  const connection = await rawConnect(server.address.port);
  connection.socket.write("POST / HTTP/1.1\r\nhost:");
  await connection.closed;
  expect(connection.received().toString()).toContain("408");
});

test("a TLS handshake that is never finished is cut off", async () => {
  const server = await serveSample({
    tls: { cert: serverCertificate, key: serverKey },
    limits: { headersTimeoutMs: 50 },
  });
  const connection = await rawConnect(server.address.port);
  await connection.closed;
});

test("a TLS client without ALPN is served HTTP/1.1", async () => {
  const server = await serveSample({ tls: { cert: serverCertificate, key: serverKey } });
  const socket = connectTls({ port: server.address.port, host: "127.0.0.1", rejectUnauthorized: false });
  onTestFinished(() => {
    socket.destroy();
  });
  await once(socket, "secureConnect");
  socket.write("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
  const [chunk] = await once(socket, "data");
  expect(String(chunk)).toContain("HTTP/1.1 200 OK");
});

test("the preface of HTTP/2 is recognised when it comes byte by byte", async () => {
  const server = await serveSample();
  const connection = await rawConnect(server.address.port);
  for (const byte of "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
    connection.socket.write(byte);
    await new Promise(setImmediate);
  }
  // An empty SETTINGS frame; the server answers with its own.
  connection.socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
  await expect.poll(() => connection.received()[3]).toBe(4);
});

test("methods that start like the preface of HTTP/2 are HTTP/1.1", async () => {
  const server = await serveSample();
  for (const method of ["PROPFIND", "POST", "PUT", "P"]) {
    const connection = await rawConnect(server.address.port);
    connection.socket.write(`${method} /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    await expect.poll(() => connection.received().toString()).toMatch(/^HTTP\/1\.1 4/);
  }
});

test("an HTTP/2 connection without requests is closed after a while, one with a request is not", async () => {
  const clock = createFakeClock();
  const begun = Promise.withResolvers<void>();
  const paused = Promise.withResolvers<void>();
  const server = await serveSample(
    { clock, limits: { idleTimeoutMs: 60_000 } },
    {
      async echo(request) {
        begun.resolve();
        await paused.promise;
        return request;
      },
    },
  );
  const idle = http2Session(server.url);
  await once(idle, "remoteSettings");
  const busy = createClient(SampleService, createGrpcTransport({ baseUrl: server.url })).echo({ value: "x" });
  await begun.promise;
  const closed = once(idle, "close");
  await expect
    .poll(() => {
      clock.advance(60_000);
      return idle.closed;
    })
    .toBe(true);
  await closed;
  paused.resolve();
  expect((await busy).value).toBe("x");
});

test.each([
  ["HTTP/1.1", 408],
  ["HTTP/2", 0],
])("a body that stops half-way over %s is given up", async (version) => {
  const server = await serveSample({ limits: { requestTimeoutMs: 50 } });
  if (version === "HTTP/1.1") {
    const connection = await rawConnect(server.address.port);
    connection.socket.write(
      `POST ${echo} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n"hal`,
    );
    await connection.closed;
    expect(connection.received().toString()).toContain("deadline_exceeded");
  } else {
    const session = http2Session(server.url);
    const stream = session.request({ ":method": "POST", ":path": echo, "content-type": "application/grpc" });
    stream.on("error", () => {});
    stream.write(envelope(new Uint8Array(1), 0, 100));
    const [[headers], [trailers]] = await Promise.all([once(stream, "response"), once(stream, "trailers")]);
    expect(headers[":status"]).toBe(200);
    expect(trailers["grpc-status"]).toBe(String(Code.DeadlineExceeded));
    await expect.poll(() => stream.closed).toBe(true);
  }
  await expect
    .poll(() => server.logged.find(({ msg }) => msg === "call"))
    .toMatchObject({ code: "deadline_exceeded" });
});

test("a stream of requests may pause for longer than a single body", async () => {
  const clock = createFakeClock();
  const server = await serveSample({ clock, limits: { requestTimeoutMs: 50 } });
  const client = createClient(SampleService, createGrpcTransport({ baseUrl: server.url }));
  const resume = Promise.withResolvers<void>();
  const answers = client
    .chat(
      (async function* () {
        yield { value: "a" };
        await resume.promise;
        yield { value: "b" };
      })(),
    )
    [Symbol.asyncIterator]();
  expect((await answers.next()).value?.value).toBe("a!");
  clock.advance(1_000);
  resume.resolve();
  expect((await answers.next()).value?.value).toBe("b!");
});

test("a caller that was refused half-way through its upload is told to stop", async () => {
  const server = await serveSample({ limits: { maxMessageBytes: 1_000 } });
  const session = http2Session(server.url);
  const stream = session.request({ ":method": "POST", ":path": echo, "content-type": "application/grpc" });
  stream.on("error", () => {});
  stream.write(envelope(new Uint8Array(10), 0, 100_000_000));
  const trailers = once(stream, "trailers");
  expect((await trailers)[0]["grpc-status"]).toBe(String(Code.ResourceExhausted));
  await expect.poll(() => stream.closed).toBe(true);
  expect([constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_CANCEL]).toContain(stream.rstCode);
});
