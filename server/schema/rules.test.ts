import {
  create,
  fromJson,
  type JsonValue,
  type MessageInitShape,
  setExtension,
  toJson,
} from "@bufbuild/protobuf";
import {
  DescriptorProtoSchema,
  FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  MessageOptionsSchema,
  OneofDescriptorProtoSchema,
  OneofOptionsSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import {
  FieldRulesSchema,
  field as fieldOption,
  Ignore,
  MessageRulesSchema,
  message as messageOption,
  OneofRulesSchema,
  oneof as oneofOption,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { DomainError } from "@toolplane/framework";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { messageSchema, parseMessageJson } from "./index.ts";
import { registryOf } from "./test-support/random-descriptors.ts";

type Rules = MessageInitShape<typeof FieldRulesSchema>;

interface Ruled {
  readonly type: Type;
  readonly rules?: Rules;
  readonly shape?: "implicit" | "optional" | "repeated" | "map" | "oneof";
}

/** The message `test.Ruled` with fields `f0`, `f1`, …, as a client of reflection sees it. */
function ruledMessage(
  fields: readonly Ruled[],
  message?: MessageInitShape<typeof MessageRulesSchema>,
  requiredOneof = false,
) {
  const desc = create(DescriptorProtoSchema, { name: "Ruled" });
  for (const [i, { type, rules, shape }] of fields.entries()) {
    const field = create(FieldDescriptorProtoSchema, {
      name: `f${i}`,
      jsonName: `f${i}`,
      number: i + 1,
      type,
      label: shape === "repeated" || shape === "map" ? Label.REPEATED : Label.OPTIONAL,
      ...(type === Type.ENUM ? { typeName: ".test.Color" } : {}),
    });
    if (shape === "map") {
      const name = `F${i}Entry`;
      desc.nestedType.push(
        create(DescriptorProtoSchema, {
          name,
          options: { mapEntry: true },
          field: [
            { name: "key", number: 1, label: Label.OPTIONAL, type },
            { name: "value", number: 2, label: Label.OPTIONAL, type: Type.INT32 },
          ],
        }),
      );
      Object.assign(field, { type: Type.MESSAGE, typeName: `.test.Ruled.${name}` });
    }
    field.proto3Optional = shape === "optional";
    if (shape === "oneof") {
      field.oneofIndex = 0;
    }
    if (rules !== undefined) {
      field.options = create(FieldOptionsSchema);
      setExtension(field.options, fieldOption, create(FieldRulesSchema, rules));
    }
    desc.field.push(field);
  }
  if (fields.some(({ shape }) => shape === "oneof")) {
    const options = create(OneofOptionsSchema);
    setExtension(options, oneofOption, create(OneofRulesSchema, { required: requiredOneof }));
    desc.oneofDecl.push(create(OneofDescriptorProtoSchema, { name: "choice", options }));
  }
  for (const field of desc.field.filter(({ proto3Optional }) => proto3Optional)) {
    field.oneofIndex = desc.oneofDecl.length;
    desc.oneofDecl.push(create(OneofDescriptorProtoSchema, { name: `_${field.name}` }));
  }
  if (message !== undefined) {
    desc.options = create(MessageOptionsSchema);
    setExtension(desc.options, messageOption, create(MessageRulesSchema, message));
  }
  const registry = registryOf([
    create(FileDescriptorProtoSchema, {
      name: "ruled.proto",
      package: "test",
      syntax: "proto3",
      messageType: [desc],
      enumType: [{ name: "Color", value: ["NONE", "RED", "BLUE"].map((name, number) => ({ name, number })) }],
    }),
  ]);
  const found = registry.getMessage("test.Ruled");
  if (found === undefined) {
    throw new Error("the message was not built");
  }
  return { desc: found, registry };
}

const small = fc.integer({ min: -2, max: 3 });
const word = fc.stringMatching(/^[ab.]{0,3}$/);
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 3 });

/** Drops what is undefined: a rule that is not set. */
function given(rules: object): object {
  return Object.fromEntries(Object.entries(rules).filter(([, value]) => value !== undefined));
}

function bounds<T>(value: fc.Arbitrary<T>) {
  return fc.record({
    lessThan: maybe(fc.record({ case: fc.constantFrom("lt", "lte"), value })),
    greaterThan: maybe(fc.record({ case: fc.constantFrom("gt", "gte"), value })),
    in: fc.oneof(fc.constant([]), fc.array(value, { maxLength: 3 })),
    notIn: fc.oneof(fc.constant([]), fc.array(value, { maxLength: 2 })),
  });
}

const stringRules = fc.record({
  minLen: maybe(fc.bigInt({ min: 0n, max: 2n })),
  maxLen: maybe(fc.bigInt({ min: 1n, max: 3n })),
  pattern: maybe(fc.constantFrom("^a", "b$", "^[ab]*$", "a.b", "^\\S*$")),
  prefix: maybe(fc.constantFrom("", "a", ".")),
  suffix: maybe(fc.constantFrom("", "b", ".")),
  contains: maybe(fc.constantFrom("", "a.")),
  notContains: maybe(fc.constantFrom("b", "..")),
  in: fc.oneof(fc.constant([]), fc.array(word, { maxLength: 4 })),
  notIn: fc.oneof(fc.constant([]), fc.array(word, { maxLength: 2 })),
});

const ofUnsigned = bounds(fc.nat({ max: 3 }));
const ofBig = bounds(fc.bigInt({ min: -2n, max: 3n }));
const enumRules = fc.record({
  definedOnly: fc.boolean(),
  in: fc.oneof(fc.constant([]), fc.array(fc.nat({ max: 3 }), { maxLength: 3 })),
  notIn: fc.oneof(fc.constant([]), fc.array(fc.nat({ max: 3 }), { maxLength: 2 })),
});

interface Kind {
  readonly type: Type;
  readonly name: string;
  readonly rules: fc.Arbitrary<object>;
  readonly values: fc.Arbitrary<JsonValue>;
}

const kinds: readonly Kind[] = [
  { type: Type.STRING, name: "string", rules: stringRules, values: word },
  { type: Type.INT32, name: "int32", rules: bounds(small), values: small },
  { type: Type.SINT64, name: "sint64", rules: ofBig, values: small.map(String) },
  {
    type: Type.UINT64,
    name: "uint64",
    rules: bounds(fc.bigInt({ min: 0n, max: 3n })),
    values: fc.nat({ max: 4 }).map(String),
  },
  { type: Type.FIXED32, name: "fixed32", rules: ofUnsigned, values: fc.nat({ max: 4 }) },
  {
    type: Type.DOUBLE,
    name: "double",
    rules: fc.tuple(bounds(small), fc.boolean()).map(([rules, finite]) => ({ ...rules, finite })),
    values: fc.oneof(small, fc.constantFrom("NaN", "Infinity", "-Infinity", 0.5)),
  },
  { type: Type.BOOL, name: "bool", rules: fc.record({ const: maybe(fc.boolean()) }), values: fc.boolean() },
  { type: Type.ENUM, name: "enum", rules: enumRules, values: fc.constantFrom("NONE", "RED", "BLUE", 7) },
];

const shapes = ["implicit", "implicit", "optional", "repeated", "map", "oneof"] as const;

/** A field with random rules, and random values for it. */
interface RuledField {
  readonly field: Ruled;
  readonly values: fc.Arbitrary<JsonValue | undefined>;
}

const ruledField: fc.Arbitrary<RuledField> = fc
  .tuple(
    fc.constantFrom(...kinds),
    fc.constantFrom(...shapes),
    fc.boolean(),
    fc.nat({ max: 2 }),
    fc.boolean(),
  )
  .filter(([{ name }, shape]) => shape !== "map" || (name !== "double" && name !== "enum"))
  .chain(([kind, shape, required, ignore, unique]) =>
    fc
      .tuple(kind.rules, maybe(fc.bigInt({ min: 0n, max: 2n })), maybe(fc.bigInt({ min: 1n, max: 2n })))
      .map(([raw, least, most]) => {
        const own: Rules = { type: { case: kind.name, value: given(raw) } as never };
        const isUnique = unique && kind.name !== "double";
        const rules: Rules = {
          required: required && ignore !== 1,
          ignore: ignore === 1 && shape !== "oneof" ? Ignore.IF_ZERO_VALUE : Ignore.UNSPECIFIED,
          ...(shape === "repeated"
            ? {
                type: {
                  case: "repeated",
                  value: given({ minItems: least, maxItems: most, unique: isUnique, items: own }),
                } as never,
              }
            : shape === "map"
              ? {
                  type: {
                    case: "map",
                    value: given({
                      minPairs: least,
                      maxPairs: most,
                      keys: own,
                      values: { type: { case: "int32", value: { greaterThan: { case: "gt", value: 0 } } } },
                    }),
                  } as never,
                }
              : own),
        };
        const values = kind.values;
        const json: fc.Arbitrary<JsonValue> =
          shape === "repeated"
            ? fc.array(values, { maxLength: 3 })
            : shape === "map"
              ? fc.dictionary(values.map(String), small, { maxKeys: 3 })
              : values;
        return {
          field: { type: kind.type, shape, rules },
          values: fc.option(json, { nil: undefined, freq: 6 }),
        };
      }),
  );

function drawJson(draw: fc.GeneratorValue, fields: readonly RuledField[]): JsonValue {
  const json: Record<string, JsonValue> = {};
  let chosen = false;
  for (const [i, { field, values }] of fields.entries()) {
    const value = draw(() => values);
    if (value !== undefined && !(field.shape === "oneof" && chosen)) {
      json[`f${i}`] = value;
      chosen ||= field.shape === "oneof";
    }
  }
  return json;
}

function isValid(schema: object, json: JsonValue): boolean {
  const ajv = new Ajv2020({ strict: false });
  formats.default(ajv);
  return ajv.validate(schema, json);
}

describe("protovalidate rules in a schema", () => {
  it("accept exactly the messages that protovalidate accepts", () => {
    let accepted = 0;
    let refused = 0;
    fc.assert(
      fc.property(
        fc.array(ruledField, { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        fc.gen(),
        (fields, needed, draw) => {
          const { desc, registry } = ruledMessage(
            fields.map(({ field }) => field),
            undefined,
            needed,
          );
          const validator = createValidator({ registry });
          const schema = messageSchema(desc);
          for (let n = 0; n < 6; n++) {
            const message = fromJson(desc, drawJson(draw, fields));
            const result = validator.validate(desc, message);
            fc.pre(result.kind !== "error");
            const json = toJson(desc, message);
            const valid = result.kind === "valid";
            expect(isValid(schema, json), JSON.stringify([json, schema])).toBe(valid);
            expect(isValid(messageSchema(desc, { rules: false }), json)).toBe(true);
            accepted += valid ? 1 : 0;
            refused += valid ? 0 : 1;
          }
        },
      ),
      { numRuns: 25 },
    );
    expect(Math.min(accepted, refused)).toBeGreaterThan(10);
  });

  it("say in words what JSON Schema cannot", () => {
    const { desc } = ruledMessage(
      [
        {
          type: Type.STRING,
          rules: { type: { case: "string", value: { pattern: "(?i)^a", maxBytes: 8n } } },
        },
        { type: Type.BYTES, rules: { type: { case: "bytes", value: { minLen: 4n } } } },
        {
          type: Type.INT32,
          rules: { cel: [{ id: "even", message: "must be even", expression: "this % 2 == 0" }] },
        },
        {
          type: Type.STRING,
          rules: { type: { case: "string", value: { wellKnown: { case: "email", value: true } } } },
        },
      ],
      { celExpression: ["this.f2 > 0"] },
    );
    expect(messageSchema(desc)).toMatchObject({
      description: "Rule (CEL): this.f2 > 0.",
      properties: {
        f0: {
          type: "string",
          maxLength: 8,
          description: "At most 8 bytes in UTF-8.\nMatches the regular expression (RE2) (?i)^a",
        },
        f1: { $ref: "#/$defs/json-bytes", minLength: 6, description: "At least 4 bytes." },
        f2: { type: "integer", description: "must be even." },
        f3: { type: "string", format: "email" },
      },
      required: ["f1", "f3"],
    });
  });
});

describe("protovalidate rules of a backend's own descriptor", () => {
  it("are checked, each with its path", () => {
    const { desc, registry } = ruledMessage([
      {
        type: Type.STRING,
        shape: "repeated",
        rules: {
          type: { case: "repeated", value: { items: { type: { case: "string", value: { minLen: 2n } } } } },
        },
      },
      {
        type: Type.STRING,
        shape: "map",
        rules: {
          type: { case: "map", value: { keys: { type: { case: "string", value: { maxLen: 1n } } } } },
        },
      },
    ]);
    try {
      parseMessageJson(desc, { f0: ["ab", "a"], f1: { long: 1 } }, { registry, path: "arguments" });
      expect.unreachable();
    } catch (error) {
      expect(error instanceof DomainError ? error.init.fields : error).toEqual([
        { field: "arguments.f0[1]", reason: "STRING_MIN_LEN", description: "must be at least 2 characters" },
        {
          field: 'arguments.f1["long"]',
          reason: "STRING_MAX_LEN",
          description: "key: must be at most 1 character",
        },
      ]);
    }
  });

  it("refuses a value for which the tool's rules would take too long", () => {
    const loops = "this.all(a, this.all(b, this.all(c, this.all(d, a + b + c + d >= 0))))";
    const { desc, registry } = ruledMessage([
      {
        type: Type.INT32,
        shape: "repeated",
        rules: { cel: [{ id: "loops", message: "no", expression: loops }] },
      },
    ]);
    const parse = (length: number) =>
      parseMessageJson(desc, { f0: Array.from({ length }, () => 1) }, { registry, path: "arguments" });
    expect(() => parse(3)).not.toThrow();
    expect(() => parse(1_000)).toThrow(/arguments: cannot be checked: the tool's rules take too long/);
  });

  it("are passed over with a warning where they do not compile", () => {
    const { desc, registry } = ruledMessage([
      { type: Type.INT32, rules: { cel: [{ id: "broken", message: "", expression: "this +" }] } },
    ]);
    const warnings: string[] = [];
    const onWarning = ({ typeName }: { readonly typeName: string }) => warnings.push(typeName);
    for (let n = 0; n < 2; n++) {
      expect(parseMessageJson(desc, { f0: 1 }, { registry, onWarning })).toMatchObject({ f0: 1 });
    }
    expect(warnings).toEqual(["test.Ruled"]);
  });
});
