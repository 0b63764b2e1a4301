import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { DomainError } from "@toolplane/framework";
import { describe, expect, it } from "vitest";
import { createJsonSchemaCheck } from "./index.ts";

const forecast: JsonObject = {
  type: "object",
  properties: {
    city: { type: "string", minLength: 2 },
    days: {
      type: "array",
      maxItems: 3,
      items: {
        type: "object",
        properties: {
          unit: { enum: ["celsius", "fahrenheit"] },
          high: { type: ["number", "null"], minimum: -90 },
        },
        required: ["unit"],
        additionalProperties: false,
      },
    },
    email: { type: "string", format: "email" },
    code: { type: "string", pattern: "^[A-Z]{3}$" },
  },
  required: ["city"],
  additionalProperties: false,
};

function problems(schema: JsonObject, json: JsonValue): string[] {
  return createJsonSchemaCheck(schema)
    .check(json, "arguments")
    .map(({ field, description }) => `${field}: ${description}`);
}

function refusal(schema: JsonObject): string {
  try {
    createJsonSchemaCheck(schema);
  } catch (error) {
    if (error instanceof DomainError) {
      expect(error.init.reason).toBe("INVALID_SCHEMA");
      return error.message;
    }
    throw error;
  }
  return "";
}

describe("a check against a JSON Schema", () => {
  it("says nothing about a value that is valid", () => {
    const json = { city: "Oslo", days: [{ unit: "celsius", high: null }], email: "a@b.example", code: "ABC" };
    expect(problems(forecast, json)).toEqual([]);
  });

  it("reports every violation with its path, what is there and what is expected", () => {
    const json = {
      citty: "Oslo",
      days: [{ unit: "celsius", high: -100 }, { high: "hot" }, { unit: "celcius" }, {}],
      email: "nobody",
      code: "abc",
    };
    expect(problems(forecast, json).sort()).toEqual([
      'arguments.citty: is no known field (did you mean "city"?): known fields are "city", "days", "email", "code"',
      "arguments.city: is required",
      'arguments.code: expected a text that matches the regular expression "^[A-Z]{3}$", got the string "abc"',
      "arguments.days: expected at most 3 items, got an array of 4 items",
      "arguments.days[0].high: expected a number of at least -90, got the number -100",
      'arguments.days[1].high: expected a number or null, got the string "hot"',
      "arguments.days[1].unit: is required",
      'arguments.days[2].unit: expected one of "celsius", "fahrenheit" (did you mean "celsius"?), got the string "celcius"',
      "arguments.days[3].unit: is required",
      'arguments.email: expected a text of the format "email", got the string "nobody"',
    ]);
  });

  it("reports the alternative that was meant, and the types when all differ in them", () => {
    const schema: JsonObject = {
      properties: {
        shape: {
          anyOf: [
            {
              type: "object",
              properties: { kind: { const: "circle" }, radius: { type: "number" } },
              required: ["kind", "radius"],
            },
            { type: "string" },
          ],
        },
        size: { oneOf: [{ type: "integer" }, { type: "null" }] },
        either: { oneOf: [{ required: ["a"] }, { required: ["b"] }] },
      },
    };
    expect(
      problems(schema, { shape: { kind: "circle", radius: "big" }, size: "big", either: { a: 1, b: 2 } }),
    ).toEqual([
      'arguments.shape.radius: expected a number, got the string "big"',
      'arguments.size: expected a whole number or null, got the string "big"',
      "arguments.either: matches more than one of the forms of which only one is allowed",
    ]);
    expect(problems(schema, { either: {} })).toEqual([
      "arguments.either: matches none of the 2 allowed forms, got an object",
    ]);
  });

  it("understands older drafts, OpenAPI 3.0 and references of every local kind", () => {
    const schema: JsonObject = {
      $schema: "http://json-schema.org/draft-07/schema#",
      $id: "https://example.com/tool.json",
      definitions: {
        name: { $id: "#name", type: "string" },
        node: {
          $anchor: "node",
          type: "object",
          properties: { next: { $ref: "#node" }, at: { $ref: "#/properties/pair/items/1" } },
        },
      },
      properties: {
        pair: {
          type: "array",
          items: [{ $ref: "#/definitions/name" }, { type: "integer", minimum: 0, exclusiveMinimum: true }],
          additionalItems: false,
        },
        list: { $ref: "https://example.com/tool.json#/definitions/node" },
        maybe: { type: "string", nullable: true },
      },
      dependencies: { list: ["pair"] },
    };
    expect(problems(schema, { pair: ["a", 1], list: { next: { next: {} } }, maybe: null })).toEqual([]);
    expect(problems(schema, { pair: [1, 0, 3], list: { next: { at: 0, next: 5 } } }).sort()).toEqual([
      "arguments.list.next.at: expected a number above 0, got the number 0",
      "arguments.list.next.next: expected an object, got the number 5",
      "arguments.pair: expected at most 2 items, got an array of 3 items",
      "arguments.pair[0]: expected a string, got the number 1",
      "arguments.pair[1]: expected a number above 0, got the number 0",
    ]);
    expect(problems(schema, { list: {} })).toEqual(['arguments.pair: is required together with "list"']);
  });

  it("refuses schemas that it cannot use, with the reason", () => {
    expect(refusal({ properties: { a: { type: "strin" } } })).toMatch(
      "it is not a valid JSON Schema: properties/a/type",
    );
    expect(refusal({ $ref: "https://example.com/other.json" })).toMatch("nothing is loaded from elsewhere");
    expect(refusal({ $ref: "file:///etc/passwd" })).toMatch("points out of the schema");
    expect(refusal({ $ref: "#/definitions/missing" })).toBe('$ref "#/definitions/missing" points to nothing');
    expect(refusal({ enum: Array.from({ length: 30_000 }, (_, i) => i) })).toMatch("more than 20000 values");
    let deep: JsonObject = {};
    for (let i = 0; i < 10_000; i++) {
      deep = { properties: { a: deep } };
    }
    expect(refusal(deep)).toMatch("nests deeper");
    expect(refusal({ enum: [JSON.parse("[".repeat(5000) + "]".repeat(5000)) as JsonValue] })).toMatch(
      "nests deeper",
    );
  });

  it("keeps names that mean something to JavaScript apart", () => {
    const schema: JsonObject = {
      properties: { constructor: { type: "string" } },
      required: ["toString"],
      additionalProperties: false,
    };
    const json = JSON.parse('{"__proto__":1,"constructor":2}') as JsonValue;
    expect(problems(schema, json).sort()).toEqual([
      'arguments.__proto__: is no known field: known fields are "constructor"',
      "arguments.constructor: expected a string, got the number 2",
      "arguments.toString: is required",
    ]);
  });
});

describe("a hostile schema", () => {
  const tooComplex = ["arguments: cannot be checked: the tool's schema takes too many steps for this value"];

  it("cannot take exponential time by doubling references", () => {
    const $defs: JsonObject = Object.fromEntries(
      Array.from({ length: 60 }, (_, i): [string, JsonValue] => {
        const next = { $ref: `#/$defs/d${i + 1}` };
        return [`d${i}`, i === 59 ? { type: "string" } : { anyOf: [next, next] }];
      }),
    );
    expect(problems({ $ref: "#/$defs/d0", $defs }, 1)).toEqual(tooComplex);
  });

  it("cannot take exponential time by visiting parts twice", () => {
    const schema: JsonObject = {
      anyOf: [{ items: { $ref: "#" } }, { items: { $ref: "#" } }],
      not: { const: 1 },
    };
    let json: JsonValue = 1;
    for (let i = 0; i < 60; i++) {
      json = [json];
    }
    expect(problems(schema, json)).toEqual(tooComplex);
  });

  it("cannot end the stack by referring to itself", () => {
    expect(problems({ $ref: "#" }, {})).toEqual(tooComplex);
  });

  it("cannot take exponential time with regular expressions", () => {
    const text = `${"a".repeat(50)}!`;
    expect(problems({ pattern: "^(a+)+$" }, text)).toHaveLength(1);
    const check = createJsonSchemaCheck({
      pattern: "^(?=(a+)+$)",
      patternProperties: { "(?!x)y": false },
      additionalProperties: false,
    });
    expect(check.check(text, "")).toEqual([]);
    expect(check.check({ y: 1 }, "")).toEqual([]);
    expect(check.warnings).toHaveLength(2);
  });

  it("cannot take quadratic time with large values", () => {
    const items = Array.from({ length: 200_000 }, (_, i) => ({ i }));
    expect(problems({ uniqueItems: true }, items)).toEqual([]);
    expect(problems({ uniqueItems: true }, [...items, { i: 5 }])).toEqual([
      "arguments: expected items that differ from each other",
    ]);
    expect(problems({ items: { type: "string" } }, items)).toHaveLength(1);
  });

  it("cannot end the stack while it is compiled", () => {
    const $defs = Object.fromEntries(
      Array.from({ length: 3000 }, (_, i): [string, JsonValue] => [
        `d${i}`,
        { anyOf: [{ $ref: `#/$defs/d${i + 1}` }] },
      ]),
    );
    const schema: JsonObject = { $ref: "#/$defs/d0", $defs: { ...$defs, d3000: true } };
    expect(() => problems(schema, 1)).toThrow("nest too deep to be compiled");
  });

  it("is not followed by a value that nests too deep", () => {
    const json = JSON.parse("[".repeat(10_000) + "]".repeat(10_000)) as JsonValue;
    expect(problems({ items: { $ref: "#" } }, json)).toEqual(["arguments: nests deeper than 100 levels"]);
  });
});
