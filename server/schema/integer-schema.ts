import { type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import {
  conjoin,
  type Fragment,
  fragment,
  noneOfValues,
  oneOfValues,
  reference,
  type ScalarDefinition,
} from "./fragment.ts";
import { anchored, integerRangePattern } from "./integer-range.ts";
import { choicesOf, type NumericRules } from "./rules.ts";

const INT32 = [-(2n ** 31n), 2n ** 31n - 1n] as const;
const UINT32 = [0n, 2n ** 32n - 1n] as const;
const INT64 = [-(2n ** 63n), 2n ** 63n - 1n] as const;
const UINT64 = [0n, 2n ** 64n - 1n] as const;
const SAFE = BigInt(Number.MAX_SAFE_INTEGER);

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

/** The least and the greatest value that an integer type has. */
export function integerTypeRange(scalar: ScalarType): readonly [bigint, bigint] {
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

/** The JSON form of an integer under the rules of its field: a number, or a string where it has 64 bits. */
export function integerFragment(
  scalar: ScalarType,
  rules: NumericRules | undefined,
  nonZero: boolean,
): Fragment {
  const [low, high] = integerTypeRange(scalar);
  const wide = high > UINT32[1] ? (low < 0n ? int64 : uint64) : undefined;
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

/** Inclusive ranges; two of them where the upper bound lies below the lower one, which means "outside". */
export function integerRanges(rules: NumericRules, least: bigint, most: bigint): [bigint, bigint][] {
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
