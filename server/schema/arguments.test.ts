import { create, type DescMessage, equals, type JsonObject, type Message } from "@bufbuild/protobuf";
import {
  DurationSchema,
  EmptySchema,
  FieldMaskSchema,
  Int64ValueSchema,
  ListValueSchema,
  StringValueSchema,
  StructSchema,
  TimestampSchema,
  ValueSchema,
} from "@bufbuild/protobuf/wkt";
import type { DomainError } from "@toolplane/framework";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { argumentsSchema, parseArguments } from "./arguments.ts";

const cases: [DescMessage, JsonObject, Message][] = [
  [StringValueSchema, { value: "x" }, create(StringValueSchema, { value: "x" })],
  [Int64ValueSchema, { value: "9007199254740993" }, create(Int64ValueSchema, { value: 9007199254740993n })],
  [TimestampSchema, { value: "1970-01-01T00:00:01Z" }, create(TimestampSchema, { seconds: 1n })],
  [DurationSchema, { value: "2s" }, create(DurationSchema, { seconds: 2n })],
  [FieldMaskSchema, { value: "a.bC" }, create(FieldMaskSchema, { paths: ["a.b_c"] })],
  [ValueSchema, { value: null }, create(ValueSchema, { kind: { case: "nullValue", value: 0 } })],
  [ListValueSchema, { value: [] }, create(ListValueSchema)],
  [EmptySchema, {}, create(EmptySchema)],
  [
    StructSchema,
    { value: true },
    create(StructSchema, { fields: { value: { kind: { case: "boolValue", value: true } } } }),
  ],
];

describe("arguments are an object, also for messages whose JSON form is none", () => {
  test.each(cases)("%s from %j", (desc, json, message) => {
    expect(equals(desc, parseArguments(desc, json, { path: "arguments" }), message)).toBe(true);
    const schema = argumentsSchema(desc);
    expect(schema["type"]).toBe("object");
    expect(new Ajv2020({ strict: false, validateFormats: false }).validate(schema, json)).toBe(true);
  });
});

test.each<[JsonObject, string]>([
  [{}, "arguments.value"],
  [{ value: "x", other: 1 }, "arguments.other"],
  [{ value: 1 }, "arguments.value"],
])("what is wrong with %j is named", (json, field) => {
  expect(() => parseArguments(StringValueSchema, json, { path: "arguments" })).toThrow(
    expect.objectContaining({
      init: expect.objectContaining({ fields: [expect.objectContaining({ field })] }),
    }) as DomainError,
  );
});
