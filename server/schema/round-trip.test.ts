import {
  type DescMessage,
  fromJson,
  type JsonValue,
  type Registry,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { DomainError } from "@toolplane/framework";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createJsonSchemaCheck, messageSchema, parseMessageJson } from "./index.ts";
import { type Dialect, type Draw, MESSAGES, randomDescriptors } from "./test-support/random-descriptors.ts";
import { randomMessage } from "./test-support/random-messages.ts";

/** Tells what is wrong with a JSON value by a message's schema; undefined when nothing is. */
function compileSchema(desc: DescMessage): (json: JsonValue) => string | undefined {
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, strictTypes: false, strictRequired: false });
  formats.default(ajv);
  const validate = ajv.compile(messageSchema(desc));
  return (json) => (validate(json) ? undefined : ajv.errorsText(validate.errors));
}

/** The parser's error; undefined when it accepts the JSON. */
function refusal(desc: DescMessage, json: JsonValue, registry: Registry): unknown {
  try {
    parseMessageJson(desc, json, { registry });
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Whether the parser accepts the JSON, but for a type in google.protobuf.Any: the schema cannot know which there are. */
function isAcceptedOrUnknownType(error: unknown): boolean {
  return (
    error === undefined ||
    (error instanceof DomainError &&
      error.message.endsWith('@type: the service does not describe a message type "x"'))
  );
}

function accepts(desc: DescMessage, json: JsonValue, registry: Registry): boolean {
  const error = refusal(desc, json, registry);
  if (error !== undefined) {
    expect(error).toBeInstanceOf(DomainError);
  }
  return error === undefined;
}

function libraryAccepts(desc: DescMessage, json: JsonValue, registry: Registry): boolean {
  try {
    fromJson(desc, json, { registry });
    return true;
  } catch {
    return false;
  }
}

function drawType(draw: Draw, registry: Registry): DescMessage {
  const desc = registry.getMessage(`test.M${draw(fc.nat, { max: MESSAGES - 1 })}`);
  if (desc === undefined) {
    throw new Error("no such message");
  }
  return desc;
}

const odd: readonly JsonValue[] = [
  null,
  true,
  0,
  -1,
  1.5,
  3e9,
  1e20,
  "",
  "1",
  "-1",
  "007",
  "1e3",
  "1.5",
  "NaN",
  "Infinity",
  "E0_A",
  "E1_B",
  "AQI=",
  "_-8",
  "A",
  "2020-02-30T00:00:00Z",
  "2020-02-28T00:00:00+01:00",
  "9999-12-31T23:59:59-01:00",
  "2020-02-28T24:00:00Z",
  "1.5s",
  "1s ",
  "-0.5s",
  "400000000000s",
  "true",
  "aB,c",
  "a_b",
  [],
  [null],
  [1],
  {},
  { a: 1 },
  { "1": 1 },
  { true: null },
  { "01": 1, "1": 1 },
  { "@type": "type.googleapis.com/google.protobuf.Duration", value: "1s" },
  { "@type": "x" },
];

/** Replaces, removes or adds one part of a JSON value, deep within it. */
function mutate(draw: Draw, json: JsonValue): JsonValue {
  // The schema does not know the types that google.protobuf.Any can hold.
  const opaque = typeof json !== "object" || json === null || "@type" in json;
  const inside = opaque ? [] : Object.keys(json);
  if (inside.length === 0 || draw(fc.nat, { max: 4 }) === 0) {
    return draw(fc.constantFrom, ...odd);
  }
  if (Array.isArray(json)) {
    const at = draw(fc.nat, { max: json.length - 1 });
    return json.map((item, i) => (i === at ? mutate(draw, item) : item));
  }
  const copy: { [key: string]: JsonValue } = { ...(json as { [key: string]: JsonValue }) };
  const key = draw(fc.constantFrom, ...inside);
  switch (draw(fc.constantFrom, "replace", "replace", "replace", "remove", "rename", "add")) {
    case "remove":
      delete copy[key];
      break;
    case "rename":
      copy[draw(fc.constantFrom, "field_1", "field1", "1", "true", "choice0", "choice_1")] =
        copy[key] ?? null;
      delete copy[key];
      break;
    case "add":
      copy[draw(fc.constantFrom, "field_1", "field1", "choice0", "choice_1", "extra")] = draw(
        fc.constantFrom,
        ...odd,
      );
      break;
    default:
      copy[key] = mutate(draw, copy[key] ?? null);
  }
  return copy;
}

/** Random messages for each random descriptor. */
const MESSAGES_EACH = 5;

describe.each<Dialect>(["proto2", "proto3", "editions"])("JSON of random %s messages", (dialect) => {
  it("is valid against the schema and is read back as it was", () => {
    fc.assert(
      fc.property(fc.gen(), (draw) => {
        const registry = randomDescriptors(draw, dialect);
        const desc = drawType(draw, registry);
        const schemaErrors = compileSchema(desc);
        const { check } = createJsonSchemaCheck(messageSchema(desc));
        for (let n = 0; n < MESSAGES_EACH; n++) {
          const message = randomMessage(draw, desc, registry);
          const json = toJson(desc, message, { registry });
          expect(schemaErrors(json)).toBeUndefined();
          expect(check(json, "")).toEqual([]);
          expect(toBinary(desc, parseMessageJson(desc, json, { registry }))).toEqual(toBinary(desc, message));
        }
      }),
      { numRuns: 25 },
    );
  });

  it("is accepted by the parser wherever the schema accepts it, whatever was changed in it", () => {
    let accepted = 0;
    fc.assert(
      fc.property(fc.gen(), (draw) => {
        const registry = randomDescriptors(draw, dialect);
        const desc = drawType(draw, registry);
        const schemaErrors = compileSchema(desc);
        for (let n = 0; n < MESSAGES_EACH; n++) {
          const json = mutate(draw, toJson(desc, randomMessage(draw, desc, registry), { registry }));
          if (schemaErrors(json) === undefined) {
            accepted++;
            expect(refusal(desc, json, registry)).toSatisfy(isAcceptedOrUnknownType);
          }
          expect(!accepts(desc, json, registry) || libraryAccepts(desc, json, registry)).toBe(true);
        }
      }),
      { numRuns: 40 },
    );
    expect(accepted).toBeGreaterThan(10);
  });
});
