import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isObject } from "./json.ts";

/** Keywords of older dialects, and of OpenAPI 3.0, as 2020-12 writes them. */
export function modernise(schema: JsonObject): JsonObject {
  const modern: Record<string, JsonValue> = { ...schema };
  if (Array.isArray(modern["items"])) {
    modern["prefixItems"] = modern["items"];
    delete modern["items"];
    if (modern["additionalItems"] !== undefined) {
      modern["items"] = modern["additionalItems"];
    }
  }
  if (isObject(modern["dependencies"])) {
    const entries = Object.entries(modern["dependencies"]);
    modern["dependentRequired"] = Object.fromEntries(entries.filter(([, value]) => Array.isArray(value)));
    modern["dependentSchemas"] = Object.fromEntries(entries.filter(([, value]) => !Array.isArray(value)));
  }
  for (const [exclusive, inclusive] of [
    ["exclusiveMinimum", "minimum"],
    ["exclusiveMaximum", "maximum"],
  ] as const) {
    const flag = modern[exclusive];
    if (typeof flag === "boolean") {
      delete modern[exclusive];
      const bound = modern[inclusive];
      if (flag && bound !== undefined) {
        modern[exclusive] = bound;
      }
    }
  }
  if (modern["nullable"] === true && modern["type"] !== undefined) {
    modern["type"] = [...new Set([modern["type"], "null"].flat())];
    if (Array.isArray(modern["enum"])) {
      modern["enum"] = [...modern["enum"], null];
    }
  }
  if (modern["$recursiveRef"] !== undefined || modern["$dynamicRef"] !== undefined) {
    modern["$ref"] ??= modern["$dynamicRef"] ?? "#";
  }
  return modern;
}
