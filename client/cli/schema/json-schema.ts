import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isJsonObject } from "../input/json-text.ts";

// Reads the JSON Schemas (2020-12) that tools come with. Nothing here trusts them to be complete or finite.

/** The schema itself, after following its `$ref`. Only references within the document are known. */
export function resolveSchema(schema: JsonValue | undefined, root: JsonObject): JsonObject {
  let current = schema;
  // A chain of references that long is a circle.
  for (let hops = 0; isJsonObject(current) && typeof current["$ref"] === "string" && hops < 16; hops++) {
    const { $ref, ...siblings } = current;
    current = { ...lookUp(String($ref), root), ...siblings };
  }
  return isJsonObject(current) ? current : {};
}

/** The properties of an object's schema, those of `allOf` too. */
export function propertiesOf(schema: JsonObject, root: JsonObject): ReadonlyMap<string, JsonObject> {
  const properties = new Map<string, JsonObject>();
  for (const part of partsOf(schema, root)) {
    if (!isJsonObject(part["properties"])) continue;
    for (const [name, property] of Object.entries(part["properties"])) {
      properties.set(name, isJsonObject(property) ? property : {});
    }
  }
  return properties;
}

export function requiredOf(schema: JsonObject, root: JsonObject): ReadonlySet<string> {
  return new Set(partsOf(schema, root).flatMap((part) => names(part["required"])));
}

/** Groups of properties of which exactly one has to be there, such as the fields of a required Protobuf oneof. */
export function choicesOf(schema: JsonObject, root: JsonObject): string[][] {
  return partsOf(schema, root).flatMap((part) => {
    const alternatives = listOf(part["oneOf"]).filter(isJsonObject);
    const isChoice =
      alternatives.length > 1 && alternatives.every((each) => Object.keys(each).join() === "required");
    return isChoice ? [alternatives.flatMap((each) => names(each["required"]))] : [];
  });
}

/** The schemas of the forms that one value may take. */
export function alternativesOf(schema: JsonObject, root: JsonObject): JsonObject[] {
  const forms: JsonObject[] = [];
  collectForms(schema, root, new Set(), forms);
  return forms;
}

/** More forms than that tell nobody anything. */
const MAX_FORMS = 32;

function collectForms(schema: JsonObject, root: JsonObject, seen: Set<JsonValue>, forms: JsonObject[]): void {
  const alternatives = [...listOf(schema["oneOf"]), ...listOf(schema["anyOf"])];
  // With a type or properties of its own, alternatives only restrict it.
  if (alternatives.length === 0 || "type" in schema || "properties" in schema) {
    forms.push(schema);
    return;
  }
  for (const alternative of alternatives) {
    if (forms.length >= MAX_FORMS || seen.has(alternative)) continue;
    seen.add(alternative);
    collectForms(resolveSchema(alternative, root), root, seen, forms);
  }
}

export function typesOf(schema: JsonObject): string[] {
  const { type } = schema;
  if (type !== undefined) return (Array.isArray(type) ? type : [type]).map(String);
  if ("properties" in schema || "allOf" in schema) return ["object"];
  return "items" in schema ? ["array"] : [];
}

export function listOf(value: JsonValue | undefined): JsonValue[] {
  return Array.isArray(value) ? value : [];
}

/** The schema and everything that its `allOf` adds. */
function partsOf(schema: JsonObject, root: JsonObject): JsonObject[] {
  const parts = [schema];
  const seen = new Set<JsonValue>();
  // The list is iterated while it grows.
  for (const part of parts) {
    for (const added of listOf(part["allOf"])) {
      if (seen.has(added)) continue;
      seen.add(added);
      parts.push(resolveSchema(added, root));
    }
  }
  return parts;
}

function names(value: JsonValue | undefined): string[] {
  return listOf(value).filter((name) => typeof name === "string");
}

/** Follows a JSON pointer (RFC 6901) in a fragment. */
function lookUp(ref: string, root: JsonObject): JsonObject | undefined {
  if (!ref.startsWith("#")) return undefined;
  let current: JsonValue | undefined = root;
  for (const part of ref.slice(1).split("/").filter(Boolean)) {
    const name = decodePart(part);
    if (!isJsonObject(current) || !Object.hasOwn(current, name)) return undefined;
    current = current[name];
  }
  return isJsonObject(current) ? current : undefined;
}

function decodePart(part: string): string {
  return percentDecoded(part).replaceAll("~1", "/").replaceAll("~0", "~");
}

function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A `%` that encodes nothing stands for itself.
    return text;
  }
}
