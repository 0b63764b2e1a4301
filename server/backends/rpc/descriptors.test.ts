import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { create, fromBinary, type MessageInitShape, setExtension, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProtoSchema,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
  MethodOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import {
  ToolOptionsSchema,
  tool as toolOption,
} from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { Idempotency, Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { afterAll, describe, expect, it } from "vitest";
import type { Discovery } from "../source.ts";
import { readFiles } from "./descriptor-files.ts";
import { discoverFromDescriptors, splitWords } from "./descriptors.ts";

const folders: string[] = [];

afterAll(() => {
  for (const folder of folders) {
    rmSync(folder, { recursive: true });
  }
});

/** Compiles `.proto` files with Buf. */
function compile(files: Record<string, string>): FileDescriptorSet {
  const folder = mkdtempSync(join(tmpdir(), "descriptors-"));
  folders.push(folder);
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(folder, name), text);
  }
  const buf = fileURLToPath(import.meta.resolve("@bufbuild/buf/bin/buf"));
  const bytes = execFileSync(process.execPath, [buf, "build", folder, "--as-file-descriptor-set", "-o", "-"]);
  return fromBinary(FileDescriptorSetSchema, bytes);
}

type FileInit = MessageInitShape<typeof FileDescriptorProtoSchema>;

function discover(files: FileInit[] | FileDescriptorSet, services: string[] = []): Discovery {
  const fileDescriptorSet = Array.isArray(files) ? create(FileDescriptorSetSchema, { file: files }) : files;
  return discoverFromDescriptors({ source: { fileDescriptorSet }, services });
}

const EMPTY = ".google.protobuf.Empty";

describe("tools", () => {
  it("are named, titled, described and classified by their descriptors", () => {
    const { tools, problems } = discover(
      compile({
        "a.proto": `syntax = "proto3";
          package acme.v1;
          import "google/protobuf/empty.proto";
          service Weather {
            // Returns the forecast.
            //
            // For the next days.
            rpc GetForecast(google.protobuf.Empty) returns (google.protobuf.Empty) {
              option idempotency_level = NO_SIDE_EFFECTS;
            }
            rpc ListHTTPRoutes(google.protobuf.Empty) returns (stream google.protobuf.Empty) {
              option idempotency_level = IDEMPOTENT;
            }
            rpc Put(stream google.protobuf.Empty) returns (google.protobuf.Empty) {
              option deprecated = true;
            }
            rpc Talk(stream google.protobuf.Empty) returns (stream google.protobuf.Empty);
          }`,
      }),
    );
    expect(problems).toEqual([]);
    expect(tools).toEqual([
      expect.objectContaining({
        name: "acme.v1.Weather.GetForecast",
        sourceName: "acme.v1.Weather/GetForecast",
        title: "Get forecast",
        description: "Returns the forecast.\n\nFor the next days.",
        streaming: Streaming.UNARY,
        idempotency: Idempotency.NO_SIDE_EFFECTS,
        deprecated: false,
        problem: undefined,
      }),
      expect.objectContaining({
        title: "List HTTP routes",
        streaming: Streaming.SERVER,
        idempotency: Idempotency.IDEMPOTENT,
      }),
      expect.objectContaining({ title: "Put", streaming: Streaming.CLIENT, deprecated: true }),
      expect.objectContaining({ streaming: Streaming.BIDI, idempotency: Idempotency.UNSPECIFIED }),
    ]);
  });

  it("follow their annotations, unless those clash or cannot be used", () => {
    const annotated = (name: string, value: MessageInitShape<typeof ToolOptionsSchema>) => {
      const options = create(MethodOptionsSchema);
      setExtension(options, toolOption, create(ToolOptionsSchema, value));
      return { name, inputType: EMPTY, outputType: EMPTY, options };
    };
    const { tools, problems } = discover([
      {
        name: "a.proto",
        package: "a",
        syntax: "proto3",
        service: [
          {
            name: "S",
            method: [
              annotated("Full", {
                name: "full",
                title: "All of it",
                description: "Does it.",
                tags: ["x", "x", "y"],
                cacheTtl: { seconds: 5n, nanos: 250_000_000 },
              }),
              annotated("Hidden", { hidden: true }),
              annotated("Again", { name: "full" }),
              annotated("Odd", { name: "two words" }),
            ],
          },
        ],
      },
    ]);
    expect(tools.map(({ name }) => name)).toEqual(["full", "a.S.Again", "a.S.Odd"]);
    expect(tools[0]).toMatchObject({
      title: "All of it",
      description: "Does it.",
      tags: ["x", "y"],
      cacheTtlMs: 5_250,
      sourceName: "a.S/Full",
    });
    expect(problems).toEqual([
      expect.objectContaining({ reason: "DUPLICATE_TOOL_NAME", tool: "a.S.Again" }),
      expect.objectContaining({ reason: "INVALID_TOOL_NAME", tool: "a.S.Odd" }),
    ]);
  });

  it("leave out health and reflection unless these are asked for", () => {
    const file = (scope: string, name: string): FileInit => ({
      name: `${scope}.proto`,
      package: scope,
      service: [{ name, method: [{ name: "Do", inputType: EMPTY, outputType: EMPTY }] }],
    });
    const files = [
      file("grpc.health.v1", "Health"),
      file("grpc.reflection.v1", "ServerReflection"),
      file("a", "S"),
    ];
    expect(discover(files).tools.map(({ name }) => name)).toEqual(["a.S.Do"]);
    expect(discover(files, ["grpc.health.v1.Health"]).tools.map(({ name }) => name)).toEqual([
      "grpc.health.v1.Health.Do",
    ]);
    expect(discover(files, ["a.S", "a.T"]).problems).toEqual([
      expect.objectContaining({ reason: "SERVICE_NOT_FOUND", message: expect.stringContaining("a.T") }),
    ]);
  });

  it("come from proto2, groups, editions, recursion, unknown options and missing well-known types", () => {
    const set = compile({
      "two.proto": `syntax = "proto2";
        package two;
        import "google/protobuf/descriptor.proto";
        import "google/protobuf/timestamp.proto";
        extend google.protobuf.MethodOptions { optional string owner = 51234; }
        message Tree {
          required string name = 1 [default = "x"];
          repeated Tree children = 2;
          optional group Inner = 3 { optional int32 depth = 4; }
          optional google.protobuf.Timestamp at = 5;
          extensions 100 to 200;
        }
        extend Tree { optional string extra = 100; }
        service Trees { rpc Grow(Tree) returns (Tree) { option (owner) = "forest"; } }`,
      "ed.proto": `edition = "2023";
        package ed;
        import "two.proto";
        message Leaf { string colour = 1; two.Tree tree = 2 [features.message_encoding = DELIMITED]; }
        service Leaves { rpc Fall(Leaf) returns (Leaf); }`,
    });
    const withoutKnown = set.file.filter(({ name }) => !name.startsWith("google/"));
    const { tools, problems, definition } = discover([...withoutKnown, ...withoutKnown]);
    expect(problems).toEqual([]);
    expect(tools.map(({ name, problem }) => [name, problem])).toEqual([
      ["ed.Leaves.Fall", undefined],
      ["two.Trees.Grow", undefined],
    ]);
    expect(
      readFiles(definition?.bytes ?? new Uint8Array()).getMessage("google.protobuf.Timestamp"),
    ).toBeDefined();
  });

  it("of a service that does not link are listed with the reason, and harm no others", () => {
    const { tools, problems, definition } = discover([
      {
        name: "good.proto",
        package: "good",
        service: [{ name: "S", method: [{ name: "Do", inputType: EMPTY, outputType: EMPTY }] }],
      },
      {
        name: "bad.proto",
        package: "bad",
        service: [{ name: "S", method: [{ name: "Do", inputType: ".bad.Gone", outputType: EMPTY }] }],
        messageType: [{ name: "M" }],
      },
      {
        name: "user.proto",
        package: "user",
        dependency: ["bad.proto"],
        service: [
          {
            name: "S",
            method: [{ name: "Do", inputType: ".bad.M", outputType: EMPTY, clientStreaming: true }],
          },
        ],
      },
    ]);
    expect(tools.map(({ name, problem }) => [name, problem?.reason])).toEqual([
      ["bad.S.Do", "BROKEN_DESCRIPTOR"],
      ["good.S.Do", undefined],
      ["user.S.Do", "BROKEN_DESCRIPTOR"],
    ]);
    expect(problems.map(({ tool, message }) => [tool, message])).toEqual([
      ["bad.S.Do", expect.stringContaining(".bad.Gone not found")],
      ["user.S.Do", expect.stringContaining("it needs bad.proto")],
    ]);
    const registry = readFiles(definition?.bytes ?? new Uint8Array());
    expect(registry.getService("good.S")).toBeDefined();
    expect(registry.getService("bad.S")).toBeUndefined();
  });

  it("survive circles of imports, relative type names, and redefined well-known types", () => {
    const field = (name: string, typeName: string) => ({
      name,
      number: 1,
      type: FieldDescriptorProto_Type.MESSAGE,
      label: FieldDescriptorProto_Label.OPTIONAL,
      typeName,
    });
    const service = (inputType: string, outputType = inputType) => ({
      name: "S",
      method: [{ name: "Do", inputType, outputType }],
    });
    const { tools, problems } = discover([
      // Imports in a circle, but nothing that x uses comes from y.
      { name: "x.proto", package: "x", dependency: ["y.proto"], messageType: [{ name: "X" }] },
      { name: "y.proto", package: "y", dependency: ["x.proto"], service: [service(".x.X")] },
      // Files that use each other.
      { name: "p.proto", package: "p", messageType: [{ name: "P", field: [field("q", ".q.Q")] }] },
      {
        name: "q.proto",
        package: "q",
        messageType: [{ name: "Q", field: [field("p", ".p.P")] }],
        service: [service(".q.Q")],
      },
      { name: "mine/empty.proto", package: "google.protobuf", messageType: [{ name: "Empty" }] },
      {
        name: "r.proto",
        package: "r.v1",
        dependency: ["mine/empty.proto"],
        messageType: [
          { name: "Outer", nestedType: [{ name: "Inner" }], field: [field("the_inner", "Inner")] },
        ],
        service: [service("Outer", "google.protobuf.Empty")],
      },
    ]);
    expect(tools.map(({ name, problem }) => [name, problem?.reason])).toEqual([
      ["q.S.Do", "BROKEN_DESCRIPTOR"],
      ["r.v1.S.Do", undefined],
      ["y.S.Do", undefined],
    ]);
    expect(problems).toEqual([
      expect.objectContaining({ message: expect.stringContaining("circle of imports") }),
    ]);
    expect(tools[1]?.inputSchema).toHaveProperty("properties.theInner");
  });

  it("are not made of what cannot be read", () => {
    for (const bytes of [new Uint8Array(), new Uint8Array([0xff])]) {
      expect(() => discoverFromDescriptors({ source: { bytes }, services: [] })).toThrow(
        /service\.source\.descriptors\.file_descriptor_set/,
      );
    }
  });

  it("are found fast even where imports fan out without end", () => {
    // Each file imports all before it: 400 files, 80,000 imports, and 2^400 ways from the last to the first.
    const names = Array.from({ length: 400 }, (_, index) => `f${index}.proto`);
    const files = names.map(
      (name, index): FileInit => ({ name, package: `f${index}`, dependency: names.slice(0, index) }),
    );
    files.push({
      name: "s.proto",
      package: "s",
      dependency: names,
      service: [{ name: "S", method: [{ name: "Do", inputType: EMPTY, outputType: EMPTY }] }],
    });
    expect(discover(files).tools).toHaveLength(1);
  });
});

describe("a definition", () => {
  it("has the same bytes for the same files in any order, without comments", () => {
    const set = compile({
      "a.proto": `syntax = "proto3"; package a; import "b.proto"; service S { rpc Do(b.M) returns (b.M); }`,
      "b.proto": `syntax = "proto3"; package b; /* hello */ message M { string text = 1; }`,
    });
    const first = discover(set).definition?.bytes;
    const stripped = set.file.map((file) => ({ ...file, sourceCodeInfo: undefined })).reverse();
    const second = discover(
      fromBinary(
        FileDescriptorSetSchema,
        toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: stripped })),
      ),
    ).definition?.bytes;
    expect(second).toEqual(first);
  });

  it("leaves the given descriptors as they were", () => {
    const set = compile({
      "a.proto": `syntax = "proto3"; package a; message M { string some_text = 1; } service S { rpc Do(M) returns (M); }`,
    });
    const before = toBinary(FileDescriptorSetSchema, set);
    discover(set);
    expect(toBinary(FileDescriptorSetSchema, set)).toEqual(before);
  });
});

it.each([
  ["GetForecast", "Get forecast"],
  ["ListHTTPRoutes", "List HTTP routes"],
  ["get_quote", "get quote"],
  ["V2Import", "V 2 import"],
  ["X", "X"],
])("the name %s is split into the words %j", (name, title) => {
  expect(splitWords(name)).toBe(title);
});
