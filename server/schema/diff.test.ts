import type { JsonObject } from "@bufbuild/protobuf";
import { SchemaChangeKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { diffTools, messageSchema, type ToolSchemas } from "./index.ts";
import { randomDescriptors } from "./test-support/random-descriptors.ts";

const empty: JsonObject = { type: "object", properties: {}, additionalProperties: false };

function tool(inputSchema: JsonObject, outputSchema: JsonObject = empty): ToolSchemas {
  return { name: "forecast", inputSchema, outputSchema };
}

function object(properties: JsonObject, rest: JsonObject = {}): JsonObject {
  return { type: "object", properties, additionalProperties: false, ...rest };
}

/** Changes as text: `!` in front of breaking ones. */
function changes(before: ToolSchemas[], after: ToolSchemas[]): string[] {
  return diffTools(before, after).map(
    ({ path, kind, breaking, message }) =>
      `${breaking ? "!" : ""}${SchemaChangeKind[kind]} ${path}: ${message}`,
  );
}

function inputChanges(before: JsonObject, after: JsonObject): string[] {
  return changes([tool(before)], [tool(after)]);
}

function outputChanges(before: JsonObject, after: JsonObject): string[] {
  return changes([tool(empty, before)], [tool(empty, after)]);
}

const text: JsonObject = { type: "string" };
const number: JsonObject = { type: "number" };

describe("the difference of two discoveries", () => {
  it("knows tools that came and went", () => {
    expect(changes([tool(empty)], [{ ...tool(empty), name: "other" }])).toEqual([
      "!REMOVED : the tool was removed",
      "ADDED : the tool was added",
    ]);
  });

  it("is empty for random descriptors that are read twice", () => {
    fc.assert(
      fc.property(fc.gen(), (draw) => {
        const desc = randomDescriptors(draw, "proto2").getMessage("test.M0");
        const schema = desc === undefined ? empty : messageSchema(desc);
        expect(
          diffTools([tool(schema, schema)], [tool(structuredClone(schema), structuredClone(schema))]),
        ).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });

  it("breaks callers when an input demands more", () => {
    expect(inputChanges(object({ a: text }), object({ a: text, b: text }, { required: ["b"] }))).toEqual([
      "!ADDED input.b: a required field was added",
    ]);
    expect(inputChanges(object({ a: text }), object({ a: text }, { required: ["a"] }))).toEqual([
      "!CHANGED input.a: the field is required now",
    ]);
    expect(inputChanges(object({ a: text }), object({}))).toEqual([
      "!REMOVED input.a: the field was removed",
    ]);
    expect(inputChanges(object({ a: text }), object({ a: number }))).toEqual([
      "!CHANGED input.a: the type changed from string to number",
    ]);
    expect(inputChanges(object({ a: { enum: ["x", "y"] } }), object({ a: { enum: ["x"] } }))).toEqual([
      '!REMOVED input.a: the values "y" were removed',
    ]);
    expect(
      inputChanges(object({ a: text }), object({ a: { ...text, maxLength: 5, pattern: "^a" } })),
    ).toEqual([
      "!CHANGED input.a: maxLength changed from unset to 5",
      '!CHANGED input.a: pattern changed from unset to "^a"',
    ]);
  });

  it("leaves callers whole when an input demands less", () => {
    expect(
      inputChanges(
        object({ a: { type: "integer", minimum: 1 }, c: { enum: ["x"] } }, { required: ["a"] }),
        object({ a: { type: "number", minimum: 0 }, b: text, c: { enum: ["x", "y"] } }),
      ),
    ).toEqual([
      "CHANGED input.a: the field may be absent now",
      "CHANGED input.a: the type changed from integer to number",
      "CHANGED input.a: minimum changed from 1 to 0",
      'ADDED input.c: the values "y" were added',
      "ADDED input.b: a field was added",
    ]);
  });

  it("breaks callers when an output promises less, and not when it promises more", () => {
    expect(
      outputChanges(
        object({ a: text, b: number, c: { type: "integer" } }, { required: ["b"] }),
        object({ b: number, c: number, d: text }, { required: ["d"] }),
      ),
    ).toEqual([
      "!REMOVED output.a: the field was removed",
      "!CHANGED output.b: the field may be absent now",
      "!CHANGED output.c: the type changed from integer to number",
      "ADDED output.d: a field was added",
    ]);
    expect(outputChanges(object({ a: { enum: ["x"] } }), object({ a: { enum: ["x", "y"] } }))).toEqual([
      'ADDED output.a: the values "y" were added',
    ]);
  });

  it("follows references, lists, maps and recursion", () => {
    const tree = (leaf: JsonObject): JsonObject => ({
      ...object({ root: { $ref: "#/$defs/Node", description: "the root" } }),
      $defs: {
        Node: object({
          leaf,
          children: { type: "array", items: { $ref: "#/$defs/Node", minProperties: 1 } },
          named: { type: "object", additionalProperties: { $ref: "#/$defs/Node" } },
        }),
      },
    });
    const found = inputChanges(tree(text), tree(number));
    expect(found).toContain("!CHANGED input.root.leaf: the type changed from string to number");
    expect(found.every((line) => line.startsWith("!CHANGED"))).toBe(true);
    expect(
      inputChanges(
        object({ a: { type: "array", items: text } }),
        object({ a: { type: "array", items: number } }),
      ),
    ).toEqual(["!CHANGED input.a[*]: the type changed from string to number"]);
  });

  it("sees new members of a oneof as harmless", () => {
    const choice = (...names: string[]) =>
      object(Object.fromEntries(names.map((name) => [name, text])), {
        oneOf: names.map((name) => ({ required: [name] })),
      });
    expect(
      inputChanges(choice("a", "b"), choice("a", "b", "c")).filter((line) => line.startsWith("!")),
    ).toEqual([]);
  });

  it("stays bounded for large differences and schemas without end", () => {
    const many = (type: string) =>
      object(
        Object.fromEntries(Array.from({ length: 1000 }, (_, i): [string, JsonObject] => [`f${i}`, { type }])),
      );
    const found = changes([tool(many("string"))], [tool(many("number"))]);
    expect(found).toHaveLength(101);
    expect(found.at(-1)).toBe("!CHANGED : 900 more changes");
    expect(inputChanges({ $ref: "#" }, { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/a" } } })).toEqual(
      [],
    );
  });
});
