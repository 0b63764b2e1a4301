import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { RegisterServiceRequestSchema } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { messageSchema, type Provider, toProfile } from "./index.ts";
import { randomDescriptors } from "./test-support/random-descriptors.ts";
import { randomMessage } from "./test-support/random-messages.ts";

const providers: Provider[] = ["anthropic", "openai", "gemini"];
const refusedAtTheTop = ["anyOf", "oneOf", "allOf", "not", "enum", "const", "$ref", "if", "$schema"];

/** Every object of a JSON value. */
function* objects(value: unknown): Iterable<Record<string, unknown>> {
  if (typeof value === "object" && value !== null) {
    if (!Array.isArray(value)) {
      yield value as Record<string, unknown>;
    }
    for (const member of Object.values(value)) {
      yield* objects(member);
    }
  }
}

describe.each(providers)("the schema profile for %s", (provider) => {
  it("is an object at the top, without what providers refuse there", () => {
    const profile = toProfile(messageSchema(RegisterServiceRequestSchema), provider);
    expect(profile["type"]).toBe("object");
    expect(Object.keys(profile).filter((keyword) => refusedAtTheTop.includes(keyword))).toEqual([]);
  });

  it("takes every message that the tool takes", () => {
    fc.assert(
      fc.property(fc.gen(), (draw) => {
        const registry = randomDescriptors(draw, "proto3");
        const desc = registry.getMessage("test.M0");
        if (desc === undefined) {
          throw new Error("no such message");
        }
        const json = toJson(desc, randomMessage(draw, desc, registry), { registry });
        const freeForm = JSON.stringify(messageSchema(desc)).includes("Any JSON");
        fc.pre(provider !== "gemini" || !freeForm);
        const ajv = new Ajv2020({ strict: false });
        formats.default(ajv);
        expect(ajv.validate(toProfile(messageSchema(desc), provider), json), ajv.errorsText()).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  it("says in words what a oneof is", () => {
    const schema: JsonObject = {
      type: "object",
      description: "A place.",
      properties: { city: { type: "string" }, point: { type: "string" } },
      additionalProperties: false,
      oneOf: [
        { required: ["city"] },
        { required: ["point"] },
        { not: { anyOf: [{ required: ["city"] }, { required: ["point"] }] } },
      ],
    };
    const profile = toProfile(schema, provider);
    expect(profile["oneOf"]).toBeUndefined();
    expect(profile["description"]).toBe('A place.\nSet at most one of "city", "point".');
  });

  it("merges alternatives at the top into one object", () => {
    const schema: JsonObject = {
      anyOf: [
        {
          type: "object",
          properties: { kind: { const: "circle" }, radius: { type: "number" } },
          required: ["kind", "radius"],
        },
        { $ref: "#/$defs/square" },
      ],
      $defs: {
        square: {
          type: "object",
          properties: { kind: { const: "square" }, side: { type: "number" } },
          required: ["kind", "side"],
        },
      },
    };
    const profile = toProfile(schema, provider);
    expect(Object.keys(profile["properties"] as JsonObject)).toEqual(["kind", "radius", "side"]);
    expect(profile["required"]).toEqual(["kind"]);
    expect(profile["description"]).toBe('One of these forms: with "kind", "radius"; with "kind", "side".');
  });

  it("ends for schemas that lead back to themselves", () => {
    const circle: JsonObject = { allOf: [{ $ref: "#" }, { $ref: "#" }], properties: { next: { $ref: "#" } } };
    expect(toProfile(circle, provider)["type"]).toBe("object");
  });
});

describe("the schema profile for Gemini", () => {
  it("has no references, and names a type that holds itself", () => {
    const schema: JsonObject = {
      type: "object",
      properties: { root: { $ref: "#/$defs/acme.Node" } },
      $defs: {
        "acme.Node": {
          type: "object",
          properties: { name: { type: "string", format: "uri" }, next: { $ref: "#/$defs/acme.Node" } },
        },
      },
    };
    expect(toProfile(schema, "gemini")).toEqual({
      type: "object",
      properties: {
        root: {
          type: "object",
          properties: {
            name: { type: "string", description: "Format: uri." },
            next: { type: "object", description: "Of the same form as acme.Node further up." },
          },
        },
      },
    });
  });

  it("has one type a schema and enums of strings", () => {
    const profile = toProfile(messageSchema(RegisterServiceRequestSchema), "gemini");
    for (const each of objects(profile)) {
      expect(Array.isArray(each["type"])).toBe(false);
      expect(each).not.toHaveProperty("$ref");
      expect(each).not.toHaveProperty("const");
      expect(each).not.toHaveProperty("oneOf");
    }
  });
});

describe("the schema profile for Anthropic", () => {
  it("mentions fields whose names are refused", () => {
    const schema: JsonObject = {
      type: "object",
      properties: { "@type": { type: "string" }, city: { type: "string" } },
      required: ["@type", "city"],
      additionalProperties: false,
    };
    expect(toProfile(schema, "anthropic")).toEqual({
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      description: 'Also has the field "@type" (string).',
    });
  });
});
