import { type JsonObject, ScalarType } from "@bufbuild/protobuf";
import type { FieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { conjoin, type Fragment, fragment, noneOfValues, oneOfValues } from "./fragment.ts";
import { anchored, integerRangePattern } from "./integer-range.ts";
import { integerRanges, integerTypeRange } from "./integer-schema.ts";
import { numericRules, valueRules } from "./rules.ts";
import { stringFragment } from "./string-schema.ts";

/** The JSON form of map keys, which are always strings. Undefined: every string is one. */
export function mapKeySchema(scalar: ScalarType): JsonObject | undefined {
  switch (scalar) {
    case ScalarType.BOOL:
      return { enum: ["true", "false"] };
    case ScalarType.STRING:
      return undefined;
    default:
      return { pattern: anchored(integerRangePattern(...integerTypeRange(scalar))) };
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
