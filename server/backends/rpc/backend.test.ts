import { fromBinary, type JsonObject, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { anonymous, DomainError, systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ConnectionPool, createConnectionPool } from "../../pool/index.ts";
import {
  type ConnectServer,
  type Kind,
  readStockDescriptors,
  startConnectServer,
  testCertificate,
} from "../../pool/test-support/stock-connect-server.ts";
import { type GrpcServer, startGrpcServer } from "../../pool/test-support/stock-grpc-server.ts";
import type { Backend, Input, Invocation, Invoker } from "../invocation.ts";
import type { Definition } from "../source.ts";
import { createRpcBackend } from "./backend.ts";
import { discoverFromDescriptors } from "./descriptors.ts";

let descriptors: FileDescriptorSet;
let definition: Definition;
let pool: ConnectionPool;
let backend: Backend;
let grpcServer: GrpcServer;
const connectServers = new Map<Kind, ConnectServer>();

beforeAll(async () => {
  descriptors = readStockDescriptors();
  const discovery = discoverFromDescriptors({ source: { fileDescriptorSet: descriptors }, services: [] });
  if (!discovery.definition) {
    throw new Error("nothing was discovered");
  }
  definition = discovery.definition;
  pool = createConnectionPool({
    logger: pino({ enabled: false }),
    clock: systemClock,
    tls: { ca: testCertificate.cert },
  });
  backend = createRpcBackend({ pool, maxResultBytes: 64 * 1024 });
  grpcServer = await startGrpcServer();
  for (const kind of ["h1", "h1s", "h2c", "h2s"] as const) {
    connectServers.set(kind, await startConnectServer(kind, descriptors));
  }
});

afterAll(async () => {
  await pool.close();
  grpcServer.close();
  for (const server of connectServers.values()) {
    await server.close();
  }
});

interface Call {
  readonly url: string;
  readonly protocol: Protocol;
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

function invocation({ url, protocol, headers, signal, timeoutMs }: Call): Invocation {
  return {
    service: "stock",
    target: { endpoint: url, protocol, headers: new Headers({ authorization: "Bearer service" }) },
    principal: anonymous,
    headers: new Headers({ "x-correlation-id": "c-1", ...headers }),
    signal: signal ?? new AbortController().signal,
    timeoutMs: timeoutMs ?? 10_000,
  };
}

function invoker(method: string): Invoker {
  return backend.invoker(definition, `acme.stock.v1.StockService/${method}`);
}

async function call(method: string, inputs: JsonObject[], options: Call): Promise<JsonValue[]> {
  const tool = invoker(method);
  const messages = inputs.map((json, index) => tool.parse(json, `arguments[${index}]`));
  const results: JsonValue[] = [];
  for await (const output of tool.invoke(messages, invocation(options))) {
    results.push(output.json());
  }
  return results;
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (error: unknown) => error,
  );
}

const targets: readonly [string, Protocol, Kind | "grpc-js"][] = [
  ["gRPC to grpc-js", Protocol.GRPC, "grpc-js"],
  ["gRPC over h2c", Protocol.GRPC, "h2c"],
  ["gRPC over TLS", Protocol.GRPC, "h2s"],
  ["gRPC-Web over HTTP/1.1", Protocol.GRPC_WEB, "h1"],
  ["gRPC-Web over HTTP/1.1 with TLS", Protocol.GRPC_WEB, "h1s"],
  ["gRPC-Web over TLS", Protocol.GRPC_WEB, "h2s"],
  ["Connect over HTTP/1.1", Protocol.CONNECT, "h1"],
  ["Connect over HTTP/1.1 with TLS", Protocol.CONNECT, "h1s"],
  ["Connect over h2c", Protocol.CONNECT, "h2c"],
  ["Connect over TLS", Protocol.CONNECT, "h2s"],
];

describe.each(targets)("%s", (_name, protocol, kind) => {
  const options = (): Call => ({
    url: kind === "grpc-js" ? grpcServer.url : (connectServers.get(kind)?.url ?? ""),
    protocol,
  });
  const server = () => (kind === "grpc-js" ? grpcServer : connectServers.get(kind));

  it("calls a unary method", async () => {
    expect(await call("GetQuote", [{ symbol: "ACME" }], options())).toEqual([
      expect.objectContaining({ symbol: "ACME", priceCents: "4200" }),
    ]);
  });

  it("streams what the server sends", async () => {
    const quotes = await call("WatchQuotes", [{ symbol: "ACME", count: 3 }], options());
    expect(quotes).toEqual(["1", "2", "3"].map((priceCents) => expect.objectContaining({ priceCents })));
  });

  it("streams what the client sends", async () => {
    const trades = [1, 2, 3].map((priceCents) => ({ symbol: "ACME", priceCents }));
    expect(await call("ImportTrades", trades, options())).toEqual([{ trades: 3, totalCents: "6" }]);
  });

  if (kind === "h1" || kind === "h1s") {
    it("needs HTTP/2 to send and receive at the same time", async () => {
      const error = await failure(call("Negotiate", [{ symbol: "ACME" }], options()));
      expect(error).toMatchObject({ init: { code: Code.FailedPrecondition, reason: "HTTP2_REQUIRED" } });
    });
  } else {
    it("sends and receives at the same time", async () => {
      const tool = invoker("Negotiate");
      const received: JsonValue[] = [];
      const answers = new Map<number, PromiseWithResolvers<void>>();
      const answer = (index: number) => {
        const known = answers.get(index) ?? Promise.withResolvers<void>();
        answers.set(index, known);
        return known;
      };
      // Each offer is made only when the one before was answered, so that this ends only if both directions flow.
      async function* offers(): AsyncGenerator<Input> {
        for (let index = 0; index < 3; index++) {
          yield tool.parse({ symbol: "ACME", priceCents: index * 10 }, "arguments");
          await answer(index).promise;
        }
      }
      for await (const output of tool.invoke(offers(), invocation(options()))) {
        answer(received.length).resolve();
        received.push(output.json());
      }
      expect(received).toEqual(["1", "11", "21"].map((priceCents) => ({ symbol: "ACME", priceCents })));
    });
  }

  it("sends the service's headers and the call's", async () => {
    const [quote] = await call("GetQuote", [{ symbol: "HEADERS" }], {
      ...options(),
      headers: {
        authorization: "Bearer caller",
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      },
    });
    expect(quote).toHaveProperty("headers.authorization", "Bearer service");
    expect(quote).toHaveProperty("headers.x-correlation-id", "c-1");
    expect(quote).toHaveProperty("headers.traceparent");
  });

  it("keeps the backend's code, message and metadata", async () => {
    const error = await failure(call("GetQuote", [{ symbol: "MISSING" }], options()));
    expect(error).toBeInstanceOf(ConnectError);
    expect(error).toMatchObject({ code: Code.NotFound, rawMessage: "no such share" });
    const { metadata } = error as ConnectError;
    expect(metadata.get("x-exchange")).toBe("XNAS");
    expect(metadata.get("content-type")).toBeNull();
    expect(metadata.get("grpc-status")).toBeNull();
  });

  it("cancels the backend's call when the caller leaves", async () => {
    const left = new AbortController();
    server()?.started.splice(0);
    const running = failure(call("GetQuote", [{ symbol: "SLOW" }], { ...options(), signal: left.signal }));
    const before = server()?.cancelled.length ?? 0;
    await expect.poll(() => server()?.started.at(-1)).toBe("SLOW");
    left.abort(new ConnectError("the caller left", Code.Canceled));
    expect(await running).toMatchObject({ code: Code.Canceled });
    await expect.poll(() => server()?.cancelled.length).toBe(before + 1);
    await expect.poll(() => active(options().url)).toBe(0);
  });

  it("cancels the backend's stream when the iteration is left", async () => {
    const tool = invoker("WatchQuotes");
    const before = server()?.cancelled.length ?? 0;
    const input = tool.parse({ symbol: "ENDLESS" }, "arguments");
    for await (const output of tool.invoke([input], invocation(options()))) {
      expect(output.json()).toMatchObject({ priceCents: "1" });
      break;
    }
    await expect.poll(() => server()?.cancelled.length).toBe(before + 1);
    await expect.poll(() => active(options().url)).toBe(0);
  });

  it("ends a call at its deadline", async () => {
    const error = await failure(call("GetQuote", [{ symbol: "SLOW" }], { ...options(), timeoutMs: 50 }));
    expect(error).toMatchObject({ code: Code.DeadlineExceeded });
    await expect.poll(() => active(options().url)).toBe(0);
  });
});

function active(url: string): number {
  return pool
    .stats()
    .connections.filter(({ origin }) => origin === url)
    .reduce((sum, { activeRequests }) => sum + activeRequests, 0);
}

describe("a call", () => {
  const options = (): Call => ({ url: grpcServer.url, protocol: Protocol.GRPC });

  it.each([
    [Protocol.GRPC, "h2c", "1235m", "99999999m"],
    [Protocol.GRPC_WEB, "h1", "1235m", "99999999m"],
    [Protocol.CONNECT, "h1", "1235", "99999999"],
  ] as const)(
    "tells the backend its deadline in at most eight digits (%s)",
    async (protocol, kind, short, long) => {
      const server = connectServers.get(kind);
      server?.timeouts.splice(0);
      const target = { url: server?.url ?? "", protocol };
      await call("GetQuote", [{ symbol: "ACME" }], { ...target, timeoutMs: 1234.5 });
      await call("GetQuote", [{ symbol: "ACME" }], { ...target, timeoutMs: Number.MAX_SAFE_INTEGER });
      expect(server?.timeouts).toEqual([short, long]);
    },
  );

  it("that could not be connected says where and why", async () => {
    const error = await failure(
      call("GetQuote", [{ symbol: "ACME" }], { url: "http://127.0.0.1:1", protocol: Protocol.GRPC }),
    );
    expect(error).toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringContaining("Cannot connect to http://127.0.0.1:1: connection refused"),
    });
  });

  it("whose result is too large fails with RESULT_TOO_LARGE", async () => {
    const error = await failure(call("GetQuote", [{ symbol: "LARGE", size: 70_000 }], options()));
    expect(error).toBeInstanceOf(DomainError);
    expect(error).toMatchObject({ init: { code: Code.ResourceExhausted, reason: "RESULT_TOO_LARGE" } });
    expect(await call("GetQuote", [{ symbol: "LARGE", size: 60_000 }], options())).toHaveLength(1);
  });

  it("to a server that speaks only HTTP/1.1 over gRPC is explained", async () => {
    const url = connectServers.get("h1")?.url ?? "";
    const error = await failure(call("GetQuote", [{ symbol: "ACME" }], { url, protocol: Protocol.GRPC }));
    expect(error).toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringContaining("the server does not speak HTTP/2 there"),
    });
  });

  it("whose input fails ends with that failure", async () => {
    const tool = invoker("ImportTrades");
    async function* inputs(): AsyncGenerator<Input> {
      yield tool.parse({ symbol: "ACME", priceCents: 1 }, "arguments");
      throw new DomainError({ code: Code.InvalidArgument, reason: "BROKEN_INPUT", message: "no more" });
    }
    const error = await failure(drain(tool.invoke(inputs(), invocation(options()))));
    expect(error).toMatchObject({ init: { reason: "BROKEN_INPUT" } });
  });
});

async function drain(iterable: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of iterable) {
    // Only the end matters.
  }
}

describe("arguments", () => {
  it("that do not fit are refused with their paths", () => {
    expect(() => invoker("GetQuote").parse({ symbol: 1, colour: "red" }, "call.arguments")).toThrow(
      expect.objectContaining({ init: expect.objectContaining({ code: Code.InvalidArgument }) }),
    );
  });

  it("in Protobuf must be of the tool's type", () => {
    const tool = invoker("GetQuote");
    expect(() =>
      tool.parseMessage(
        { $typeName: "google.protobuf.Any", typeUrl: "type.googleapis.com/a.B", value: new Uint8Array() },
        "call.message",
      ),
    ).toThrow(/call\.message: the tool takes a acme\.stock\.v1\.GetQuoteRequest/);
    expect(() =>
      tool.parseMessage(
        {
          $typeName: "google.protobuf.Any",
          typeUrl: "type.googleapis.com/acme.stock.v1.GetQuoteRequest",
          value: new Uint8Array([0xff]),
        },
        "call.message",
      ),
    ).toThrow(/call\.message: it cannot be read/);
  });
});

describe("a definition", () => {
  it("is read once, also when its bytes were loaded anew", () => {
    const again: Definition = { kind: "descriptors", bytes: Uint8Array.from(definition.bytes) };
    const name = "acme.stock.v1.StockService/GetQuote";
    expect(backend.invoker(again, name)).toBe(backend.invoker(definition, name));
  });

  it("is the same whatever order its files came in, and read back", () => {
    const shuffled = fromBinary(FileDescriptorSetSchema, toBinary(FileDescriptorSetSchema, descriptors));
    shuffled.file.reverse();
    const again = discoverFromDescriptors({ source: { fileDescriptorSet: shuffled }, services: [] });
    expect(again.definition?.bytes).toEqual(definition.bytes);
  });

  it("without the method, or that cannot be read, gives a typed error", () => {
    expect(() => backend.invoker(definition, "acme.stock.v1.StockService/Nope")).toThrow(
      /method "acme.stock.v1.StockService\/Nope" does not exist/,
    );
    const broken: Definition = { kind: "descriptors", bytes: new Uint8Array([1, 2, 3]) };
    expect(() => backend.invoker(broken, "a.B/C")).toThrow(/cannot be read/);
  });
});
