import { type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import type { FieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import {
  conjoin,
  type Fragment,
  fragment,
  noneOfValues,
  oneOfValues,
  reference,
  type ScalarDefinition,
} from "./fragment.ts";
import { integerRangePattern } from "./integer-range.ts";
import { type NumericRules, numericRules, valueRules } from "./rules.ts";
import { stringFragment } from "./string-schema.ts";

const INT32 = [-(2n ** 31n), 2n ** 31n - 1n] as const;
const UINT32 = [0n, 2n ** 32n - 1n] as const;
const INT64 = [-(2n ** 63n), 2n ** 63n - 1n] as const;
const UINT64 = [0n, 2n ** 64n - 1n] as const;
const SAFE = BigInt(Number.MAX_SAFE_INTEGER);
/** The largest finite number of a `float`. */
const FLOAT_MAX = 3.4028234663852886e38;

/** Digits in groups of four; a last group of two or three may be padded. Both alphabets. */
const BASE64 = "^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?$";

const int64: ScalarDefinition = {
  kind: "scalar",
  name: "json-int64",
  schema: {
    description: "A 64-bit integer as a decimal string; a JSON integer is accepted up to 2^53 - 1.",
    ...wideRange(...INT64),
  },
};
const uint64: ScalarDefinition = {
  kind: "scalar",
  name: "json-uint64",
  schema: {
    description: "An unsigned 64-bit integer as a decimal string; a JSON integer is accepted up to 2^53 - 1.",
    ...wideRange(...UINT64),
  },
};
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
      return floatFragment(numericRules(rules, scalar), FLOAT_MAX, nonZero);
    case ScalarType.DOUBLE:
      return floatFragment(numericRules(rules, scalar), undefined, nonZero);
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return integerFragment(numericRules(rules, scalar), INT32, undefined, nonZero);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return integerFragment(numericRules(rules, scalar), UINT32, undefined, nonZero);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return integerFragment(numericRules(rules, scalar), INT64, int64, nonZero);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return integerFragment(numericRules(rules, scalar), UINT64, uint64, nonZero);
  }
}

/** The JSON form of map keys, which are always strings. Undefined: every string is one. */
export function mapKeySchema(scalar: ScalarType): JsonObject | undefined {
  switch (scalar) {
    case ScalarType.BOOL:
      return { enum: ["true", "false"] };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { pattern: anchored(integerRangePattern(...INT32)) };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { pattern: anchored(integerRangePattern(...UINT32)) };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return { pattern: anchored(integerRangePattern(...INT64)) };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { pattern: anchored(integerRangePattern(...UINT64)) };
    default:
      return undefined;
  }
}

/** Rules of integer map keys, which JSON holds as strings. */
export function mapKeyRules(scalar: ScalarType, rules: FieldRules): Fragment {
  if (scalar === ScalarType.STRING) {
    return stringFragment(valueRules(rules, "string"), false);
  }
  if (scalar === ScalarType.BOOL) {
    const constant = valueRules(rules, "bool")?.value("const");
    return fragment(constant === undefined ? {} : { const: String(constant) });
  }
  const numeric = numericRules(rules, scalar);
  if (numeric === undefined) {
    return fragment({});
  }
  const [low, high] = integerTypeRange(scalar);
  const patterns = integerRanges(numeric, low, high).map(([from, to]) => integerRangePattern(from, to));
  let schema: JsonObject = patterns.length === 0 ? { not: {} } : { pattern: anchored(patterns.join("|")) };
  if (numeric.const !== undefined) {
    schema = conjoin(schema, { const: String(numeric.const) });
  }
  if (numeric.in.length > 0) {
    schema = conjoin(schema, oneOfValues(numeric.in.map(String)));
  }
  if (numeric.notIn.length > 0) {
    schema = conjoin(schema, noneOfValues(numeric.notIn.map(String)));
  }
  return fragment(schema);
}

function integerTypeRange(scalar: ScalarType): readonly [bigint, bigint] {
  switch (scalar) {
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return UINT32;
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return INT64;
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return UINT64;
    default:
      return INT32;
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

function floatFragment(
  rules: NumericRules | undefined,
  limit: number | undefined,
  nonZero: boolean,
): Fragment {
  const finite: JsonObject = {
    type: "number",
    ...(limit === undefined ? {} : { minimum: -limit, maximum: limit }),
  };
  const ranges = rules === undefined ? [{}] : floatRanges(rules);
  const inRange = (value: number) => rules === undefined || ranges.some((range) => contains(range, value));
  let number: JsonObject =
    ranges.length === 1
      ? { ...finite, ...ranges[0] }
      : { anyOf: ranges.map((range) => ({ ...finite, ...range })) };
  // A rule may lie beyond what the type can hold.
  if (limit !== undefined && ranges.length === 1) {
    number = {
      ...number,
      ...(Number(number["minimum"]) < -limit ? { minimum: -limit } : {}),
      ...(Number(number["maximum"]) > limit ? { maximum: limit } : {}),
    };
  }
  let special = rules?.finite ? [] : ["NaN", "Infinity", "-Infinity"].filter((name) => inRange(Number(name)));
  let zeroAllowed = inRange(0);
  const choices = rules === undefined ? undefined : choicesOf(rules);
  if (choices !== undefined) {
    number = conjoin(number, oneOfValues(choices.map(Number).filter(Number.isFinite)));
    special = special.filter((name) => choices.some((choice) => String(choice) === name));
    zeroAllowed &&= choices.some((choice) => Number(choice) === 0);
  }
  const refused = rules?.notIn.map(Number) ?? [];
  if (refused.length > 0) {
    number = conjoin(number, noneOfValues(refused.filter(Number.isFinite)));
    special = special.filter((name) => !refused.some((value) => String(value) === name));
    zeroAllowed &&= !refused.includes(0);
  }
  if (nonZero) {
    number = conjoin(number, { not: { const: 0 } });
  }
  const schema = special.length === 0 ? number : { anyOf: [number, { type: "string", enum: special }] };
  return fragment(schema, { zeroAllowed });
}

function floatRanges({ low, high }: NumericRules): JsonObject[] {
  const above: JsonObject =
    low === undefined ? {} : { [low.exclusive ? "exclusiveMinimum" : "minimum"]: jsonNumber(low.value) };
  const below: JsonObject =
    high === undefined ? {} : { [high.exclusive ? "exclusiveMaximum" : "maximum"]: jsonNumber(high.value) };
  const outside = low !== undefined && high !== undefined && high.value < low.value;
  return outside ? [above, below] : [{ ...above, ...below }];
}

/** Infinite bounds have no JSON form; no finite number passes the largest one. */
function jsonNumber(value: number | bigint): number {
  return Math.min(Math.max(Number(value), -Number.MAX_VALUE), Number.MAX_VALUE);
}

function contains(range: JsonObject, value: number): boolean {
  const bounded = Object.keys(range).length > 0;
  if (Number.isNaN(value)) {
    return !bounded;
  }
  const { minimum = -Infinity, maximum = Infinity, exclusiveMinimum, exclusiveMaximum } = range;
  return (
    value >= Number(minimum) &&
    value <= Number(maximum) &&
    (exclusiveMinimum === undefined || value > Number(exclusiveMinimum)) &&
    (exclusiveMaximum === undefined || value < Number(exclusiveMaximum))
  );
}

/** `wide` is the definition that stands for the whole range of a 64-bit type. */
function integerFragment(
  rules: NumericRules | undefined,
  [low, high]: readonly [bigint, bigint],
  wide: ScalarDefinition | undefined,
  nonZero: boolean,
): Fragment {
  const spelled = (value: number | bigint): JsonValue[] => {
    const number = Number(value);
    return wide === undefined ? [number] : [String(value), ...(Number.isSafeInteger(number) ? [number] : [])];
  };
  const refuseZero: JsonObject = nonZero ? { not: { enum: spelled(0n) } } : {};
  if (rules === undefined) {
    const base = wide === undefined ? fragment(narrowRange(low, high)) : reference(wide);
    return { ...base, schema: { ...base.schema, ...refuseZero } };
  }
  const ranges = integerRanges(rules, low, high);
  const whole = ranges.length === 1 && ranges[0]?.[0] === low && ranges[0]?.[1] === high;
  const base =
    wide !== undefined && whole
      ? reference(wide)
      : fragment(
          union(ranges.map((range) => (wide === undefined ? narrowRange(...range) : wideRange(...range)))),
        );
  let schema = base.schema;
  let zeroAllowed = ranges.some(([from, to]) => from <= 0n && to >= 0n);
  const choices = choicesOf(rules);
  if (choices !== undefined) {
    schema = conjoin(schema, oneOfValues(choices.flatMap(spelled)));
    zeroAllowed &&= choices.some((choice) => Number(choice) === 0);
  }
  if (rules.notIn.length > 0) {
    schema = conjoin(schema, noneOfValues(rules.notIn.flatMap(spelled)));
    zeroAllowed &&= rules.notIn.every((value) => Number(value) !== 0);
  }
  return { ...base, schema: conjoin(schema, refuseZero), zeroAllowed };
}

/** The values that `const` and `in` leave; undefined when neither is set. */
function choicesOf({ const: constant, in: choices }: NumericRules): readonly (number | bigint)[] | undefined {
  if (constant === undefined) {
    return choices.length > 0 ? choices : undefined;
  }
  return choices.length === 0 || choices.includes(constant) ? [constant] : [];
}

/** Inclusive ranges; two of them where the upper bound lies below the lower one, which means "outside". */
function integerRanges(rules: NumericRules, least: bigint, most: bigint): [bigint, bigint][] {
  const { low, high } = rules;
  const from = low === undefined ? least : BigInt(low.value) + (low.exclusive ? 1n : 0n);
  const to = high === undefined ? most : BigInt(high.value) - (high.exclusive ? 1n : 0n);
  const outside = low !== undefined && high !== undefined && high.value < low.value;
  const ranges: [bigint, bigint][] = outside
    ? [
        [least, to],
        [from, most],
      ]
    : [[from, to]];
  return ranges
    .map(([a, b]): [bigint, bigint] => [a > least ? a : least, b < most ? b : most])
    .filter(([a, b]) => a <= b);
}

function narrowRange(low: bigint, high: bigint): JsonObject {
  return { type: "integer", minimum: Number(low), maximum: Number(high) };
}

function wideRange(low: bigint, high: bigint): JsonObject {
  const pattern = anchored(integerRangePattern(low, high));
  const minimum = low > -SAFE ? low : -SAFE;
  const maximum = high < SAFE ? high : SAFE;
  return minimum > maximum
    ? { type: "string", pattern }
    : { type: ["string", "integer"], pattern, minimum: Number(minimum), maximum: Number(maximum) };
}

function union(schemas: JsonObject[]): JsonObject {
  const [only] = schemas;
  if (only === undefined) {
    return { not: {} };
  }
  return schemas.length === 1 ? only : { anyOf: schemas };
}

function anchored(pattern: string): string {
  return `^(?:${pattern})$`;
}
