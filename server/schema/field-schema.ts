import type { DescField, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { type FieldRules, Ignore } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { fieldDocumentation } from "./documentation.ts";
import { conjoin, type Definition, type Fragment, fragment } from "./fragment.ts";
import { mapKeyRules, mapKeySchema } from "./map-key-schema.ts";
import { celNotes, type RuleSet, valueRules } from "./rules.ts";
import { scalarFragment } from "./scalar-schema.ts";
import { enumFragment, messageFragment } from "./value-schema.ts";

export interface FieldSchema {
  readonly schema: JsonObject;
  readonly uses: readonly Definition[];
  /** Whether the JSON form of a valid message always has the field. */
  readonly required: boolean;
}

/** The schema of a field's JSON form. `rules` are what protovalidate demands of it. */
export function fieldSchema(field: DescField, rules: FieldRules | undefined): FieldSchema {
  const implicit = field.presence === FeatureSet_FieldPresence.IMPLICIT;
  const nonZero = implicit && rules?.required === true;
  const value = kindFragment(field, rules, nonZero);
  const mustBeSet =
    rules?.required === true || (implicit && !value.zeroAllowed && rules?.ignore !== Ignore.IF_ZERO_VALUE);
  const documentation = fieldDocumentation(field);
  const description = [documentation.description, ...value.notes, ...celNotes(rules)]
    .filter(Boolean)
    .join("\n");
  const fallback = defaultValue(field);
  return {
    schema: {
      ...value.schema,
      ...(description === "" ? {} : { description }),
      ...(documentation.examples.length === 0 ? {} : { examples: documentation.examples }),
      ...(fallback === undefined ? {} : { default: fallback }),
      ...(field.deprecated ? { deprecated: true } : {}),
    },
    uses: value.uses,
    required: mustBeSet || field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED,
  };
}

function kindFragment(field: DescField, rules: FieldRules | undefined, nonZero: boolean): Fragment {
  switch (field.fieldKind) {
    case "scalar":
      return scalarFragment(field.scalar, rules, nonZero);
    case "enum":
      return enumFragment(field.enum, rules, nonZero);
    case "message":
      return messageFragment(field.message, rules, nonZero);
    case "list":
      return listFragment(field, valueRules(rules, "repeated"), nonZero);
    case "map":
      return mapFragment(field, valueRules(rules, "map"), nonZero);
  }
}

function listFragment(
  field: DescField & { fieldKind: "list" },
  rules: RuleSet | undefined,
  nonEmpty: boolean,
): Fragment {
  const items = elementFragment(field, nestedRules(rules?.value("items")));
  const least = Math.max(rules?.size("minItems") ?? 0, nonEmpty ? 1 : 0);
  const most = rules?.size("maxItems");
  return fragment(
    {
      type: "array",
      items: withNotes(items),
      ...(least > 0 ? { minItems: least } : {}),
      ...(most === undefined ? {} : { maxItems: most }),
      ...(rules?.value("unique") === true ? { uniqueItems: true } : {}),
    },
    { uses: items.uses, zeroAllowed: (rules?.size("minItems") ?? 0) === 0 },
  );
}

function mapFragment(
  field: DescField & { fieldKind: "map" },
  rules: RuleSet | undefined,
  nonEmpty: boolean,
): Fragment {
  const values = elementFragment(field, nestedRules(rules?.value("values")));
  const ofKeys = nestedRules(rules?.value("keys"));
  // Keys that are exempt from their rules when they are zero are not described by them.
  const described = ofKeys?.ignore === Ignore.UNSPECIFIED ? ofKeys : undefined;
  const byRule = described === undefined ? undefined : mapKeyRules(field.mapKey, described);
  const { type: _, ...keyKeywords } = byRule?.schema ?? {};
  const names = conjoin(mapKeySchema(field.mapKey) ?? {}, keyKeywords);
  const least = Math.max(rules?.size("minPairs") ?? 0, nonEmpty ? 1 : 0);
  const most = rules?.size("maxPairs");
  return fragment(
    {
      type: "object",
      ...(Object.keys(names).length === 0 ? {} : { propertyNames: names }),
      additionalProperties: withNotes(values),
      ...(least > 0 ? { minProperties: least } : {}),
      ...(most === undefined ? {} : { maxProperties: most }),
    },
    {
      uses: values.uses,
      zeroAllowed: (rules?.size("minPairs") ?? 0) === 0,
      notes: [...(byRule?.notes ?? []), ...celNotes(ofKeys)].map((note) => `Keys: ${note}`),
    },
  );
}

function elementFragment(
  field: DescField & { fieldKind: "list" | "map" },
  rules: FieldRules | undefined,
): Fragment {
  if (field.message !== undefined) {
    const value = messageFragment(field.message, rules, false);
    return { ...value, notes: [...value.notes, ...celNotes(rules)] };
  }
  const value =
    field.enum !== undefined
      ? enumFragment(field.enum, rules, false)
      : scalarFragment(field.scalar, rules, false);
  const exempt = rules?.ignore === Ignore.IF_ZERO_VALUE && !value.zeroAllowed;
  return {
    ...value,
    schema: exempt ? { anyOf: [value.schema, zeroSchema(field)] } : value.schema,
    notes: [...value.notes, ...celNotes(rules)],
  };
}

/** The default value of an element, in each of its JSON forms. */
function zeroSchema({ scalar, enum: desc }: DescField): JsonObject {
  switch (scalar) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return { const: "" };
    case ScalarType.BOOL:
      return { const: false };
    default: {
      const name = desc?.values[0]?.jsonName;
      return { enum: [0, name ?? "0"] };
    }
  }
}

function withNotes({ schema, notes }: Fragment): JsonObject {
  return notes.length === 0 ? schema : { ...schema, description: notes.join("\n") };
}

/** The rules for the elements of a list or map. */
function nestedRules(value: unknown): FieldRules | undefined {
  const rules = value as FieldRules | undefined;
  return rules?.ignore === Ignore.ALWAYS ? undefined : rules;
}

/** A default that a proto2 or editions file declares, in its JSON form. */
function defaultValue(field: DescField): JsonValue | undefined {
  if (field.proto.defaultValue === undefined || field.proto.defaultValue === "") {
    return undefined;
  }
  if (field.fieldKind === "enum") {
    const number = field.getDefaultValue();
    return field.enum.values.find((value) => value.number === number)?.jsonName;
  }
  if (field.fieldKind !== "scalar") {
    return undefined;
  }
  const value: unknown = field.getDefaultValue();
  if (value instanceof Uint8Array) {
    return base64Encode(value);
  }
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "bigint":
      return String(value);
    case "number":
      return Number.isFinite(value) ? value : String(value);
    default:
      return undefined;
  }
}
