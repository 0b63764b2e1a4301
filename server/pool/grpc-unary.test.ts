import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import {
  create,
  createFileRegistry,
  type DescMessage,
  type DescMethodUnary,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type ConnectionPool, createConnectionPool } from "./index.ts";
import { readStockDescriptors, stockService } from "./test-support/stock-connect-server.ts";

let getQuote: DescMethodUnary;
let pool: ConnectionPool;
const servers: { server: http2.Http2Server; sessions: http2.ServerHttp2Session[] }[] = [];

beforeAll(() => {
  const method = stockService(createFileRegistry(readStockDescriptors())).methods[0];
  if (!method) {
    throw new Error("no method");
  }
  getQuote = { ...method, methodKind: "unary" };
  pool = createConnectionPool({ logger: pino({ enabled: false }), clock: systemClock });
});

afterAll(() => pool.close());

afterEach(() => {
  for (const { server, sessions } of servers.splice(0)) {
    for (const session of sessions) {
      session.destroy();
    }
    server.close();
  }
});

/** A server that answers calls as it is told, also where that breaks the protocol. */
async function serve(answer: (stream: http2.ServerHttp2Stream) => void): Promise<string> {
  const server = http2.createServer();
  const sessions: http2.ServerHttp2Session[] = [];
  server.on("session", (session) => sessions.push(session));
  server.on("stream", (stream: http2.ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    answer(stream);
  });
  servers.push({ server, sessions });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function call(endpoint: string, maxMessageBytes = 1_000): Promise<unknown> {
  const target = { endpoint, protocol: Protocol.GRPC, headers: new Headers() };
  const transport = pool.transport(target, { maxMessageBytes });
  const { message } = await transport.unary(getQuote, undefined, 5_000, undefined, {});
  return message;
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (error: unknown) => error,
  );
}

function quote(init: Record<string, unknown> = { symbol: "ACME" }): Uint8Array {
  const desc: DescMessage = getQuote.output;
  return toBinary(desc, create(desc, init));
}

interface Answer {
  readonly headers?: http2.OutgoingHttpHeaders;
  readonly trailers?: http2.OutgoingHttpHeaders;
  readonly body?: Uint8Array;
}

function respond(stream: http2.ServerHttp2Stream, { headers, trailers, body }: Answer): void {
  stream.respond(
    { ":status": 200, "content-type": "application/grpc", ...headers },
    { waitForTrailers: true },
  );
  stream.on("wantTrailers", () => stream.sendTrailers(trailers ?? { "grpc-status": "0" }));
  stream.end(body);
}

describe("a unary gRPC call", () => {
  it("reads compressed answers", async () => {
    const url = await serve((stream) =>
      respond(stream, { headers: { "grpc-encoding": "gzip" }, body: encodeEnvelope(1, gzipSync(quote())) }),
    );
    expect(await call(url)).toMatchObject({ symbol: "ACME" });
  });

  it("reads answers that come in pieces", async () => {
    const url = await serve((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      for (const byte of encodeEnvelope(0, quote())) {
        stream.write(Buffer.from([byte]));
      }
      stream.end();
    });
    expect(await call(url)).toMatchObject({ symbol: "ACME" });
  });

  it.each<[string, Code, string, (stream: http2.ServerHttp2Stream) => void]>([
    [
      "an error without a body",
      Code.NotFound,
      "no such share",
      (stream) =>
        stream.respond(
          {
            ":status": 200,
            "content-type": "application/grpc",
            "grpc-status": "5",
            "grpc-message": "no such share",
          },
          { endStream: true },
        ),
    ],
    [
      "an error after a body",
      Code.DataLoss,
      "half of it",
      (stream) =>
        respond(stream, {
          body: encodeEnvelope(0, quote()),
          trailers: { "grpc-status": "15", "grpc-message": "half of it" },
        }),
    ],
    [
      "no status",
      Code.Internal,
      "missing status",
      (stream) => respond(stream, { body: encodeEnvelope(0, quote()), trailers: { a: "b" } }),
    ],
    ["no message", Code.Unimplemented, "missing output message", (stream) => respond(stream, {})],
    [
      "two messages",
      Code.Unimplemented,
      "extra output message",
      (stream) =>
        respond(stream, { body: Buffer.concat([encodeEnvelope(0, quote()), encodeEnvelope(0, quote())]) }),
    ],
    [
      "half a message",
      Code.Internal,
      "incomplete message",
      (stream) => respond(stream, { body: encodeEnvelope(0, quote()).subarray(0, 7) }),
    ],
    [
      "half a header",
      Code.Internal,
      "incomplete message",
      (stream) => respond(stream, { body: Buffer.from([0, 0]) }),
    ],
    [
      "garbage",
      Code.Internal,
      "the response cannot be read",
      (stream) => respond(stream, { body: encodeEnvelope(0, Buffer.from([0xff, 0xff])) }),
    ],
    [
      "a message that says it has 4 GiB",
      Code.ResourceExhausted,
      "larger than configured",
      (stream) => respond(stream, { body: Buffer.from([0, 255, 255, 255, 255, 1]) }),
    ],
    [
      "a message that is announced to be too large and does not come",
      Code.ResourceExhausted,
      "larger than configured",
      (stream) => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" });
        stream.write(Buffer.from([0, 255, 255]));
        stream.write(Buffer.from([255, 255, 1]));
      },
    ],
    [
      "a message that is too large",
      Code.ResourceExhausted,
      "larger than configured",
      (stream) => respond(stream, { body: encodeEnvelope(0, quote({ padding: Buffer.alloc(100_000) })) }),
    ],
    [
      "a message that is too large once it is decompressed",
      Code.ResourceExhausted,
      "larger than configured",
      (stream) =>
        respond(stream, {
          headers: { "grpc-encoding": "gzip" },
          body: encodeEnvelope(1, gzipSync(quote({ padding: Buffer.alloc(100_000) }))),
        }),
    ],
    [
      "another content type",
      Code.Unknown,
      "unsupported content type text/html",
      (stream) => {
        stream.respond({ ":status": 200, "content-type": "text/html" });
        stream.end("<h1>Hello</h1>");
      },
    ],
    [
      "HTTP 503",
      Code.Unavailable,
      "HTTP 503",
      (stream) => {
        stream.respond({ ":status": 503 });
        stream.end("busy");
      },
    ],
    [
      "a reset",
      Code.Internal,
      "HTTP/2 error 0x2",
      (stream) => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR),
    ],
    [
      "a reset in the middle",
      Code.Internal,
      "HTTP/2 error 0x2",
      (stream) => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" });
        stream.write(Buffer.from([0, 0, 0, 0, 9]), () => stream.destroy(new Error("half way")));
      },
    ],
    [
      "nothing but refusals",
      Code.Unavailable,
      "refuses calls",
      (stream) => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM),
    ],
    [
      "a broken connection in the middle",
      Code.Unavailable,
      "was lost",
      (stream) => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" });
        stream.write(Buffer.from([0, 0, 0, 0, 9]), () => stream.session?.socket.destroySoon());
        stream.session?.destroy();
      },
    ],
  ])("that is answered with %s fails", async (_name, code, message, answer) => {
    const url = await serve(answer);
    const error = await failure(call(url));
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({ code, rawMessage: expect.stringContaining(message) });
    await expect
      .poll(() => pool.stats().connections.filter(({ activeRequests }) => activeRequests > 0))
      .toEqual([]);
  });

  it("is sent again when it was refused unseen", async () => {
    let refusals = 2;
    const url = await serve((stream) => {
      if (refusals-- > 0) {
        stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
      } else {
        respond(stream, { body: encodeEnvelope(0, quote()) });
      }
    });
    expect(await call(url)).toMatchObject({ symbol: "ACME" });
  });

  it("fails with UNAVAILABLE when it is refused again and again, as a stream does", async () => {
    const url = await serve((stream) => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM));
    const refused = { code: Code.Unavailable, rawMessage: `${url} refuses calls` };
    expect(await failure(call(url))).toMatchObject(refused);

    const target = { endpoint: url, protocol: Protocol.GRPC, headers: new Headers() };
    const method = { ...getQuote, methodKind: "server_streaming" as const };
    async function* request() {
      yield {};
    }
    const opening = pool.transport(target).stream(method, undefined, 5_000, undefined, request());
    expect(await failure(opening)).toMatchObject(refused);
  });
});
