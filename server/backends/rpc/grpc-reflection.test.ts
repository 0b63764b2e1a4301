import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { anonymous, DomainError, systemClock } from "@toolplane/framework";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Idempotency, Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import pino from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type ConnectionPool, createConnectionPool } from "../../pool/index.ts";
import type { Target } from "../../pool/target.ts";
import { startConnectServer } from "../../pool/test-support/stock-connect-server.ts";
import { type GrpcServer, startGrpcServer } from "../../pool/test-support/stock-grpc-server.ts";
import type { Discovery } from "../source.ts";
import { createRpcBackend } from "./backend.ts";
import { discoverByReflection } from "./grpc-reflection.ts";

let pool: ConnectionPool;
const cleanups: (() => unknown)[] = [];

beforeAll(() => {
  pool = createConnectionPool({ logger: pino({ enabled: false }), clock: systemClock });
});

afterAll(() => pool.close());

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

function target(endpoint: string, protocol = Protocol.GRPC): Target {
  return { endpoint, protocol, headers: new Headers({ authorization: "Bearer service" }) };
}

function discover(
  endpoint: string,
  services: string[] = [],
  signal = AbortSignal.timeout(10_000),
): Promise<Discovery> {
  return discoverByReflection({ services, target: target(endpoint), pool, signal });
}

async function failure(promise: Promise<unknown>): Promise<DomainError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof DomainError) {
      return error;
    }
    throw error;
  }
  throw new Error("it did not fail");
}

async function grpcServer(options: Parameters<typeof startGrpcServer>[0] = {}): Promise<GrpcServer> {
  const server = await startGrpcServer(options);
  cleanups.push(() => server.close());
  return server;
}

describe.each([
  ["v1 and v1alpha", ["v1", "v1alpha"]],
  ["v1", ["v1"]],
  ["v1alpha", ["v1alpha"]],
] as const)("a grpc-js server with reflection %s", (_name, reflection) => {
  it("offers its methods as tools, and they can be called", async () => {
    const server = await grpcServer({ reflection });
    const { tools, problems, definition } = await discover(server.url);
    expect(problems).toEqual([]);
    expect(tools.map(({ name, streaming, title }) => [name, streaming, title])).toEqual([
      ["acme.stock.v1.StockService.GetQuote", Streaming.UNARY, "Get quote"],
      ["acme.stock.v1.StockService.WatchQuotes", Streaming.SERVER, "Watch quotes"],
      ["acme.stock.v1.StockService.ImportTrades", Streaming.CLIENT, "Import trades"],
      ["acme.stock.v1.StockService.Negotiate", Streaming.BIDI, "Negotiate"],
    ]);
    expect(tools[0]?.inputSchema).toHaveProperty("properties.symbol");
    expect(tools.map(({ idempotency }) => idempotency)).toEqual([
      Idempotency.NO_SIDE_EFFECTS,
      Idempotency.NO_SIDE_EFFECTS,
      Idempotency.UNSPECIFIED,
      Idempotency.UNSPECIFIED,
    ]);
    if (!definition) {
      throw new Error("nothing to call");
    }
    const tool = createRpcBackend({ pool, maxResultBytes: 1e6 }).invoker(
      definition,
      tools[0]?.sourceName ?? "",
    );
    const outputs = tool.invoke([tool.parse({ symbol: "ACME" }, "arguments")], {
      service: "s",
      target: target(server.url),
      principal: anonymous,
      headers: new Headers(),
      signal: AbortSignal.timeout(10_000),
      timeoutMs: 10_000,
    });
    for await (const output of outputs) {
      expect(output.json()).toMatchObject({ symbol: "ACME", priceCents: "4200" });
    }
  });
});

describe("discovery", () => {
  it("offers only the services asked for, and says which ones are not there", async () => {
    const server = await grpcServer();
    const { tools, problems } = await discover(server.url, ["acme.stock.v1.StockService", "acme.Nope"]);
    expect(tools).toHaveLength(4);
    expect(problems).toEqual([
      { reason: "SERVICE_NOT_FOUND", message: expect.stringContaining("does not offer a service acme.Nope") },
    ]);
  });

  it("uses one connection and gives the same definition each time", async () => {
    const server = await grpcServer();
    const first = await discover(server.url);
    const second = await discover(server.url);
    expect(second.definition?.bytes).toEqual(first.definition?.bytes);
    expect(pool.stats().connections.filter(({ origin }) => origin === server.url)).toHaveLength(1);
  });

  it("fails with REFLECTION_UNSUPPORTED where there is no reflection", async () => {
    const server = await startConnectServer("h2c");
    cleanups.push(() => server.close());
    const { init } = await failure(discover(server.url));
    expect(init).toMatchObject({ code: Code.FailedPrecondition, reason: "REFLECTION_UNSUPPORTED" });
    expect(init.message).toContain("enable it there, or register the service with descriptors");
  });

  it("fails with UNREACHABLE where nobody listens", async () => {
    const { init } = await failure(discover("http://127.0.0.1:1"));
    expect(init).toMatchObject({ code: Code.Unavailable, reason: "UNREACHABLE" });
    expect(init.message).toContain("connection refused");
  });

  it("fails with REFLECTION_UNSUPPORTED where Connect is spoken over HTTP/1.1", async () => {
    const server = await startConnectServer("h1");
    cleanups.push(() => server.close());
    const signal = AbortSignal.timeout(10_000);
    const connect = target(server.url, Protocol.CONNECT);
    const { init } = await failure(discoverByReflection({ services: [], target: connect, pool, signal }));
    expect(init).toMatchObject({ code: Code.FailedPrecondition, reason: "REFLECTION_UNSUPPORTED" });
    expect(init.message).toContain("speaks only HTTP/1.1");
  });

  it("fails with UNREACHABLE where HTTP/2 is not spoken", async () => {
    const server = await startConnectServer("h1");
    cleanups.push(() => server.close());
    const { init } = await failure(discover(server.url));
    expect(init).toMatchObject({ code: Code.Unavailable, reason: "UNREACHABLE" });
    expect(init.message).toContain("does not speak HTTP/2");
  });
});

/** A reflection service that answers as it is told. */
async function startReflection(
  answer: (
    request: ServerReflectionRequest["messageRequest"],
    headers: Headers,
  ) => ServerReflectionResponse["messageResponse"] | Promise<ServerReflectionResponse["messageResponse"]>,
): Promise<string> {
  const adapter = connectNodeAdapter({
    routes: (router) =>
      router.service(ServerReflection, {
        async *serverReflectionInfo(requests, { requestHeader }) {
          for await (const { messageRequest } of requests) {
            yield { messageResponse: await answer(messageRequest, requestHeader) };
          }
        },
      }),
  });
  const server = http2.createServer(adapter);
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    for (const session of sessions) {
      session.destroy();
    }
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

type Response = ServerReflectionResponse["messageResponse"];

function services(...names: string[]): Response {
  return {
    case: "listServicesResponse",
    value: {
      $typeName: "grpc.reflection.v1.ListServiceResponse",
      service: names.map((name) => ({ $typeName: "grpc.reflection.v1.ServiceResponse", name })),
    },
  };
}

function files(...list: (FileDescriptorProto | Uint8Array)[]): Response {
  return {
    case: "fileDescriptorResponse",
    value: {
      $typeName: "grpc.reflection.v1.FileDescriptorResponse",
      fileDescriptorProto: list.map((file) =>
        file instanceof Uint8Array ? file : toBinary(FileDescriptorProtoSchema, file),
      ),
    },
  };
}

function notFound(errorMessage: string): Response {
  return {
    case: "errorResponse",
    value: { $typeName: "grpc.reflection.v1.ErrorResponse", errorCode: Code.NotFound, errorMessage },
  };
}

/** `package` with one service `S` that has one method `Do`, from `.type` to `.type`. */
function serviceFile(scope: string, type: string, dependency: string[] = []): FileDescriptorProto {
  return create(FileDescriptorProtoSchema, {
    name: `${scope}.proto`,
    package: scope,
    syntax: "proto3",
    dependency,
    service: [{ name: "S", method: [{ name: "Do", inputType: type, outputType: type }] }],
  });
}

function messageFile(scope: string, name: string): FileDescriptorProto {
  return create(FileDescriptorProtoSchema, {
    name: `${scope}/${name}.proto`,
    package: scope,
    syntax: "proto3",
    messageType: [
      {
        name,
        field: [
          {
            name: "some_text",
            number: 1,
            type: FieldDescriptorProto_Type.STRING,
            label: FieldDescriptorProto_Label.OPTIONAL,
          },
        ],
      },
    ],
  });
}

describe("a server that describes itself badly", () => {
  it("keeps its good services when others cannot be fetched, read or linked", async () => {
    const url = await startReflection((request) => {
      switch (request.case) {
        case "listServices":
          return services("good.S", "gone.S", "garbled.S", "unlinked.S", "grpc.health.v1.Health");
        case "fileContainingSymbol":
          switch (request.value) {
            case "good.S":
              return files(serviceFile("good", ".google.protobuf.Empty", ["google/protobuf/empty.proto"]));
            case "garbled.S":
              return files(new Uint8Array([0xff, 0xff]));
            case "unlinked.S":
              return files(serviceFile("unlinked", ".nowhere.Missing", ["nowhere.proto"]));
            default:
              return notFound(`no ${request.value}`);
          }
        default:
          return notFound("not here");
      }
    });
    const { tools, problems, definition } = await discover(url);
    expect(tools.filter(({ problem }) => !problem).map(({ name }) => name)).toEqual(["good.S.Do"]);
    expect(definition).toBeDefined();
    expect(problems).toEqual([
      expect.objectContaining({ reason: "REFLECTION_FAILED", message: expect.stringContaining("garbled.S") }),
      expect.objectContaining({ reason: "REFLECTION_FAILED", message: expect.stringContaining("no gone.S") }),
      expect.objectContaining({
        reason: "BROKEN_DESCRIPTOR",
        tool: "unlinked.S.Do",
        message: expect.stringContaining("nowhere.Missing"),
      }),
    ]);
  });

  it("is understood when imports are missing that only options need", async () => {
    const url = await startReflection((request) => {
      switch (request.case) {
        case "listServices":
          return services("a.S");
        case "fileContainingSymbol":
          return files(serviceFile("a", ".b.Thing", ["options/custom.proto", "b/Thing.proto"]));
        case "fileByFilename":
          return request.value === "b/Thing.proto"
            ? files(messageFile("b", "Thing"))
            : notFound("no such file");
        default:
          return notFound("not here");
      }
    });
    const { tools, problems } = await discover(url);
    expect(problems).toEqual([]);
    expect(tools[0]?.inputSchema).toHaveProperty("properties.someText");
  });

  it("is understood when files are imported by other names than they are known by", async () => {
    const url = await startReflection((request) => {
      switch (request.case) {
        case "listServices":
          return services("a.S");
        case "fileContainingSymbol":
          return request.value === "b.Thing"
            ? files(messageFile("b", "Thing"))
            : files(serviceFile("a", ".b.Thing", ["src/main/proto/thing.proto"]));
        default:
          return notFound("no such file");
      }
    });
    const { tools, problems } = await discover(url);
    expect(problems).toEqual([]);
    expect(tools[0]?.inputSchema).toHaveProperty("properties.someText");
  });

  it("gets the service's headers", async () => {
    const seen: (string | null)[] = [];
    const url = await startReflection((request, headers) => {
      seen.push(headers.get("authorization"));
      return request.case === "listServices" ? services() : notFound("not here");
    });
    expect(await discover(url)).toEqual({ tools: [], problems: [], definition: undefined });
    expect(seen).toEqual(["Bearer service"]);
  });

  it("is given up when it never stops naming files", async () => {
    let count = 0;
    const url = await startReflection((request) => {
      if (request.case === "listServices") {
        return services("a.S");
      }
      const next = Array.from({ length: 500 }, () => `file${count++}.proto`);
      return request.case === "fileContainingSymbol"
        ? files(serviceFile("a", ".b.Thing", next))
        : files(
            create(FileDescriptorProtoSchema, {
              name: String(request.value),
              syntax: "proto3",
              dependency: next,
            }),
          );
    });
    const { init } = await failure(discover(url));
    expect(init).toMatchObject({ code: Code.ResourceExhausted, reason: "REFLECTION_FAILED" });
  });

  it("is given up when it sends too much", async () => {
    const url = await startReflection((request) => {
      switch (request.case) {
        case "listServices":
          return services(...Array.from({ length: 10 }, (_, index) => `a${index}.S`));
        case "fileContainingSymbol":
          return files(
            create(FileDescriptorProtoSchema, {
              name: `${request.value}.proto`,
              options: { javaPackage: "x".repeat(4 * 1024 * 1024) },
            }),
          );
        default:
          return notFound("not here");
      }
    });
    expect((await failure(discover(url))).init.message).toContain("more than 33554432 bytes");
  });

  it("is given up at the deadline when it does not answer", async () => {
    const url = await startReflection(() => new Promise(() => undefined));
    const deadline = new AbortController();
    const pending = failure(discover(url, [], deadline.signal));
    deadline.abort(new ConnectError("too slow", Code.DeadlineExceeded));
    expect((await pending).init).toMatchObject({
      code: Code.DeadlineExceeded,
      reason: "REFLECTION_FAILED",
      message: `${url} did not answer gRPC server reflection in time`,
    });
  });

  it("fails with its own code when it refuses", async () => {
    const url = await startReflection(() => {
      throw new ConnectError("no token", Code.Unauthenticated);
    });
    expect((await failure(discover(url))).init).toMatchObject({
      code: Code.Unauthenticated,
      reason: "REFLECTION_FAILED",
      message: expect.stringContaining("no token"),
    });
  });
});
