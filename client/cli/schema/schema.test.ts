import type { JsonObject } from "@bufbuild/protobuf";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { aTool } from "../../testing/stub-server.ts";
import { exampleCall } from "./example-call.ts";
import { schemaRows, wholeValue } from "./schema-rows.ts";

describe("schemaRows", () => {
  it("lists fields with nested ones below their parents", () => {
    expect(schemaRows(aTool().inputSchema ?? {})).toEqual([
      { path: "city", type: "string", need: "required", description: "The name of the city. (not empty)" },
      { path: "days", type: "integer (int32)", need: "", description: "How many days. (from 1, up to 14)" },
      { path: "place", type: "object", need: "", description: "" },
      { path: "place.lat", type: "number", need: "", description: "" },
      { path: "place.lon", type: "number", need: "", description: "" },
      { path: "tags", type: "list of string", need: "", description: "" },
      { path: "metric", type: "boolean", need: "", description: "" },
    ]);
  });

  it("names types in the words of the schema's author", () => {
    const types = schemaRows({
      properties: {
        unit: { enum: ["C", "F"] },
        ratio: { anyOf: [{ type: "number" }, { type: "string", enum: ["NaN"] }] },
        count: { type: "integer", minimum: -(2 ** 31), maximum: 2 ** 31 - 1 },
        labels: { type: "object", additionalProperties: { type: "string" } },
        rows: { type: "array", items: { type: "object", properties: { id: { type: "string" } } } },
        value: { oneOf: [{ type: "string" }, { type: "object" }] },
        free: {},
      },
    }).map(({ path, type }) => [path, type]);
    expect(types).toEqual([
      ["unit", "C | F"],
      ["ratio", "number"],
      ["count", "integer (int32)"],
      ["labels", "map of string"],
      ["rows", "list of object"],
      ["rows[].id", "string"],
      ["value", "string | object"],
      ["free", "any"],
    ]);
  });

  it("spells out the values of an enum that its type has no room for", () => {
    const sizes = Array.from({ length: 50 }, (_, index) => `SIZE_${index}`);
    const [color, all] = schemaRows({
      properties: {
        color: {
          description: "Its colour.",
          anyOf: [
            { type: "string", enum: ["COLOR_UNSPECIFIED", "COLOR_RED", "COLOR_GREEN", "COLOR_BLUE"] },
            { type: "integer", minimum: -(2 ** 31), maximum: 2 ** 31 - 1 },
          ],
        },
        all: { type: "array", items: { enum: sizes } },
      },
    });
    expect(color?.type).toBe("COLOR_UNSPECIFIED | COLOR_RED | … 2 more");
    expect(color?.description).toBe(
      "Its colour. (one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_GREEN, COLOR_BLUE)",
    );
    expect(all?.description).toMatch(/^\(one of SIZE_0, .* SIZE_39 and 10 more\)$/);
  });

  it("describes what is no object with fields", () => {
    expect(wholeValue({ type: "string", format: "date-time", description: "A time." })).toEqual({
      type: "string (date-time)",
      description: "A time.",
    });
    expect(wholeValue({ type: "object", description: "Any JSON object." })?.type).toBe("object");
    expect(wholeValue({ type: "object", additionalProperties: { type: "integer" } })?.type).toBe(
      "map of integer",
    );
    expect(wholeValue({})?.type).toBe("any");
    expect(wholeValue({ type: "object", additionalProperties: false })).toBeUndefined();
  });

  it("marks the fields of which one has to be given", () => {
    const needs = schemaRows({
      properties: { a: {}, b: {}, c: {} },
      oneOf: [{ required: ["a"] }, { required: ["b"] }],
    }).map(({ need }) => need);
    expect(needs).toEqual(["one of", "one of", ""]);
  });

  it("ends with messages that contain themselves", () => {
    const paths = schemaRows({
      $ref: "#/$defs/Node",
      $defs: {
        Node: {
          type: "object",
          properties: {
            name: { type: "string" },
            children: { type: "array", items: { $ref: "#/$defs/Node" } },
          },
        },
      },
    }).map(({ path }) => path);
    expect(paths).toEqual(["name", "children"]);
  });

  it("shows less depth rather than too many lines", () => {
    const wide = (depth: number): JsonObject => ({
      type: "object",
      properties: Object.fromEntries(
        Array.from({ length: 6 }, (_, n) => [`f${n}`, depth === 0 ? { type: "string" } : wide(depth - 1)]),
      ),
    });
    expect(schemaRows(wide(3))).toHaveLength(6);
    expect(schemaRows(wide(0))).toHaveLength(6);
  });

  it("survives any schema", () => {
    fc.assert(
      fc.property(schemas(), (schema) => {
        schemaRows(schema);
        exampleCall(aTool({ inputSchema: schema }));
      }),
    );
  });
});

describe("exampleCall", () => {
  it("has as many items as there must be, and different ones", () => {
    const list = (items: JsonObject) => ({
      type: "object",
      required: ["a"],
      properties: { a: { type: "array", items, minItems: 2, uniqueItems: true } },
    });
    const numbers = exampleCall(aTool({ inputSchema: list({ type: "number" }) }));
    expect(numbers).toBe("toolplane call weather.GetForecast 'a:=[1,2]'");
    const texts = exampleCall(aTool({ inputSchema: list({ type: "string" }) }));
    expect(texts).toBe(`toolplane call weather.GetForecast 'a:=["text","text2"]'`);
  });

  it("gives the required arguments", () => {
    expect(exampleCall(aTool())).toBe("toolplane call weather.GetForecast city=text");
  });

  it("gives a few arguments where none is required", () => {
    const inputSchema = {
      properties: {
        a: { type: "integer" },
        b: { type: "boolean" },
        c: { type: "string" },
        d: { type: "string" },
      },
    };
    expect(exampleCall(aTool({ inputSchema }))).toBe(
      "toolplane call weather.GetForecast a:=1 b:=true c=text",
    );
  });

  it("takes what the schema gives: examples, defaults, formats, patterns and bounds", () => {
    const inputSchema = {
      properties: {
        city: { type: "string", examples: ["Berlin"] },
        unit: { enum: ["UNIT_UNSPECIFIED", "UNIT_CELSIUS"] },
        since: { type: "string", format: "date-time" },
        wait: { type: "string", pattern: "^-?\\d+(\\.\\d+)?s$" },
        least: { type: "integer", minimum: 5 },
        data: { type: "string", contentEncoding: "base64" },
      },
      required: ["city", "unit", "since", "wait", "least", "data"],
    };
    expect(exampleCall(aTool({ inputSchema }))).toBe(
      "toolplane call weather.GetForecast city=Berlin unit=UNIT_CELSIUS since=2030-01-31T12:00:00Z wait=1.5s least:=5 data=aGVsbG8=",
    );
  });

  it("quotes for the shell and writes nested messages as JSON", () => {
    const inputSchema = {
      properties: {
        place: { type: "object", properties: { lat: { type: "number" } }, required: ["lat"] },
        text: { type: "string", examples: ["it's $HOME"] },
      },
      required: ["place", "text"],
    };
    expect(exampleCall(aTool({ inputSchema }))).toBe(
      `toolplane call weather.GetForecast 'place:={"lat":1}' 'text=it'\\''s $HOME'`,
    );
  });

  it("pipes messages into a tool that takes a stream", () => {
    expect(exampleCall(aTool({ streaming: Streaming.CLIENT }))).toBe(
      `echo '{"city":"text"}' | toolplane call weather.GetForecast -`,
    );
  });
});

/** Schemas of every shape, those that refer to themselves or to nothing too. */
function schemas(): fc.Arbitrary<JsonObject> {
  const { schema } = fc.letrec((tie) => ({
    schema: fc.oneof(
      { maxDepth: 3 },
      fc.record({ $ref: fc.constantFrom("#", "#/$defs/A", "#/$defs/%", "#/nowhere", "http://elsewhere") }),
      fc.record(
        {
          type: fc.constantFrom("object", "array", "string", "integer", ["string", "null"], 7),
          properties: fc.dictionary(fc.string({ maxLength: 3 }), tie("schema"), { maxKeys: 2 }),
          items: tie("schema"),
          additionalProperties: fc.oneof(fc.boolean(), tie("schema")),
          required: fc.constantFrom(["a"], "a", [1]),
          enum: fc.constantFrom([], ["A"], "A"),
          oneOf: fc.array(tie("schema"), { maxLength: 2 }),
          allOf: fc.array(tie("schema"), { maxLength: 2 }),
          pattern: fc.constantFrom("(", "^a+$", "(a+)+$"),
          $defs: fc.record({
            A: fc.constantFrom({ $ref: "#/$defs/A" }, { properties: { self: { $ref: "#" } } }),
          }),
        },
        { requiredKeys: [] },
      ),
    ),
  }));
  return schema as fc.Arbitrary<JsonObject>; // fast-check cannot type what refers to itself.
}
