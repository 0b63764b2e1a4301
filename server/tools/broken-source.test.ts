import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { create, type DescFile, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { DomainError } from "@toolplane/framework";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServiceState } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { SampleService } from "../../framework/test-support/sample-service.ts";
import { emptyRegistry } from "../registry/test-support/open-registry.ts";
import { instance, service } from "../registry/test-support/specs.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { openCaller } from "./test-support/open-caller.ts";

/** A service with one method whose messages are in a file that nobody has. */
const unlinked = create(FileDescriptorProtoSchema, {
  name: "unlinked.proto",
  package: "unlinked",
  syntax: "proto3",
  dependency: ["nowhere.proto"],
  service: [
    {
      name: "S",
      method: [{ name: "Do", inputType: ".nowhere.Missing", outputType: ".nowhere.Missing" }],
    },
  ],
});

function filesOf(file: DescFile): FileDescriptorProto[] {
  return [...file.dependencies.flatMap(filesOf), file.proto];
}

function answer({
  case: kind,
  value,
}: ServerReflectionRequest["messageRequest"]): ServerReflectionResponse["messageResponse"] {
  const files = new Map([
    ["sample.v1.SampleService", filesOf(SampleService.file)],
    ["unlinked.S", [unlinked]],
  ]);
  if (kind === "listServices") {
    const names = [...files.keys(), "gone.S"];
    return {
      case: "listServicesResponse",
      value: {
        $typeName: "grpc.reflection.v1.ListServiceResponse",
        service: names.map((name) => ({ $typeName: "grpc.reflection.v1.ServiceResponse", name })),
      },
    };
  }
  const found = kind === "fileContainingSymbol" ? files.get(value) : undefined;
  return found
    ? {
        case: "fileDescriptorResponse",
        value: {
          $typeName: "grpc.reflection.v1.FileDescriptorResponse",
          fileDescriptorProto: found.map((file) => toBinary(FileDescriptorProtoSchema, file)),
        },
      }
    : {
        case: "errorResponse",
        value: {
          $typeName: "grpc.reflection.v1.ErrorResponse",
          errorCode: Code.NotFound,
          errorMessage: `nobody knows ${value}`,
        },
      };
}

/** A server that echoes, and describes also what it does not have. */
async function startServer(): Promise<string> {
  const server = http2.createServer(
    connectNodeAdapter({
      routes(router) {
        router.service(SampleService, { echo: (request) => request });
        router.service(ServerReflection, {
          async *serverReflectionInfo(requests) {
            for await (const { messageRequest } of requests) {
              yield { messageResponse: answer(messageRequest) };
            }
          },
        });
      },
    }),
  );
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    for (const session of sessions) {
      session.destroy();
    }
  });
  // A server that listens on a port has an AddressInfo.
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("a server that describes some of its services badly is degraded, and its other tools can be called", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const registry = await emptyRegistry(database);
  const call = openCaller(registry);

  const { service: registered } = await registry.register(
    service({ name: "half" }),
    instance({ endpoint: await startServer() }),
  );

  expect(registered.state).toBe(ServiceState.DEGRADED);
  expect(registered.problems).toEqual([
    expect.objectContaining({
      tool: "",
      reason: "REFLECTION_FAILED",
      message: expect.stringContaining("nobody knows gone.S"),
    }),
    expect.objectContaining({
      tool: "half.unlinked.S.Do",
      reason: "BROKEN_DESCRIPTOR",
      message: expect.stringContaining("nowhere.Missing"),
    }),
  ]);
  const echo = await call({ tool: "half.Echo", input: { case: "arguments", value: { value: "hi" } } });
  expect(echo.results).toEqual(["hi"]);
  const { problem } = registry.getTool("half.unlinked.S.Do", {});
  expect(problem).toMatchObject({ reason: "BROKEN_DESCRIPTOR" });
  await expect(call({ tool: "half.unlinked.S.Do" })).rejects.toMatchObject({
    init: {
      code: Code.FailedPrecondition,
      reason: "BROKEN_DESCRIPTOR",
      message: expect.stringContaining("nowhere.Missing"),
    },
  } satisfies { init: Partial<DomainError["init"]> });
  await expect(call({ tool: "half.gone.S.Do" })).rejects.toThrow(/REFLECTION_FAILED: .*nobody knows gone\.S/);
});
