import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import {
  create,
  createFileRegistry,
  type DescService,
  type FileRegistry,
  fromBinary,
  getOption,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter, createClient, type Transport } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import {
  type ExtensionRequest,
  ExtensionRequestSchema,
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionV1Alpha } from "@toolplane/gen/grpc/reflection/v1alpha/reflection_pb.js";
import { tool } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { documentedDescriptors } from "@toolplane/gen/toolplane/documented_descriptors.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { afterEach, describe, expect, it } from "vitest";
import { startHttp2Server } from "../test-support/http2-server.ts";
import { reflectionRoutes } from "./reflection.ts";

interface Question {
  readonly host?: string;
  readonly messageRequest: ServerReflectionRequest["messageRequest"];
}

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

/** Starts a server that reflects the services. */
async function start(...services: DescService[]): Promise<{ url: string; transport: Transport }> {
  return await startWith(reflectionRoutes(services));
}

async function startWith(
  routes: (router: ConnectRouter) => void,
): Promise<{ url: string; transport: Transport }> {
  const server = await startHttp2Server(routes);
  const sessionManager = new Http2SessionManager(server.url);
  cleanups.push(
    () => server.close(),
    () => sessionManager.abort(),
  );
  return { url: server.url, transport: createGrpcTransport({ baseUrl: server.url, sessionManager }) };
}

/** Asks one question after another on one stream. */
async function ask(transport: Transport, ...questions: Question["messageRequest"][]) {
  return await askVersion(
    ServerReflection,
    transport,
    questions.map((messageRequest) => ({ messageRequest })),
  );
}

async function askVersion(
  version: typeof ServerReflection | typeof ServerReflectionV1Alpha,
  transport: Transport,
  questions: Question[],
): Promise<ServerReflectionResponse[]> {
  // The versions differ in their package and in nothing else.
  const client = createClient(version as typeof ServerReflection, transport);
  const responses: ServerReflectionResponse[] = [];
  for await (const response of client.serverReflectionInfo(createAsyncIterable(questions))) {
    responses.push(response);
  }
  return responses;
}

function extension(containingType: string, extensionNumber: number): ExtensionRequest {
  return create(ExtensionRequestSchema, { containingType, extensionNumber });
}

function filesOf(
  response: Pick<ServerReflectionResponse, "messageResponse"> | undefined,
): FileDescriptorProto[] {
  const answer = response?.messageResponse;
  if (answer?.case !== "fileDescriptorResponse") {
    throw new Error(`not a file: ${JSON.stringify(answer)}`);
  }
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}

/** What a client that knows nothing of the schema makes of an answer. */
function schemaOf(files: FileDescriptorProto[]): FileRegistry {
  const ordered = new Set<FileDescriptorProto>();
  function add(name: string): void {
    const file = files.find((each) => each.name === name);
    if (file === undefined) {
      throw new Error(`${name} is missing`);
    }
    file.dependency.forEach(add);
    ordered.add(file);
  }
  for (const { name } of files) {
    add(name);
  }
  return compile(...ordered);
}

/** Compiles files, each after those that it imports. */
function compile(...file: MessageInitShape<typeof FileDescriptorProtoSchema>[]): FileRegistry {
  return createFileRegistry(create(FileDescriptorSetSchema, { file }));
}

function serviceOf(schema: FileRegistry, name: string): DescService {
  const service = schema.getService(name);
  if (service === undefined) {
    throw new Error(`no service ${name}`);
  }
  return service;
}

const STRING = { number: 1, type: 9, label: 1 } as const;

/** A file with something of every kind. */
const garden = compile({
  name: "garden/garden.proto",
  package: "garden",
  syntax: "proto2",
  messageType: [
    {
      name: "Bed",
      field: [
        { name: "label", ...STRING },
        { name: "herb", ...STRING, number: 2, oneofIndex: 0 },
      ],
      oneofDecl: [{ name: "plant" }],
      nestedType: [{ name: "Row", field: [{ name: "length", ...STRING }] }],
      enumType: [{ name: "Soil", value: [{ name: "LOAM", number: 0 }] }],
      extensionRange: [{ start: 100, end: 200 }],
      extension: [{ name: "shade", ...STRING, number: 101, extendee: ".garden.Bed" }],
    },
    { name: "Tool" },
  ],
  enumType: [{ name: "Season", value: [{ name: "SPRING", number: 0 }] }],
  extension: [{ name: "fence", ...STRING, number: 100, extendee: ".garden.Bed" }],
  service: [
    { name: "Garden", method: [{ name: "Plant", inputType: ".garden.Bed", outputType: ".garden.Tool" }] },
  ],
});

describe.each([
  ["v1", ServerReflection],
  ["v1alpha", ServerReflectionV1Alpha],
] as const)("reflection %s", (_version, reflection) => {
  it("lists the services of the server, both versions of itself included", async () => {
    const { transport } = await start(RegistryService, Health);

    const [response] = await askVersion(reflection, transport, [
      { host: "here", messageRequest: { case: "listServices", value: "*" } },
    ]);

    expect(response).toMatchObject({
      validHost: "here",
      originalRequest: { host: "here", messageRequest: { case: "listServices", value: "*" } },
      messageResponse: {
        case: "listServicesResponse",
        value: {
          service: [
            { name: "grpc.health.v1.Health" },
            { name: "grpc.reflection.v1.ServerReflection" },
            { name: "grpc.reflection.v1alpha.ServerReflection" },
            { name: "toolplane.registry.v1.RegistryService" },
          ],
        },
      },
    });
  });

  it("sends a schema that is complete, with custom options", async () => {
    const { transport } = await start(RegistryService);

    const [response] = await askVersion(reflection, transport, [
      { messageRequest: { case: "fileContainingSymbol", value: RegistryService.typeName } },
    ]);

    const files = filesOf(response);
    expect(files[0]?.name).toBe("toolplane/registry/v1/registry_service.proto");
    const service = serviceOf(schemaOf(files), RegistryService.typeName);
    expect(service.methods.map(({ name }) => name)).toEqual(RegistryService.methods.map(({ name }) => name));
    const [method] = service.methods;
    expect(method && getOption(method, tool).title).toBe("Register a service");
    expect(files.map(({ name }) => name)).toContain("buf/validate/validate.proto");
  });
});

it.each([
  ["a service", "garden.Garden"],
  ["a method", "garden.Garden.Plant"],
  ["a method as it is written in a path", "garden.Garden/Plant"],
  ["a message", "garden.Bed"],
  ["a nested message", "garden.Bed.Row"],
  ["a field", "garden.Bed.label"],
  ["a nested field", "garden.Bed.Row.length"],
  ["a oneof", "garden.Bed.plant"],
  ["an enum", "garden.Season"],
  ["an enum value", "garden.SPRING"],
  ["an enum value below its enum", "garden.Season.SPRING"],
  ["a nested enum value", "garden.Bed.LOAM"],
  ["an extension", "garden.fence"],
  ["a nested extension", "garden.Bed.shade"],
])("finds the file that declares %s", async (_kind, symbol) => {
  const { transport } = await start(serviceOf(garden, "garden.Garden"));

  const [response] = await ask(transport, { case: "fileContainingSymbol", value: symbol });

  expect(filesOf(response).map(({ name }) => name)).toEqual(["garden/garden.proto"]);
});

it("finds files by name, and extensions by the message that they extend", async () => {
  const { transport } = await start(serviceOf(garden, "garden.Garden"));

  const [byName, byExtension, numbers, none] = await ask(
    transport,
    { case: "fileByFilename", value: "garden/garden.proto" },
    { case: "fileContainingExtension", value: extension("garden.Bed", 101) },
    { case: "allExtensionNumbersOfType", value: "garden.Bed" },
    { case: "allExtensionNumbersOfType", value: "garden.Tool" },
  );

  expect(filesOf(byName).map(({ name }) => name)).toEqual(["garden/garden.proto"]);
  expect(filesOf(byExtension).map(({ name }) => name)).toEqual(["garden/garden.proto"]);
  expect(numbers?.messageResponse.value).toMatchObject({
    baseTypeName: "garden.Bed",
    extensionNumber: [100, 101],
  });
  expect(none?.messageResponse.value).toMatchObject({ baseTypeName: "garden.Tool", extensionNumber: [] });
});

it("knows the error details that servers send", async () => {
  const { transport } = await start(serviceOf(garden, "garden.Garden"));

  const [response] = await ask(transport, { case: "fileContainingSymbol", value: "google.rpc.BadRequest" });

  expect(filesOf(response)[0]?.name).toBe("google/rpc/error_details.proto");
});

it("answers what it cannot find with an error, and goes on", async () => {
  const { transport } = await start(serviceOf(garden, "garden.Garden"));

  const responses = await ask(
    transport,
    { case: "fileByFilename", value: "nowhere.proto" },
    { case: "fileContainingSymbol", value: "garden.Shed" },
    { case: "fileContainingExtension", value: extension("garden.Bed", 7) },
    { case: "allExtensionNumbersOfType", value: "garden.Shed" },
    { case: undefined },
    { case: "fileContainingSymbol", value: "garden.Bed" },
  );

  const errors = responses.slice(0, -1).map(({ messageResponse }) => messageResponse.value);
  expect(errors).toMatchObject([
    { errorCode: Code.NotFound, errorMessage: 'file "nowhere.proto" is not known to the server' },
    { errorCode: Code.NotFound, errorMessage: 'symbol "garden.Shed" is not known to the server' },
    {
      errorCode: Code.NotFound,
      errorMessage: 'extension 7 of message "garden.Bed" is not known to the server',
    },
    { errorCode: Code.NotFound, errorMessage: 'message "garden.Shed" is not known to the server' },
    { errorCode: Code.InvalidArgument },
  ]);
  expect(filesOf(responses.at(-1))).toHaveLength(1);
});

it("sends on one stream no dependency twice", async () => {
  const { transport } = await start(RegistryService);
  const question = { case: "fileContainingSymbol", value: RegistryService.typeName } as const;

  const [first, second] = await ask(transport, question, question);
  const [again] = await ask(transport, question);

  expect(filesOf(second).map(({ name }) => name)).toEqual([RegistryService.file.proto.name]);
  expect(filesOf(again)).toEqual(filesOf(first));
});

describe("files of one name", () => {
  const shared = (message: string): MessageInitShape<typeof FileDescriptorProtoSchema> => ({
    name: "shared.proto",
    package: message.toLowerCase(),
    syntax: "proto3",
    messageType: [{ name: message }],
  });
  const importer = (message: string): MessageInitShape<typeof FileDescriptorProtoSchema> => {
    const type = `.${message.toLowerCase()}.${message}`;
    return {
      name: "service.proto",
      package: message.toLowerCase(),
      dependency: ["shared.proto"],
      syntax: "proto3",
      service: [{ name: "Service", method: [{ name: "Call", inputType: type, outputType: type }] }],
    };
  };

  it("are told apart when they declare different things", async () => {
    const { transport } = await start(
      serviceOf(compile(shared("Tea"), importer("Tea")), "tea.Service"),
      serviceOf(compile(shared("Milk"), importer("Milk")), "milk.Service"),
    );

    const [tea, milk] = await ask(
      transport,
      { case: "fileContainingSymbol", value: "tea.Service" },
      { case: "fileContainingSymbol", value: "milk.Service" },
    );
    const [renamed] = await ask(transport, { case: "fileByFilename", value: "shared.2.proto" });

    expect(filesOf(tea).map(({ name }) => name)).toEqual(["service.proto", "shared.proto"]);
    expect(filesOf(milk).map(({ name }) => name)).toEqual(["service.2.proto", "shared.2.proto"]);
    expect(serviceOf(schemaOf(filesOf(milk)), "milk.Service").method["call"]?.input.typeName).toBe(
      "milk.Milk",
    );
    expect(filesOf(renamed)[0]?.messageType[0]?.name).toBe("Milk");
  });

  it("are served once when they are copies of each other", async () => {
    const cup = { ...importer("Tea"), name: "cup.proto", package: "cup" };
    const { transport } = await start(
      serviceOf(compile(shared("Tea"), importer("Tea")), "tea.Service"),
      serviceOf(compile(shared("Tea"), cup), "cup.Service"),
    );

    const [, response] = await ask(
      transport,
      { case: "fileContainingSymbol", value: "tea.Service" },
      { case: "fileContainingSymbol", value: "cup.Service" },
    );

    expect(filesOf(response).map(({ name }) => name)).toEqual(["cup.proto"]);
  });
});

describe("comments", () => {
  const contract = base64Decode(documentedDescriptors);

  async function commentsFrom(documented: Uint8Array): Promise<string[]> {
    const { transport } = await startWith(reflectionRoutes([RegistryService], documented));
    const [response] = await ask(transport, {
      case: "fileContainingSymbol",
      value: RegistryService.typeName,
    });
    const files = filesOf(response);
    expect(serviceOf(schemaOf(files), RegistryService.typeName).methods).toHaveLength(
      RegistryService.methods.length,
    );
    return files[0]?.sourceCodeInfo?.location.map(({ leadingComments }) => leadingComments ?? "") ?? [];
  }

  it("are sent where the server has them", async () => {
    expect(await commentsFrom(contract)).toContain(" Returns one service with its instances and problems.\n");
  });

  it("are not sent when they belong to another version of a file", async () => {
    const outdated = fromBinary(FileDescriptorSetSchema, contract);
    for (const file of outdated.file) {
      file.service[0]?.method.shift();
    }

    expect(await commentsFrom(toBinary(FileDescriptorSetSchema, outdated))).toEqual([]);
  });
});

it("is understood by buf curl", async () => {
  const { url } = await start(RegistryService, Health);
  const buf = join(
    dirname(createRequire(import.meta.url).resolve("@bufbuild/buf/package.json")),
    "bin",
    "buf",
  );

  const { stdout } = await promisify(execFile)(process.execPath, [
    ...[buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", url],
  ]);

  expect(stdout).toContain("toolplane.registry.v1.RegistryService/SearchTools");
  expect(stdout).toContain("grpc.health.v1.Health/Watch");
});
