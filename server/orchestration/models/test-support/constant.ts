import type { JsonValue } from "@bufbuild/protobuf";
import type { Template } from "../../expressions/expression.ts";

/** A template without expressions. */
export function constant(value: JsonValue): Template {
  return { references: { steps: [], variables: new Set() }, isConstant: true, evaluate: () => value };
}
