import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { UsageError } from "../usage-error.ts";

/**
 * Parses JSON. Integers that a double cannot hold become strings with the same digits, which is how 64-bit integers are
 * written in the JSON of Protobuf.
 */
export function parseJson(text: string, what: string): JsonValue {
  if (text.trim() === "") throw new UsageError(`${what} is empty, and was to be JSON`);
  try {
    const value: JsonValue = JSON.parse(text, keepDigits);
    if (isDeeper(value, MAX_DEPTH)) throw new RangeError();
    return value;
  } catch (error) {
    // The parser itself runs out of stack on even deeper ones.
    if (error instanceof RangeError)
      throw new UsageError(`${what} is nested more than ${MAX_DEPTH} levels deep`);
    throw new UsageError(`${what} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Protobuf reads messages up to 100 levels deep, of which every level of JSON takes at least one. */
const MAX_DEPTH = 100;

function isDeeper(value: JsonValue, depth: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return depth === 0 || Object.values(value).some((each) => isDeeper(each, depth - 1));
}

export function parseJsonObject(text: string, what: string): JsonObject {
  const value = parseJson(text, what);
  if (!isJsonObject(value)) throw new UsageError(`${what} must be a JSON object such as {"city": "Berlin"}`);
  return value;
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** https://tc39.es/proposal-json-parse-with-source: the third argument holds the text of a primitive value. */
function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== "number" || source === undefined) return value;
  if (/^-?\d+$/.test(source) && !Number.isSafeInteger(value)) return source;
  if (!Number.isFinite(value)) throw new Error(`the number ${source} is too large`);
  return value;
}
