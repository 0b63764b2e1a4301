import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { SchemaChangeKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { canonicalText, isObject, items, pointedAt } from "./json.ts";
import { printPath } from "./wording.ts";

/** A difference at one place of a schema. */
export interface FieldChange {
  readonly path: string;
  readonly kind: SchemaChangeKind;
  readonly breaking: boolean;
  readonly message: string;
}

/** Pairs of schemas that are compared at most. */
const MAX_PAIRS = 20_000;

/** Keywords that bound a value: the first of each pair from below, the second from above. */
const bounds = [
  ["minimum", "maximum"],
  ["exclusiveMinimum", "exclusiveMaximum"],
  ["minLength", "maxLength"],
  ["minItems", "maxItems"],
  ["minProperties", "maxProperties"],
] as const;

/** Keywords that narrow a value in a way that is compared as a whole. */
const opaqueKeywords = [
  "pattern",
  "format",
  "contentEncoding",
  "multipleOf",
  "uniqueItems",
  "not",
  "propertyNames",
  "contains",
  "if",
  "then",
  "dependentRequired",
  "dependentSchemas",
];

const combinators = ["anyOf", "oneOf", "allOf"];

/**
 * Compares two schemas position by position. Whoever sends a value is the caller for an input and the tool for an
 * output, so what breaks one is harmless to the other.
 */
export class SchemaComparison {
  readonly #side: "input" | "output";
  readonly #before: JsonObject;
  readonly #after: JsonObject;
  readonly #changes: FieldChange[] = [];
  /** Pairs that were compared, or are being compared further up: recursive schemas come back to them. */
  readonly #seen = new Map<JsonValue, Set<JsonValue>>();
  #pairs = 0;

  constructor(side: "input" | "output", before: JsonObject, after: JsonObject) {
    this.#side = side;
    this.#before = before;
    this.#after = after;
  }

  run(): readonly FieldChange[] {
    this.#compare(this.#before, this.#after, this.#side);
    return this.#changes;
  }

  #compare(before: JsonValue, after: JsonValue, path: string): void {
    if (this.#wasSeen(before, after)) {
      return;
    }
    const earlier = resolve(before, this.#before);
    const later = resolve(after, this.#after);
    if ((earlier !== before || later !== after) && this.#wasSeen(earlier, later)) {
      return;
    }
    this.#compareTypes(earlier, later, path);
    this.#compareChoices(earlier, later, path);
    this.#compareBounds(earlier, later, path);
    this.#compareOpaque(earlier, later, path);
    this.#compareProperties(earlier, later, path);
    this.#compareElements(earlier, later, path);
    this.#compareCombinators(earlier, later, path);
  }

  #wasSeen(before: JsonValue, after: JsonValue): boolean {
    if (++this.#pairs > MAX_PAIRS) {
      return true;
    }
    if (typeof before === "boolean" || typeof after === "boolean") {
      return false;
    }
    const known = this.#seen.get(before) ?? new Set();
    this.#seen.set(before, known);
    if (known.has(after)) {
      return true;
    }
    known.add(after);
    return false;
  }

  #compareTypes(before: JsonObject, after: JsonObject, path: string): void {
    const earlier = types(before);
    const later = types(after);
    const gone = earlier.filter((type) => !covers(later, type));
    const fresh = later.filter((type) => !covers(earlier, type));
    if (gone.length === 0 && fresh.length === 0) {
      return;
    }
    this.#narrowedOrWidened(
      path,
      gone.length > 0,
      fresh.length > 0,
      `the type changed from ${words(earlier)} to ${words(later)}`,
    );
  }

  #compareChoices(before: JsonObject, after: JsonObject, path: string): void {
    const earlier = choices(before);
    const later = choices(after);
    if (earlier === undefined && later === undefined) {
      return;
    }
    if (earlier === undefined || later === undefined) {
      const message =
        later === undefined ? "any value is allowed now" : `only ${list(later)} are allowed now`;
      this.#narrowedOrWidened(path, earlier === undefined, later === undefined, message);
      return;
    }
    const gone = earlier.filter((value) => !later.includes(value));
    const fresh = later.filter((value) => !earlier.includes(value));
    if (gone.length > 0) {
      this.#add(
        path,
        SchemaChangeKind.REMOVED,
        this.#side === "input",
        `the values ${list(gone)} were removed`,
      );
    }
    if (fresh.length > 0) {
      // Callers are expected to meet values of an enum that they do not know.
      this.#add(path, SchemaChangeKind.ADDED, false, `the values ${list(fresh)} were added`);
    }
  }

  #compareBounds(before: JsonObject, after: JsonObject, path: string): void {
    for (const [lower, upper] of bounds) {
      this.#compareBound(before, after, lower, (earlier, later) => later > earlier, path);
      this.#compareBound(before, after, upper, (earlier, later) => later < earlier, path);
    }
  }

  #compareBound(
    before: JsonObject,
    after: JsonObject,
    keyword: string,
    isTighter: (earlier: number, later: number) => boolean,
    path: string,
  ): void {
    const earlier = before[keyword];
    const later = after[keyword];
    if (earlier === later || (typeof earlier !== "number" && typeof later !== "number")) {
      return;
    }
    const tighter = typeof earlier !== "number" || (typeof later === "number" && isTighter(earlier, later));
    this.#narrowedOrWidened(
      path,
      tighter,
      !tighter,
      `${keyword} changed from ${shown(earlier)} to ${shown(later)}`,
    );
  }

  #compareOpaque(before: JsonObject, after: JsonObject, path: string): void {
    for (const keyword of opaqueKeywords) {
      const earlier = before[keyword];
      const later = after[keyword];
      if (
        earlier === later ||
        (earlier !== undefined && later !== undefined && text(earlier) === text(later))
      ) {
        continue;
      }
      // Whether one pattern or format includes another cannot be told.
      this.#narrowedOrWidened(
        path,
        later !== undefined,
        earlier !== undefined,
        `${keyword} changed from ${shown(earlier)} to ${shown(later)}`,
      );
    }
  }

  #compareProperties(before: JsonObject, after: JsonObject, path: string): void {
    const earlier = properties(before);
    const later = properties(after);
    const needed = new Set(strings(before["required"]));
    const needs = new Set(strings(after["required"]));
    for (const [name, schema] of earlier) {
      const next = later.get(name);
      const where = member(path, name);
      if (next === undefined) {
        this.#add(where, SchemaChangeKind.REMOVED, true, "the field was removed");
        continue;
      }
      if (needs.has(name) && !needed.has(name)) {
        this.#add(where, SchemaChangeKind.CHANGED, this.#side === "input", "the field is required now");
      } else if (needed.has(name) && !needs.has(name)) {
        this.#add(where, SchemaChangeKind.CHANGED, this.#side === "output", "the field may be absent now");
      }
      this.#compare(schema, next, where);
    }
    for (const name of later.keys()) {
      if (!earlier.has(name)) {
        const demanded = this.#side === "input" && needs.has(name);
        const message = demanded ? "a required field was added" : "a field was added";
        this.#add(member(path, name), SchemaChangeKind.ADDED, demanded, message);
      }
    }
    // Names that are required without being described.
    for (const name of needs) {
      if (!later.has(name) && !earlier.has(name) && !needed.has(name)) {
        this.#add(
          member(path, name),
          SchemaChangeKind.CHANGED,
          this.#side === "input",
          "the field is required now",
        );
      }
    }
  }

  #compareElements(before: JsonObject, after: JsonObject, path: string): void {
    for (const [keyword, where] of [
      ["items", `${path}[*]`],
      ["additionalProperties", `${path}[*]`],
    ] as const) {
      const earlier = before[keyword] ?? true;
      const later = after[keyword] ?? true;
      if (typeof earlier === "boolean" || typeof later === "boolean") {
        if (isClosed(earlier) !== isClosed(later)) {
          const message = isClosed(later)
            ? "other members are no longer allowed"
            : "other members are allowed now";
          this.#narrowedOrWidened(path, isClosed(later), false, message);
        } else if (earlier !== later) {
          const message = later === true ? "members can be anything now" : "members have a form now";
          this.#narrowedOrWidened(where, earlier === true, later === true, message);
        }
        continue;
      }
      this.#compare(earlier, later, where);
    }
  }

  #compareCombinators(before: JsonObject, after: JsonObject, path: string): void {
    for (const keyword of combinators) {
      const earlier = items(before[keyword]);
      const later = items(after[keyword]);
      if (earlier.length === 0 && later.length === 0) {
        continue;
      }
      const known = new Set(earlier.map(text));
      const next = new Set(later.map(text));
      const gone = [...known].filter((schema) => !next.has(schema)).length;
      const fresh = [...next].filter((schema) => !known.has(schema)).length;
      // Equal texts may refer to definitions that changed.
      if (gone === fresh && earlier.length === later.length) {
        this.#compareInOrder(earlier, later, path);
      } else if (keyword === "allOf") {
        this.#narrowedOrWidened(path, fresh > 0, gone > 0, "the conditions changed");
      } else {
        const narrowed = later.length > 0 && (gone > 0 || earlier.length === 0);
        const widened = earlier.length > 0 && (fresh > 0 || later.length === 0);
        this.#narrowedOrWidened(
          path,
          narrowed,
          widened,
          `the alternatives changed: ${gone} gone, ${fresh} new`,
        );
      }
    }
  }

  #compareInOrder(before: readonly JsonValue[], after: readonly JsonValue[], path: string): void {
    before.forEach((schema, i) => {
      const later = after[i];
      if (later !== undefined) {
        this.#compare(schema, later, path);
      }
    });
  }

  /** What no longer is accepted breaks callers; what is newly answered breaks them too. */
  #narrowedOrWidened(path: string, narrowed: boolean, widened: boolean, message: string): void {
    this.#add(path, SchemaChangeKind.CHANGED, this.#side === "input" ? narrowed : widened, message);
  }

  #add(path: string, kind: SchemaChangeKind, breaking: boolean, message: string): void {
    this.#changes.push({ path, kind, breaking, message });
  }
}

/** Follows references within the schema; keywords beside a reference are kept. */
function resolve(schema: JsonValue, root: JsonObject): JsonObject {
  let resolved = isObject(schema) ? schema : schema === false ? never : anything;
  for (let hops = 0; hops < 20; hops++) {
    const { $ref, ...rest } = resolved;
    if (typeof $ref !== "string") {
      return resolved;
    }
    const target = pointedAt($ref, root);
    if (!isObject(target)) {
      return anything;
    }
    if (Object.keys(rest).every((keyword) => annotations.has(keyword))) {
      // The same object each time, so that recursion is noticed.
      resolved = target;
    } else {
      resolved = { ...target, ...rest };
    }
  }
  return anything;
}

const anything: JsonObject = {};
const never: JsonObject = { not: {} };
const annotations = new Set(["description", "title", "examples", "default", "deprecated", "$comment"]);

const jsonTypes = ["null", "boolean", "number", "string", "array", "object"];

/** The types that a schema names, or that its constants have; all of them when it names none. */
function types(schema: JsonObject): readonly string[] {
  const named = schema["type"];
  if (named !== undefined) {
    return [named].flat().map(String);
  }
  return jsonTypes;
}

function covers(types: readonly string[], type: string): boolean {
  return types.includes(type) || (type === "integer" && types.includes("number"));
}

function words(types: readonly string[]): string {
  return types.length === jsonTypes.length ? "any" : types.join(" or ");
}

/** The only values that are valid, as JSON; undefined when they are not listed. */
function choices(schema: JsonObject): string[] | undefined {
  if (schema["const"] !== undefined) {
    return [text(schema["const"])];
  }
  return Array.isArray(schema["enum"]) ? schema["enum"].map(text) : undefined;
}

/** The values of a message, cut where they are many. */
function list(values: readonly string[]): string {
  return values.length > 10
    ? `${values.slice(0, 10).join(", ")} and ${values.length - 10} more`
    : values.join(", ");
}

function shown(value: JsonValue | undefined): string {
  const whole = value === undefined ? "unset" : text(value);
  return whole.length > 80 ? `${whole.slice(0, 80)}…` : whole;
}

function properties(schema: JsonObject): ReadonlyMap<string, JsonValue> {
  const described = schema["properties"];
  return new Map(isObject(described) ? Object.entries(described) : []);
}

function strings(value: JsonValue | undefined): string[] {
  return items(value).map(String);
}

function isClosed(schema: JsonValue): boolean {
  return schema === false;
}

function member(path: string, name: string): string {
  return printPath(path, [name]);
}

/** A schema without what does not decide which values are valid. */
function text(schema: JsonValue): string {
  // A property can have the name of an annotation; it is an object.
  return canonicalText(schema, (name, value) => annotations.has(name) && typeof value !== "object");
}
