import { type JsonObject, ScalarType } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import type { FieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { floatFragment } from "./float-schema.ts";
import { conjoin, type Fragment, fragment, reference, type ScalarDefinition } from "./fragment.ts";
import { integerFragment } from "./integer-schema.ts";
import { numericRules, valueRules } from "./rules.ts";
import { stringFragment } from "./string-schema.ts";

/** Digits in groups of four; a last group of two or three may be padded. Both alphabets. */
const BASE64 = "^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?$";

const bytes: ScalarDefinition = {
  kind: "scalar",
  name: "json-bytes",
  schema: {
    description: "Bytes in Base64; the URL-safe alphabet and missing padding are accepted.",
    type: "string",
    contentEncoding: "base64",
    pattern: BASE64,
  },
};

/**
 * The JSON form of a scalar under the rules of its field. With `nonZero` the default value is refused, as it is for a
 * required field that does not track presence.
 */
export function scalarFragment(
  scalar: ScalarType,
  rules: FieldRules | undefined,
  nonZero: boolean,
): Fragment {
  switch (scalar) {
    case ScalarType.STRING:
      return stringFragment(valueRules(rules, "string"), nonZero);
    case ScalarType.BYTES:
      return bytesFragment(rules, nonZero);
    case ScalarType.BOOL:
      return boolFragment(rules, nonZero);
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return floatFragment(scalar, numericRules(rules, scalar), nonZero);
    default:
      return integerFragment(scalar, numericRules(rules, scalar), nonZero);
  }
}

function boolFragment(rules: FieldRules | undefined, nonZero: boolean): Fragment {
  const constant = valueRules(rules, "bool")?.value("const");
  let schema: JsonObject = { type: "boolean" };
  if (typeof constant === "boolean") {
    schema = { ...schema, const: constant };
  }
  if (nonZero) {
    schema = conjoin(schema, { const: true });
  }
  return fragment(schema, { zeroAllowed: constant !== true });
}

function bytesFragment(rules: FieldRules | undefined, nonZero: boolean): Fragment {
  const set = valueRules(rules, "bytes");
  const base = reference(bytes);
  let schema = base.schema;
  let zeroAllowed = true;
  const notes: string[] = [];
  if (nonZero) {
    schema = conjoin(schema, { minLength: 2 });
  }
  if (set !== undefined) {
    // A value has several Base64 forms, so that lengths are only as narrow as all of them allow.
    const length = set.size("len");
    const least = length ?? set.size("minLen");
    const most = length ?? set.size("maxLen");
    if (least !== undefined) {
      schema = conjoin(schema, { minLength: Math.ceil((least * 4) / 3) });
      notes.push(`At least ${least} bytes.`);
      zeroAllowed &&= least === 0;
    }
    if (most !== undefined) {
      schema = conjoin(schema, { maxLength: Math.ceil(most / 3) * 4 });
      notes.push(`At most ${most} bytes.`);
    }
    const choices = [set.value("const"), ...(set.list("in") ?? [])].filter(
      (value) => value instanceof Uint8Array,
    );
    if (choices.length > 0) {
      notes.push(
        `One of these bytes, in Base64: ${choices.map((choice) => base64Encode(choice)).join(", ")}.`,
      );
      zeroAllowed &&= choices.every((choice) => choice.length === 0);
    }
    for (const part of ["prefix", "suffix", "contains"] as const) {
      const value = set.value(part);
      if (value instanceof Uint8Array) {
        notes.push(
          `The bytes have the ${part === "contains" ? "part" : part} ${base64Encode(value)} (Base64).`,
        );
        zeroAllowed &&= value.length === 0;
      }
    }
    const pattern = set.value("pattern");
    if (typeof pattern === "string") {
      notes.push(`The bytes match the regular expression ${pattern}`);
    }
    if (set.wellKnown !== undefined) {
      notes.push(`The bytes are of the form ${set.wellKnown}.`);
      zeroAllowed = false;
    }
  }
  return { ...base, schema, notes, zeroAllowed };
}
