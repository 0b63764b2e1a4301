import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { takesStream } from "../output/states.ts";
import {
  alternativesOf,
  choicesOf,
  listOf,
  propertiesOf,
  requiredOf,
  resolveSchema,
  typesOf,
} from "./json-schema.ts";

/** A call of the tool to copy: with its required arguments, or a few where none is required. */
export function exampleCall(tool: Tool): string {
  const name = tool.alias || tool.name;
  const schema = tool.inputSchema ?? {};
  const args = exampleObject(resolveSchema(schema, schema), { root: schema, values: 0 }, 0);
  if (takesStream(tool.streaming)) return `echo ${quote(JSON.stringify(args))} | toolplane call ${name} -`;
  const pairs = Object.entries(args).map(([key, value]) => pair(key, value));
  return ["toolplane call", name, ...pairs].join(" ");
}

/** The command that runs a workflow, with input that its schema allows. */
export function exampleRun(name: string, schema: JsonObject | undefined): string {
  const root = schema ?? {};
  const input = exampleObject(resolveSchema(root, root), { root, values: 0 }, 0);
  return [
    "toolplane workflow run",
    name,
    ...Object.entries(input).map(([key, value]) => pair(key, value)),
  ].join(" ");
}

/** How many optional arguments an example shows where none is required. */
const OPTIONAL_SHOWN = 3;

/** How deep an example goes into nested messages, and how many values it holds. */
const MAX_DEPTH = 4;
const MAX_VALUES = 64;

/** How many items the list of an example has at most. */
const MAX_ITEMS = 8;

/** What all parts of one example share. */
interface Draft {
  readonly root: JsonObject;
  values: number;
}

function exampleObject(schema: JsonObject, draft: Draft, depth: number): JsonObject {
  const { root } = draft;
  const properties = [...propertiesOf(schema, root)];
  const needed = new Set([
    ...requiredOf(schema, root),
    ...choicesOf(schema, root).flatMap(([first]) => (first === undefined ? [] : [first])),
  ]);
  const chosen =
    needed.size > 0
      ? properties.filter(([name]) => needed.has(name))
      : properties.slice(0, depth === 0 ? OPTIONAL_SHOWN : 1);
  return Object.fromEntries(
    chosen.map(([name, property]) => [name, exampleValue(resolveSchema(property, root), draft, depth)]),
  );
}

function exampleValue(whole: JsonObject, draft: Draft, depth: number): JsonValue {
  const { root } = draft;
  const isDeep = depth >= MAX_DEPTH || ++draft.values > MAX_VALUES;
  const [schema = whole] = alternativesOf(whole, root);
  const [example] = listOf(whole["examples"]);
  const given = whole["const"] ?? schema["const"] ?? example ?? whole["default"];
  if (given !== undefined) return given;
  const values = listOf(schema["enum"]);
  // The zero value of a Protobuf enum rarely says anything.
  if (values.length > 0)
    return values.find((value) => !/_UNSPECIFIED$/.test(String(value))) ?? values[0] ?? "";
  switch (typesOf(schema)[0]) {
    case "integer":
    case "number":
      return exampleNumber(schema);
    case "boolean":
      return true;
    case "array":
      return isDeep ? [] : exampleList(schema, draft, depth);
    case "object":
      return isDeep ? {} : exampleObject(schema, draft, depth + 1);
    default:
      return exampleString(schema);
  }
}

/** One item, or as many as there must be. Numbers and texts count up, where all have to differ. */
function exampleList({ items, minItems }: JsonObject, draft: Draft, depth: number): JsonValue[] {
  const length = typeof minItems === "number" ? Math.min(Math.max(minItems, 1), MAX_ITEMS) : 1;
  return Array.from({ length }, (_, index) => {
    const value = exampleValue(resolveSchema(items, draft.root), draft, depth + 1);
    if (index === 0) return value;
    if (typeof value === "number") return value + index;
    return typeof value === "string" ? `${value}${index + 1}` : value;
  });
}

function exampleNumber({ minimum, exclusiveMinimum, maximum }: JsonObject): number {
  if (typeof minimum === "number" && minimum > 1) return minimum;
  if (typeof exclusiveMinimum === "number" && exclusiveMinimum >= 1) return exclusiveMinimum + 1;
  return typeof maximum === "number" && maximum < 1 ? maximum : 1;
}

const FORMATS: Readonly<Record<string, string>> = {
  "date-time": "2030-01-31T12:00:00Z",
  date: "2030-01-31",
  time: "12:00:00Z",
  duration: "3.5s",
  uuid: "00000000-0000-4000-8000-000000000000",
  email: "someone@example.com",
  uri: "https://example.com",
  hostname: "example.com",
  ipv4: "127.0.0.1",
  ipv6: "::1",
};

/** Short texts, so that trying them on a pattern from elsewhere takes no time, whatever the pattern is. */
const SHORT_TEXTS = ["text", "1", "1.5s", "1.0.0", "/path", "name:80", "A", "12:00:00Z", "2030-01-31"];

function exampleString(schema: JsonObject): string {
  const { format, pattern, contentEncoding } = schema;
  if (typeof format === "string" && FORMATS[format] !== undefined) return FORMATS[format];
  if (contentEncoding === "base64") return "aGVsbG8=";
  if (typeof pattern !== "string") return "text";
  try {
    const expression = new RegExp(pattern, "u");
    return SHORT_TEXTS.find((text) => expression.test(text)) ?? "text";
  } catch {
    // Not an expression of this language; an example need not be perfect.
    return "text";
  }
}

function pair(key: string, value: JsonValue): string {
  return quote(typeof value === "string" ? `${key}=${value}` : `${key}:=${JSON.stringify(value)}`);
}

/** Quotes a word for a POSIX shell, where it needs quotes. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
