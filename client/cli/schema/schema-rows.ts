import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isJsonObject } from "../input/json-text.ts";
import {
  alternativesOf,
  choicesOf,
  listOf,
  propertiesOf,
  requiredOf,
  resolveSchema,
  typesOf,
} from "./json-schema.ts";

/** A field of a message, as a line of a table. */
export interface SchemaRow {
  /** From the message's root: `place.lat`, `days[].high`, `labels[key]`. */
  readonly path: string;
  /** `string`, `integer (int32)`, `C | F`, `list of object`. */
  readonly type: string;
  /** Whether it has to be given: always, or when no other one of its group is. */
  readonly need: "required" | "one of" | "";
  readonly description: string;
}

/** How deep fields are listed at most, and from how many lines on they are listed less deeply. */
const MAX_DEPTH = 4;
const MANY_ROWS = 40;

/** The fields that a JSON Schema describes, nested ones below their parents, as deep as it stays readable. */
export function schemaRows(schema: JsonObject): SchemaRow[] {
  const root = resolveSchema(schema, schema);
  for (let depth = MAX_DEPTH; depth > 1; depth--) {
    const rows = rowsOf(root, schema, "", [], depth)
      .take(MANY_ROWS + 1)
      .toArray();
    if (rows.length <= MANY_ROWS) return rows;
  }
  return rowsOf(root, schema, "", [], 1).toArray();
}

/** What a schema asks for that describes no fields: text, a number, any object. Undefined when there is nothing to give. */
export function wholeValue(schema: JsonObject): { type: string; description: string } | undefined {
  const root = resolveSchema(schema, schema);
  if (typesOf(root).includes("object") && root["additionalProperties"] === false) return undefined;
  return { type: typeName(root, schema), description: describe(root, schema) };
}

function* rowsOf(
  schema: JsonObject,
  root: JsonObject,
  prefix: string,
  above: readonly (JsonValue | undefined)[],
  depth: number,
): Generator<SchemaRow, void, undefined> {
  const required = requiredOf(schema, root);
  const choices = new Set(choicesOf(schema, root).flat());
  const path = [...above, schema["properties"]];
  for (const [name, raw] of propertiesOf(schema, root)) {
    const property = resolveSchema(raw, root);
    const row: SchemaRow = {
      path: `${prefix}${name}`,
      type: typeName(property, root),
      need: required.has(name) ? "required" : choices.has(name) ? "one of" : "",
      description: describe(property, root),
    };
    yield row;
    const [inner, suffix] = innerSchema(property, root);
    // What stands above itself is a recursive message.
    if (depth > 1 && !path.includes(inner["properties"])) {
      yield* rowsOf(inner, root, `${row.path}${suffix}.`, path, depth - 1);
    }
  }
}

/** The schema of the messages within a list or a map, and how the path to them goes on. */
function innerSchema(schema: JsonObject, root: JsonObject): [JsonObject, string] {
  if ("items" in schema) return [resolveSchema(schema["items"], root), "[]"];
  if (isJsonObject(schema["additionalProperties"])) {
    return [resolveSchema(schema["additionalProperties"], root), "[key]"];
  }
  return [schema, ""];
}

/** The type of a value in a few words. */
function typeName(schema: JsonObject, root: JsonObject, depth = 0): string {
  const telling = tellingForms(alternativesOf(schema, root));
  return [...new Set(telling.map((form) => singleTypeName(form, root, depth)))].join(" | ");
}

/** The JSON of Protobuf has second forms for some values, which say nothing about their type. */
function tellingForms(forms: readonly JsonObject[]): readonly JsonObject[] {
  const numbers = forms.filter((form) => typesOf(form).some((type) => /^(number|integer)$/.test(type)));
  const others = forms.filter((form) => !numbers.includes(form));
  if (numbers.length === 0 || others.length === 0) return forms;
  // An enum's value may be its number, a number may be its digits or "NaN".
  const isEnum = others.some((form) => Array.isArray(form["enum"]) && !form["enum"].includes("NaN"));
  if (isEnum) return others;
  return others.every((form) => "enum" in form || "pattern" in form) ? numbers : forms;
}

function singleTypeName(schema: JsonObject, root: JsonObject, depth: number): string {
  if (schema["const"] !== undefined) return JSON.stringify(schema["const"]);
  const values = enumValues(schema);
  if (values.length > 0) return enumName(values);
  const types = typesOf(schema);
  if (types.includes("array")) {
    return depth < 2 ? `list of ${typeName(resolveSchema(schema["items"], root), root, depth + 1)}` : "list";
  }
  if (types.includes("object") && isJsonObject(schema["additionalProperties"]) && depth < 2) {
    return `map of ${typeName(resolveSchema(schema["additionalProperties"], root), root, depth + 1)}`;
  }
  const detail = INTEGER_RANGES.get(rangeKey(schema)) ?? schema["format"] ?? schema["contentEncoding"];
  return (types.join(" | ") || "any") + (typeof detail === "string" ? ` (${detail})` : "");
}

/** How much room the values of an enum may take. */
const MAX_ENUM = 40;

function enumValues(schema: JsonObject): string[] {
  return listOf(schema["enum"]).map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
}

function enumName(values: readonly string[]): string {
  let name = "";
  for (const [index, text] of values.entries()) {
    const longer = index === 0 ? text : `${name} | ${text}`;
    if (index > 0 && longer.length > MAX_ENUM) return `${name} | … ${values.length - index} more`;
    name = longer;
  }
  return name;
}

/** How many values of an enum are spelt out where its type has no room for them. */
const MAX_VALUES = 40;

/** All values of an enum, or of the items of a list, that the name of the type leaves out. */
function enumRule(schema: JsonObject, root: JsonObject): string {
  const items = typesOf(schema).includes("array") ? resolveSchema(schema["items"], root) : schema;
  const values = tellingForms(alternativesOf(items, root)).flatMap(enumValues);
  if (values.length === 0 || !enumName(values).includes("…")) return "";
  const left = values.length - MAX_VALUES;
  return `one of ${values.slice(0, MAX_VALUES).join(", ")}${left > 0 ? ` and ${left} more` : ""}`;
}

/** Bounds that say no more than the type. */
const INTEGER_RANGES: ReadonlyMap<string, string> = new Map([
  [`${-(2 ** 31)} ${2 ** 31 - 1}`, "int32"],
  [`0 ${2 ** 32 - 1}`, "uint32"],
  [`${-Number.MAX_SAFE_INTEGER} ${Number.MAX_SAFE_INTEGER}`, "int64"],
  [`0 ${Number.MAX_SAFE_INTEGER}`, "uint64"],
]);

function rangeKey({ minimum, maximum }: JsonObject): string {
  return `${minimum} ${maximum}`;
}

/** Patterns longer than that are for machines. */
const MAX_PATTERN = 32;

/** The description and what else a value has to obey. */
function describe(schema: JsonObject, root: JsonObject): string {
  const { description, pattern, format } = schema;
  const isPlainInteger = INTEGER_RANGES.has(rangeKey(schema));
  const isReadable = typeof pattern === "string" && pattern.length <= MAX_PATTERN && format === undefined;
  const rules = [
    enumRule(schema, root),
    ...(isPlainInteger ? [] : [bound("from", schema["minimum"]), bound("up to", schema["maximum"])]),
    bound("above", schema["exclusiveMinimum"]),
    bound("below", schema["exclusiveMaximum"]),
    length("at least", schema["minLength"], "character"),
    length("at most", schema["maxLength"], "character"),
    length("at least", schema["minItems"], "item"),
    length("at most", schema["maxItems"], "item"),
    isReadable ? `matching ${pattern}` : "",
    schema["default"] === undefined ? "" : `default ${JSON.stringify(schema["default"])}`,
  ].filter((rule) => rule !== "");
  return [
    typeof description === "string" ? description : "",
    rules.length === 0 ? "" : `(${rules.join(", ")})`,
    schema["deprecated"] === true ? "(deprecated)" : "",
  ]
    .filter((part) => part !== "")
    .join(" ");
}

function bound(word: string, value: JsonValue | undefined): string {
  return typeof value === "number" ? `${word} ${value}` : "";
}

function length(word: string, value: JsonValue | undefined, unit: string): string {
  if (typeof value !== "number") return "";
  if (word === "at least" && value === 1) return "not empty";
  return `${word} ${value} ${unit}${value === 1 ? "" : "s"}`;
}
