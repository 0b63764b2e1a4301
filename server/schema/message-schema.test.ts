import {
  create,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  setExtension,
} from "@bufbuild/protobuf";
import {
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  Int64ValueSchema,
  StructSchema,
  TimestampSchema,
} from "@bufbuild/protobuf/wkt";
import {
  FieldOptionsSchema as Documentation,
  field as fieldOption,
} from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { describe, expect, it } from "vitest";
import { messageSchema } from "./index.ts";
import { registryOf } from "./test-support/random-descriptors.ts";

function field(name: string, number: number, type: string, rest: Record<string, JsonValue> = {}): JsonObject {
  return { name, jsonName: name, number, type, label: "LABEL_OPTIONAL", ...rest };
}

const file = fromJson(FileDescriptorProtoSchema, {
  name: "tree.proto",
  package: "acme",
  syntax: "proto2",
  enumType: [
    {
      name: "Kind",
      value: [
        { name: "LEAF", number: 1 },
        { name: "INNER", number: 2 },
      ],
    },
  ],
  messageType: [
    {
      name: "Node",
      field: [
        field("name", 1, "TYPE_STRING", { label: "LABEL_REQUIRED" }),
        field("kind", 2, "TYPE_ENUM", { typeName: ".acme.Kind", defaultValue: "INNER" }),
        field("children", 3, "TYPE_MESSAGE", { typeName: ".acme.Node", label: "LABEL_REPEATED" }),
        field("weight", 4, "TYPE_INT64", { defaultValue: "-7", options: { deprecated: true } }),
        field("part", 5, "TYPE_GROUP", { typeName: ".acme.Node.Part" }),
      ],
      nestedType: [{ name: "Part", field: [field("flag", 1, "TYPE_BOOL")] }],
    },
  ],
  sourceCodeInfo: {
    location: [
      { path: [4, 0], span: [0, 0, 0], leadingComments: " A node.\n (-- api-linter: off --)\n" },
      {
        path: [4, 0, 2, 2],
        span: [0, 0, 0],
        leadingComments: " Its children,\n in order.\n buf:lint:ignore X\n",
      },
      { path: [5, 0], span: [0, 0, 0], leadingComments: " What it is.\n" },
      { path: [5, 0, 2, 0], span: [0, 0, 0], leadingComments: " Has no children.\n" },
    ],
  },
});
const name = file.messageType[0]?.field[0];
if (name !== undefined) {
  name.options = create(FieldOptionsSchema);
  setExtension(
    name.options,
    fieldOption,
    create(Documentation, {
      description: "Unique.",
      examples: ['"root"', "no JSON", "[".repeat(50) + "]".repeat(50)],
    }),
  );
}
const node = registryOf([file]).getMessage("acme.Node") as DescMessage;

describe("the schema of a message", () => {
  it("names, documents and nests types as their file does", () => {
    expect(messageSchema(node)).toEqual({
      $schema: "https://json-schema.org/draft/2020-12/schema",
      description: "A node.",
      type: "object",
      properties: {
        name: { type: "string", description: "Unique.", examples: ["root"] },
        kind: { $ref: "#/$defs/acme.Kind", default: "INNER" },
        children: {
          type: "array",
          items: { $ref: "#/$defs/acme.Node" },
          description: "Its children,\nin order.",
        },
        weight: { $ref: "#/$defs/json-int64", default: "-7", deprecated: true },
        part: { $ref: "#/$defs/acme.Node.Part" },
      },
      required: ["name"],
      additionalProperties: false,
      $defs: {
        "acme.Kind": {
          description: "What it is.\nLEAF: Has no children.",
          type: "string",
          enum: ["LEAF", "INNER"],
        },
        "acme.Node": expect.objectContaining({ description: "A node.", required: ["name"] }) as unknown,
        "acme.Node.Part": {
          type: "object",
          properties: { flag: { type: "boolean" } },
          additionalProperties: false,
        },
        "json-int64": expect.objectContaining({ type: ["string", "integer"] }) as unknown,
      },
    });
  });

  it("is made once and cannot be changed", () => {
    const schema = messageSchema(node);
    expect(messageSchema(node)).toBe(schema);
    expect(() => Object.assign(schema, { type: "string" })).toThrow(TypeError);
    expect(() => Object.assign(schema["properties"] as JsonObject, { name: {} })).toThrow(TypeError);
  });

  it("of a well-known type is that of its own JSON form", () => {
    expect(messageSchema(TimestampSchema)).toMatchObject({ type: "string", format: "date-time" });
    expect(messageSchema(StructSchema)).toMatchObject({ type: "object" });
    expect(messageSchema(Int64ValueSchema)).toMatchObject({
      $ref: "#/$defs/json-int64",
      $defs: { "json-int64": {} },
    });
  });
});
