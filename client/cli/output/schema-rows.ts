import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** A field of a message, as a line of a table. */
export interface SchemaRow {
  /** From the message's root: `place.lat`, `days[].high`. */
  readonly path: string;
  /** `string`, `integer (int32)`, `"C" | "F"`, `list of object`. */
  readonly type: string;
  readonly required: boolean;
  readonly description: string;
}

/** How deep fields are listed. Below that, the type says `object`. */
const MAX_DEPTH = 4;

/** The fields that a JSON Schema describes, nested ones below their parents. */
export function schemaRows(schema: JsonObject): SchemaRow[] {
  return rowsOf(schema, schema, "", []);
}

/** The schema itself, after following its `$ref`. Only references within the document are known. */
export function resolveSchema(schema: JsonValue | undefined, root: JsonObject): JsonObject {
  let current = schema;
  // A chain of references that long is a circle.
  for (let hops = 0; isObject(current) && typeof current["$ref"] === "string" && hops < 16; hops++) {
    const { $ref, ...siblings } = current;
    const target = lookUp(String($ref), root);
    current = target === undefined ? siblings : { ...target, ...siblings };
  }
  return isObject(current) ? current : {};
}

/** The properties of an object's schema, those of `allOf` too. */
export function propertiesOf(schema: JsonObject, root: JsonObject): Record<string, JsonObject> {
  const own = isObject(schema["properties"]) ? schema["properties"] : {};
  const parts = asList(schema["allOf"]).map((part) => propertiesOf(resolveSchema(part, root), root));
  const resolved = Object.entries(own).map(([name, value]) => [name, isObject(value) ? value : {}]);
  return Object.assign({}, ...parts, Object.fromEntries(resolved));
}

export function requiredOf(schema: JsonObject): string[] {
  return asList(schema["required"]).filter((name) => typeof name === "string");
}

function rowsOf(
  schema: JsonObject,
  root: JsonObject,
  prefix: string,
  above: readonly JsonObject[],
): SchemaRow[] {
  const required = new Set(requiredOf(schema));
  return Object.entries(propertiesOf(schema, root)).flatMap(([name, raw]) => {
    const property = resolveSchema(raw, root);
    const path = `${prefix}${name}`;
    const row = {
      path,
      type: typeName(property, root),
      required: required.has(name),
      description: describe(property),
    };
    const [inner, suffix] = innerObject(property, root);
    // The list of what is above also ends recursive messages.
    if (above.length >= MAX_DEPTH || above.includes(inner)) return [row];
    return [row, ...rowsOf(inner, root, `${path}${suffix}.`, [...above, inner])];
  });
}

/** The schema of the messages within a list or a map, and how the path to them goes on. */
function innerObject(schema: JsonObject, root: JsonObject): [JsonObject, string] {
  if (schema["items"] !== undefined) return [resolveSchema(schema["items"], root), "[]"];
  if (isObject(schema["additionalProperties"]))
    return [resolveSchema(schema["additionalProperties"], root), "[key]"];
  return [schema, ""];
}

/** The type of a value in a few words. */
export function typeName(schema: JsonObject, root: JsonObject, depth = 0): string {
  const alternatives = [...asList(schema["oneOf"]), ...asList(schema["anyOf"])];
  if (schema["const"] !== undefined) return JSON.stringify(schema["const"]);
  if (Array.isArray(schema["enum"])) return enumName(schema["enum"]);
  if (alternatives.length > 0 && schema["type"] === undefined && depth < 3) {
    const names = alternatives.map((each) => typeName(resolveSchema(each, root), root, depth + 1));
    return [...new Set(names)].join(" | ");
  }
  const types = Array.isArray(schema["type"]) ? schema["type"] : [schema["type"] ?? guessType(schema)];
  return types.map((type) => singleTypeName(String(type), schema, root, depth)).join(" | ");
}

function singleTypeName(type: string, schema: JsonObject, root: JsonObject, depth: number): string {
  if (type === "array") {
    return depth < 3 ? `list of ${typeName(resolveSchema(schema["items"], root), root, depth + 1)}` : "list";
  }
  if (type === "object" && isObject(schema["additionalProperties"]) && depth < 3) {
    return `map of ${typeName(resolveSchema(schema["additionalProperties"], root), root, depth + 1)}`;
  }
  const format = schema["format"] ?? schema["contentEncoding"];
  return typeof format === "string" ? `${type} (${format})` : type;
}

function enumName(values: readonly JsonValue[]): string {
  const shown = values
    .slice(0, 6)
    .map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
  return (
    shown.join(" | ") + (values.length > shown.length ? ` | … ${values.length - shown.length} more` : "")
  );
}

function guessType(schema: JsonObject): string {
  if (schema["properties"] !== undefined || schema["allOf"] !== undefined) return "object";
  return schema["items"] === undefined ? "any" : "array";
}

/** The description and the bounds. */
function describe(schema: JsonObject): string {
  const text = typeof schema["description"] === "string" ? schema["description"] : "";
  const bounds = [
    bound("from", schema["minimum"]),
    bound("above", schema["exclusiveMinimum"]),
    bound("up to", schema["maximum"]),
    bound("below", schema["exclusiveMaximum"]),
    bound(
      "at least",
      schema["minLength"] ?? schema["minItems"],
      schema["minItems"] === undefined ? " characters" : " items",
    ),
    bound(
      "at most",
      schema["maxLength"] ?? schema["maxItems"],
      schema["maxItems"] === undefined ? " characters" : " items",
    ),
    typeof schema["pattern"] === "string" ? `matches ${schema["pattern"]}` : "",
    schema["default"] === undefined ? "" : `default ${JSON.stringify(schema["default"])}`,
  ].filter((each) => each !== "");
  return [text, bounds.length === 0 ? "" : `(${bounds.join(", ")})`].filter((each) => each !== "").join(" ");
}

function bound(word: string, value: JsonValue | undefined, unit = ""): string {
  return typeof value === "number" ? `${word} ${value}${unit}` : "";
}

function lookUp(ref: string, root: JsonObject): JsonObject | undefined {
  if (!ref.startsWith("#")) return undefined;
  let current: JsonValue | undefined = root;
  for (const part of ref.slice(1).split("/").filter(Boolean)) {
    if (!isObject(current)) return undefined;
    current = current[decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  return isObject(current) ? current : undefined;
}

function asList(value: JsonValue | undefined): JsonValue[] {
  return Array.isArray(value) ? value : [];
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
