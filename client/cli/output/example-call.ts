import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { propertiesOf, requiredOf, resolveSchema } from "./schema-rows.ts";
import { takesStream } from "./states.ts";

/** A call of the tool to copy: with its required arguments, or a few where none is required. */
export function exampleCall(tool: Tool): string {
  const name = tool.alias || tool.name;
  const schema = tool.inputSchema ?? {};
  const args = exampleObject(resolveSchema(schema, schema), schema, 0);
  if (takesStream(tool.streaming)) return `echo ${quote(JSON.stringify(args))} | toolplane call ${name} -`;
  const pairs = Object.entries(args).map(([key, value]) => pair(key, value));
  return ["toolplane call", name, ...pairs].join(" ");
}

/** How many optional arguments an example shows where none is required. */
const OPTIONAL_SHOWN = 3;

/** How deep an example goes into nested messages. */
const MAX_DEPTH = 3;

function exampleObject(schema: JsonObject, root: JsonObject, depth: number): JsonObject {
  const properties = Object.entries(propertiesOf(schema, root));
  const required = new Set(requiredOf(schema));
  const chosen =
    required.size > 0
      ? properties.filter(([name]) => required.has(name))
      : properties.slice(0, depth === 0 ? OPTIONAL_SHOWN : 2);
  return Object.fromEntries(
    chosen.map(([name, property]) => [name, exampleValue(name, resolveSchema(property, root), root, depth)]),
  );
}

function exampleValue(name: string, schema: JsonObject, root: JsonObject, depth: number): JsonValue {
  const given = [schema["const"], schema["default"], first(schema["examples"])].find(
    (each) => each !== undefined,
  );
  if (given !== undefined) return given;
  if (Array.isArray(schema["enum"])) {
    // The zero value of a Protobuf enum rarely says anything.
    const telling = schema["enum"].find((value) => !/_UNSPECIFIED$/.test(String(value)));
    return telling ?? schema["enum"][0] ?? "";
  }
  const alternative = first(schema["oneOf"]) ?? first(schema["anyOf"]);
  if (alternative !== undefined && depth < MAX_DEPTH) {
    return exampleValue(name, resolveSchema(alternative, root), root, depth + 1);
  }
  const type = Array.isArray(schema["type"]) ? schema["type"][0] : schema["type"];
  switch (type) {
    case "integer":
    case "number":
      return exampleNumber(schema);
    case "boolean":
      return true;
    case "array":
      return depth < MAX_DEPTH
        ? [exampleValue(name, resolveSchema(schema["items"], root), root, depth + 1)]
        : [];
    case "string":
      return exampleString(name, schema);
    default:
      return depth < MAX_DEPTH ? exampleObject(schema, root, depth + 1) : {};
  }
}

function exampleNumber(schema: JsonObject): number {
  const { minimum, exclusiveMinimum, maximum } = schema;
  if (typeof minimum === "number" && minimum > 1) return minimum;
  if (typeof exclusiveMinimum === "number" && exclusiveMinimum >= 1) return exclusiveMinimum + 1;
  return typeof maximum === "number" && maximum < 1 ? maximum : 1;
}

function exampleString(name: string, schema: JsonObject): string {
  switch (schema["format"]) {
    case "date-time":
      return "2030-01-31T12:00:00Z";
    case "date":
      return "2030-01-31";
    case "duration":
      return "3.5s";
    case "uuid":
      return "00000000-0000-4000-8000-000000000000";
    case "email":
      return "someone@example.com";
    case "uri":
      return "https://example.com";
    default:
      if (schema["contentEncoding"] === "base64") return "aGVsbG8=";
      // 64-bit integers travel as text.
      return /int64/.test(String(schema["format"])) || /\\d|\[0-9\]/.test(String(schema["pattern"]))
        ? "1"
        : name;
  }
}

function pair(key: string, value: JsonValue): string {
  return quote(typeof value === "string" ? `${key}=${value}` : `${key}:=${JSON.stringify(value)}`);
}

/** Quotes a word for a POSIX shell, where it needs quotes. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function first(value: JsonValue | undefined): JsonValue | undefined {
  return Array.isArray(value) ? value[0] : undefined;
}
