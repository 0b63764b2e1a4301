import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The items of an array; none when it is something else. */
export function items(value: JsonValue | undefined): JsonValue[] {
  return Array.isArray(value) ? value : [];
}

/** What a reference such as `#/$defs/acme.City` leads to within its own document; undefined where nothing is. */
export function pointedAt(reference: string, root: JsonObject): JsonValue | undefined {
  if (reference === "" || reference === "#") {
    return root;
  }
  if (!reference.startsWith("#/")) {
    return undefined;
  }
  let target: JsonValue | undefined = root;
  for (const part of decode(reference.slice(2)).split("/")) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (typeof target !== "object" || target === null || !Object.hasOwn(target, key)) {
      return undefined;
    }
    target = Array.isArray(target) ? target[Number(key)] : target[key];
  }
  return target;
}

function decode(pointer: string): string {
  try {
    return decodeURIComponent(pointer);
  } catch {
    // Not percent-encoded.
    return pointer;
  }
}

/** One text for all JSON values that are equal, whatever the order of their members; different texts for all others. */
export function canonicalText(
  value: JsonValue,
  omit: (name: string, member: JsonValue | undefined) => boolean = () => false,
): string {
  if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalText(item, omit)).join()}]`;
  }
  if (!isObject(value)) {
    return JSON.stringify(value);
  }
  const members = Object.keys(value)
    .filter((name) => !omit(name, value[name]))
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonicalText(value[name] ?? null, omit)}`);
  return `{${members.join()}}`;
}

/** Whether a value nests at most `depth` levels deep. */
export function isShallow(value: JsonValue, depth: number): boolean {
  return (
    typeof value !== "object" ||
    value === null ||
    (depth > 0 && Object.values(value).every((member) => isShallow(member, depth - 1)))
  );
}
