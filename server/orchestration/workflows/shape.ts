import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** Kinds of JSON values. An integer is a number too. */
export type Kind = "null" | "boolean" | "string" | "integer" | "number" | "list" | "object";

/** What is known of a value before there is one. */
export interface Shape {
  /** Which kinds it may be of. Undefined: any; nothing is known. */
  readonly kinds: ReadonlySet<Kind> | undefined;
  /** What it has as an object. Undefined: nothing is known. */
  readonly object?: ObjectShape | undefined;
  /** What its items are, as a list. Undefined: nothing is known. */
  readonly items?: (() => Shape) | undefined;
  /** The JSON Schema that it comes from, for checks of constants. */
  readonly source?: SchemaSource | undefined;
}

export interface ObjectShape {
  readonly names: readonly string[];
  readonly required: ReadonlySet<string>;
  /** Undefined: it is not told of. */
  field(name: string): Shape | undefined;
  /** True: it has no fields but these. */
  readonly isClosed: boolean;
  /** What fields are that are not told of. */
  readonly rest: () => Shape;
}

export interface SchemaSource {
  readonly schema: JsonObject;
  readonly root: JsonObject;
}

export const ANY: Shape = { kinds: undefined };

const scalars = new Map<Kind, Shape>();

export function scalar(kind: Kind): Shape {
  const known = scalars.get(kind) ?? { kinds: new Set([kind]) };
  scalars.set(kind, known);
  return known;
}

export function listOf(items: Shape): Shape {
  return { kinds: new Set<Kind>(["list"]), items: () => items };
}

export function objectOf(fields: ReadonlyMap<string, Shape>, optional: readonly string[] = []): Shape {
  const names = [...fields.keys()];
  return {
    kinds: new Set<Kind>(["object"]),
    object: {
      names,
      required: new Set(names.filter((name) => !optional.includes(name))),
      field: (name) => fields.get(name),
      isClosed: true,
      rest: () => ANY,
    },
  };
}

/** Of more alternatives than this, nothing is said. */
const MAX_ALTERNATIVES = 50;

/** What a value is that is one of these. */
export function union(shapes: readonly Shape[]): Shape {
  const [first, ...others] = new Set(shapes);
  if (others.length >= MAX_ALTERNATIVES) return ANY;
  return others.reduce(unite, first ?? ANY);
}

function unite(a: Shape, b: Shape): Shape {
  if (a === b) return a;
  if (a.kinds === undefined || b.kinds === undefined) return ANY;
  return {
    kinds: new Set([...a.kinds, ...b.kinds]),
    object:
      a.object && b.object
        ? uniteObjects(a.object, b.object)
        : uniteOneSided(a, b, "object", (each) => each.object),
    items:
      a.items && b.items ? uniteItems(a.items, b.items) : uniteOneSided(a, b, "list", (each) => each.items),
  };
}

/** What one side knows holds only if the other cannot be of that kind at all. */
function uniteOneSided<T>(
  a: Shape,
  b: Shape,
  kind: Kind,
  pick: (shape: Shape) => T | undefined,
): T | undefined {
  if (!b.kinds?.has(kind)) return pick(a);
  return a.kinds?.has(kind) ? undefined : pick(b);
}

function uniteItems(a: () => Shape, b: () => Shape): () => Shape {
  return () => unite(a(), b());
}

function uniteObjects(a: ObjectShape, b: ObjectShape): ObjectShape {
  return {
    names: [...new Set([...a.names, ...b.names])],
    required: new Set([...a.required].filter((name) => b.required.has(name))),
    field(name) {
      const both = [a.field(name), b.field(name)].filter((shape) => shape !== undefined);
      return both.length === 0 ? undefined : union(both);
    },
    isClosed: a.isClosed && b.isClosed,
    rest: () => unite(a.rest(), b.rest()),
  };
}

/** What a constant is. */
export function shapeOfJson(json: JsonValue): Shape {
  switch (typeof json) {
    case "string":
      return scalar("string");
    case "boolean":
      return scalar("boolean");
    case "number":
      return scalar(Number.isInteger(json) ? "integer" : "number");
    default:
      break;
  }
  if (json === null) return scalar("null");
  if (Array.isArray(json)) {
    return {
      kinds: new Set<Kind>(["list"]),
      items: () => (json.length === 0 ? ANY : union(json.map(shapeOfJson))),
    };
  }
  const names = Object.keys(json);
  return {
    kinds: new Set<Kind>(["object"]),
    object: {
      names,
      required: new Set(names),
      field: (name) => (Object.hasOwn(json, name) ? shapeOfJson(json[name] ?? null) : undefined),
      isClosed: true,
      rest: () => ANY,
    },
  };
}

/** How many references to definitions are followed one after the other. */
const MAX_REFERENCES = 20;

const known = new WeakMap<JsonObject, Map<JsonObject, Shape>>();

/**
 * What JSON is that matches a JSON Schema. Only what is sure: keywords that are not understood here, such as `allOf`,
 * leave it open.
 */
export function shapeOfSchema(schema: JsonValue | undefined, root: JsonObject, hops = 0): Shape {
  if (!isObject(schema) || hops > MAX_REFERENCES) return ANY;
  let byRoot = known.get(schema);
  if (byRoot === undefined) {
    byRoot = new Map();
    known.set(schema, byRoot);
  }
  let shape = byRoot.get(root);
  if (shape === undefined) {
    // What a schema says of itself, nothing can be said about.
    byRoot.set(root, ANY);
    shape = { ...expand(schema, root, hops), source: { schema, root } };
    byRoot.set(root, shape);
  }
  return shape;
}

function expand(schema: JsonObject, root: JsonObject, hops: number): Shape {
  const reference = schema["$ref"];
  if (typeof reference === "string") return shapeOfSchema(resolve(reference, root), root, hops + 1);
  if (schema["allOf"] !== undefined || schema["$dynamicRef"] !== undefined) return ANY;
  const kinds = kindsOf(schema);
  if (kinds === undefined) {
    const alternatives = schema["anyOf"] ?? schema["oneOf"];
    if (!Array.isArray(alternatives) || alternatives.length === 0) return ANY;
    return union(alternatives.map((each) => shapeOfSchema(each, root, hops + 1)));
  }
  if (schema["nullable"] === true) kinds.add("null");
  return {
    kinds,
    object: kinds.has("object") ? objectShape(schema, root) : undefined,
    items: kinds.has("list") ? itemsOf(schema, root) : undefined,
  };
}

const KINDS: Readonly<Record<string, Kind>> = {
  null: "null",
  boolean: "boolean",
  string: "string",
  integer: "integer",
  number: "number",
  array: "list",
  object: "object",
};

/** Undefined: any. */
function kindsOf(schema: JsonObject): Set<Kind> | undefined {
  const { type } = schema;
  const names = typeof type === "string" ? [type] : Array.isArray(type) ? type : undefined;
  if (names !== undefined) {
    const kinds = names.map((name) => (typeof name === "string" ? KINDS[name] : undefined));
    return kinds.every((kind) => kind !== undefined) ? new Set(kinds) : undefined;
  }
  const values = Array.isArray(schema["enum"])
    ? schema["enum"]
    : "const" in schema
      ? [schema["const"]]
      : undefined;
  if (values !== undefined && values.length > 0) {
    return new Set(values.flatMap((value) => [...(shapeOfJson(value ?? null).kinds ?? [])]));
  }
  return isObject(schema["properties"]) ? new Set<Kind>(["object"]) : undefined;
}

function itemsOf(schema: JsonObject, root: JsonObject): (() => Shape) | undefined {
  const { items, prefixItems } = schema;
  return isObject(items) && prefixItems === undefined ? () => shapeOfSchema(items, root) : undefined;
}

function objectShape(schema: JsonObject, root: JsonObject): ObjectShape {
  const properties = isObject(schema["properties"]) ? schema["properties"] : {};
  const { additionalProperties, patternProperties, required } = schema;
  const composed = ["anyOf", "oneOf", "if", "dependentSchemas"].some((name) => schema[name] !== undefined);
  return {
    names: Object.keys(properties),
    required: new Set(Array.isArray(required) ? required.filter((name) => typeof name === "string") : []),
    field: (name) => (Object.hasOwn(properties, name) ? shapeOfSchema(properties[name], root) : undefined),
    isClosed: additionalProperties === false && patternProperties === undefined,
    rest: () =>
      patternProperties === undefined && !composed ? shapeOfSchema(additionalProperties, root) : ANY,
  };
}

function resolve(reference: string, root: JsonObject): JsonValue | undefined {
  if (reference === "#") return root;
  if (!reference.startsWith("#/")) return undefined;
  let at: JsonValue | undefined = root;
  for (const segment of decode(reference.slice(2)).split("/")) {
    const name = segment.replaceAll("~1", "/").replaceAll("~0", "~");
    if (Array.isArray(at)) at = at[Number(name)];
    else if (isObject(at) && Object.hasOwn(at, name)) at = at[name];
    else return undefined;
  }
  return at;
}

function decode(fragment: string): string {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment;
  }
}

/** Its kinds in words, such as `a string or null`. */
export function wordShape({ kinds }: Shape): string {
  if (kinds === undefined) return "anything";
  const shown = [...kinds].filter((kind) => !(kind === "integer" && kinds.has("number")));
  return shown
    .map((kind) => (kind === "null" ? kind : `${/^[aeio]/.test(kind) ? "an" : "a"} ${kind}`))
    .join(" or ");
}

/** Whether it may be of one of these kinds. */
export function mayBe(shape: Shape, ...kinds: readonly Kind[]): boolean {
  return shape.kinds === undefined || kinds.some((kind) => shape.kinds?.has(kind));
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
