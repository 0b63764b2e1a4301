import { type JsonObject, ScalarType } from "@bufbuild/protobuf";
import { conjoin, type Fragment, fragment, noneOfValues, oneOfValues } from "./fragment.ts";
import { choicesOf, type NumericRules } from "./rules.ts";

/** The largest finite number of a `float`. */
const FLOAT_MAX = 3.4028234663852886e38;

/** The JSON form of a floating-point number under the rules of its field: a number or the name of a special value. */
export function floatFragment(
  scalar: ScalarType.FLOAT | ScalarType.DOUBLE,
  rules: NumericRules | undefined,
  nonZero: boolean,
): Fragment {
  const limit = scalar === ScalarType.FLOAT ? FLOAT_MAX : undefined;
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
