import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Io } from "../io.ts";
import { alternativesOf, propertiesOf, resolveSchema, typesOf } from "../schema/json-schema.ts";
import { UsageError } from "../usage-error.ts";
import { isJsonObject, parseJson, parseJsonObject } from "./json-text.ts";
import { readLines, readText } from "./read.ts";

/** The most messages that one call takes. */
const MAX_MESSAGES = 10_000;

/** Reads the arguments of a tool that takes one message: nothing, JSON, `@file`, `-`, or pairs. */
export async function readArguments(
  words: readonly string[],
  schema: JsonObject,
  io: Io,
): Promise<JsonObject> {
  const [first] = words;
  if (first === undefined) return {};
  const document = words.length === 1 ? await readDocument(first, io) : undefined;
  if (document !== undefined) return parseJsonObject(document.text, document.name);
  return await readPairs(words, schema, io);
}

/**
 * Reads the messages of a tool that takes a stream: one JSON document a line from stdin or a file, a JSON list, or one
 * message as for other tools.
 */
export async function readArgumentStream(
  words: readonly string[],
  schema: JsonObject,
  io: Io,
): Promise<JsonObject[]> {
  const [first = "-"] = words;
  if (words.length > 1) return [await readPairs(words, schema, io)];
  const messages: JsonObject[] = [];
  const add = (value: JsonValue, name: string) => {
    if (!isJsonObject(value)) throw new UsageError(`${name} must be a JSON object`);
    if (messages.length === MAX_MESSAGES)
      throw new UsageError(`A call takes at most ${MAX_MESSAGES} messages`);
    messages.push(value);
  };
  if (first === "-") {
    let line = 0;
    for await (const text of readLines(io))
      add(parseJson(text, `Line ${++line} of stdin`), `Line ${line} of stdin`);
    return messages;
  }
  const document = await readDocument(first, io);
  if (document === undefined) return [await readPairs(words, schema, io)];
  const { text, name } = document;
  if (/^\s*\[/.test(text)) {
    const list = parseJson(text, name);
    for (const [index, value] of (Array.isArray(list) ? list : []).entries())
      add(value, `Message ${index + 1} of ${name}`);
  } else if (first.startsWith("@")) {
    const lines = text.split("\n").filter((each) => each.trim() !== "");
    for (const [index, each] of lines.entries())
      add(parseJson(each, `Line ${index + 1} of ${name}`), `Line ${index + 1} of ${name}`);
  } else add(parseJson(text, name), name);
  return messages;
}

/** The JSON that a single word means, or undefined when it is a pair. */
async function readDocument(word: string, io: Io): Promise<{ text: string; name: string } | undefined> {
  if (word === "-") return { text: await readText("-", io), name: "Stdin" };
  if (word.startsWith("@")) return { text: await readText(word.slice(1), io), name: word.slice(1) };
  if (/^\s*[{["]/.test(word) || isJsonScalar(word)) return { text: word, name: "The argument" };
  return undefined;
}

function isJsonScalar(word: string): boolean {
  return /^(true|false|null)$/.test(word) || NUMBER.test(word);
}

const PAIR = /^(?<key>[^=:]+(?::(?!=)[^=:]*)*)(?<operator>:?=)(?<value>.*)$/s;

/** Reads `key=text`, `key:=json`, `key=@file` and `key:=@file.json`; dots in keys go into nested messages. */
async function readPairs(words: readonly string[], schema: JsonObject, io: Io): Promise<JsonObject> {
  const result: JsonObject = {};
  for (const word of words) {
    const { key, operator, value } = PAIR.exec(word)?.groups ?? {};
    if (key === undefined || value === undefined) {
      throw new UsageError(
        `"${word}" is neither JSON nor a pair`,
        `Write arguments as key=text or key:=json, such as city=Berlin days:=3, or as '{"city": "Berlin"}'.`,
      );
    }
    const text = value.startsWith("@") ? await readText(value.slice(1), io) : value;
    const path = key.split(".");
    const target = schemaAt(path, schema);
    const isList = typesOf(target).includes("array");
    const parsed =
      operator === ":="
        ? parseJson(text, `The value of ${key}`)
        : coerce(text, isList ? resolveSchema(target["items"], schema) : target, schema);
    put(result, path, parsed, isList && operator === "=", word);
  }
  return result;
}

/** Text as the type that the schema asks for; text that is no such value stays text, and the server says what is wrong. */
function coerce(text: string, schema: JsonObject, root: JsonObject): JsonValue {
  const forms = alternativesOf(schema, root);
  // Numbers have forms as text too, such as "NaN"; those are limited to a list or a pattern.
  const takesAnyText = forms.some(
    (form) => typesOf(form).includes("string") && !("enum" in form) && !("pattern" in form),
  );
  if (takesAnyText) return text;
  const types = forms.flatMap(typesOf);
  if (types.includes("boolean") && (text === "true" || text === "false")) return text === "true";
  if ((types.includes("integer") || types.includes("number")) && NUMBER.test(text)) {
    return parseJson(text, "The number");
  }
  if (types.includes("object") && /^\s*\{/.test(text)) return parseJson(text, "The object");
  return text;
}

/** A number as JSON writes it. */
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

function schemaAt(path: readonly string[], root: JsonObject): JsonObject {
  let schema = resolveSchema(root, root);
  for (const name of path) {
    const properties = propertiesOf(schema, root);
    // Protobuf takes a field's own name as well as the one in JSON.
    const jsonName = name.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
    schema = resolveSchema(properties.get(name) ?? properties.get(jsonName), root);
  }
  return schema;
}

function put(
  target: JsonObject,
  path: readonly string[],
  value: JsonValue,
  append: boolean,
  word: string,
): void {
  let parent = target;
  for (const name of path.slice(0, -1)) {
    const next = own(parent, name) ?? {};
    if (!isJsonObject(next))
      throw new UsageError(`"${word}" goes into ${name}, which was given a value of its own`);
    define(parent, name, next);
    parent = next;
  }
  const last = path.at(-1) ?? "";
  const earlier = own(parent, last);
  if (append) define(parent, last, [...(Array.isArray(earlier) ? earlier : []), value]);
  else if (earlier !== undefined) throw new UsageError(`${path.join(".")} is given twice`);
  else define(parent, last, value);
}

// `__proto__` is a name like any other.
function own(object: JsonObject, name: string): JsonValue | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

function define(object: JsonObject, name: string, value: JsonValue): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}
