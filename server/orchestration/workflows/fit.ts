import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { FieldViolation } from "@toolplane/framework";
import { createJsonSchemaCheck, type JsonSchemaCheck } from "../../schema/index.ts";
import { didYouMean } from "../../schema/wording.ts";
import { fieldPath, type TemplateTree } from "../expressions/template.ts";
import {
  type Kind,
  mayBe,
  type ObjectShape,
  type SchemaSource,
  type Shape,
  scalar,
  wordShape,
} from "./shape.ts";

/** What is taken. */
export interface Target {
  readonly shape: Shape;
  /**
   * True: it is read as Protobuf JSON, which takes fields in both of their names, null for nothing, and numbers in
   * strings.
   */
  readonly isProtobuf: boolean;
}

/** Something that does not fit. `path`: where in the template. */
export interface Misfit {
  readonly reason: string;
  readonly path: string;
  readonly message: string;
  readonly isWarning: boolean;
}

/** So deep are the fields of what an expression gives compared with what is taken. */
const MAX_DEPTH = 8;

/**
 * What of a template does not fit to what takes it. `infer` says what a part of the template gives that holds
 * expressions.
 */
export function misfits(
  tree: TemplateTree,
  { shape, isProtobuf }: Target,
  infer: (tree: TemplateTree) => Shape,
): Misfit[] {
  const fitting = new Fitting(isProtobuf, infer);
  fitting.tree(tree, shape, tree.path);
  return fitting.found;
}

class Fitting {
  readonly found: Misfit[] = [];
  readonly #isProtobuf: boolean;
  readonly #infer: (tree: TemplateTree) => Shape;

  constructor(isProtobuf: boolean, infer: (tree: TemplateTree) => Shape) {
    this.#isProtobuf = isProtobuf;
    this.#infer = infer;
  }

  tree(tree: TemplateTree, target: Shape, path: string): void {
    switch (tree.kind) {
      case "constant":
        this.#constant(tree.value, target, path);
        return;
      case "object":
        if (!this.#kind(scalar("object"), target, path) || target.object === undefined) return;
        this.#fields(tree.fields, target.object, path);
        return;
      case "list":
        if (!this.#kind(scalar("list"), target, path)) return;
        if (target.items === undefined) return;
        for (const item of tree.items) this.tree(item, target.items(), item.path);
        return;
      default:
        this.#value(this.#infer(tree), target, path, 0);
    }
  }

  #fields(fields: readonly (readonly [string, TemplateTree])[], target: ObjectShape, path: string): void {
    const given = new Set<string>();
    for (const [name, value] of fields) {
      const found = this.#argument(name, target, path);
      given.add(found.name);
      if (found.shape !== undefined) this.tree(value, found.shape, value.path);
    }
    this.#missing(given, target, path);
  }

  #argument(name: string, target: ObjectShape, path: string): { name: string; shape: Shape | undefined } {
    const own = this.#isProtobuf && target.field(name) === undefined ? camelCase(name) : name;
    const shape = target.field(own);
    if (shape !== undefined) return { name: own, shape };
    const meant = didYouMean(name, target.names);
    const isSure = target.isClosed;
    if (isSure || (meant !== "" && target.rest().kinds === undefined)) {
      this.found.push({
        reason: "UNKNOWN_ARGUMENT",
        path: fieldPath(path, name),
        message: `"${name}" is not taken here${meant}: what is taken is ${wordNames(target.names)}`,
        isWarning: !isSure,
      });
      return { name, shape: undefined };
    }
    return { name, shape: target.rest() };
  }

  #missing(given: ReadonlySet<string>, target: ObjectShape, path: string): void {
    for (const name of target.required) {
      if (given.has(name)) continue;
      this.found.push({
        reason: "MISSING_ARGUMENT",
        path,
        message: `"${name}" is required here and missing; add it`,
        isWarning: false,
      });
    }
  }

  #constant(value: JsonValue, target: Shape, path: string): void {
    if (target.kinds === undefined && target.source === undefined) return;
    const before = this.found.length;
    const plain = this.#isProtobuf ? strict(value, target, 0) : value;
    if (isObject(plain) && target.object !== undefined && mayBe(target, "object")) {
      const fields = Object.keys(plain);
      for (const name of fields) this.#argument(name, target.object, path);
      this.#missing(new Set(fields), target.object, path);
      if (this.found.length > before) {
        // The schema as a whole would tell of the same again. Each other field is looked at on its own.
        for (const [name, field] of Object.entries(plain)) {
          const shape = target.object.field(name);
          if (shape !== undefined) this.#constant(field, shape, fieldPath(path, name));
        }
      }
    }
    if (this.found.length > before || target.source === undefined) return;
    for (const { reason, field, description } of violations(target.source, plain, path)) {
      // What cannot be checked here may yet be right.
      const isWarning = reason === "SCHEMA_TOO_COMPLEX";
      this.found.push({ reason: reason ?? "INVALID_VALUE", path: field, message: description, isWarning });
    }
  }

  /** Whether what is given may be of a kind that is taken; reports it where it may not. */
  #kind(given: Shape, target: Shape, path: string): boolean {
    if (given.kinds === undefined || target.kinds === undefined) return true;
    const taken = target.kinds;
    if ([...given.kinds].some((kind) => this.#takes(taken, kind))) return true;
    this.found.push({
      reason: "TYPE_MISMATCH",
      path,
      message: `takes ${wordShape(target)}, and gets ${wordShape(given)}`,
      isWarning: false,
    });
    return false;
  }

  #takes(taken: ReadonlySet<Kind>, kind: Kind): boolean {
    if (taken.has(kind)) return true;
    switch (kind) {
      case "integer":
        return taken.has("number");
      case "number":
        // 2.0 is an integer.
        return taken.has("integer");
      case "null":
        return this.#isProtobuf;
      case "string":
        return this.#isProtobuf && (taken.has("integer") || taken.has("number"));
      default:
        return false;
    }
  }

  #value(given: Shape, target: Shape, path: string, depth: number): void {
    if (!this.#kind(given, target, path) || depth > MAX_DEPTH) return;
    // Only what is sure to be an object, or a list, is looked into.
    if (given.kinds?.size !== 1) return;
    if (given.kinds.has("list") && given.items !== undefined && target.items !== undefined) {
      this.#value(given.items(), target.items(), `${path}[]`, depth + 1);
    }
    if (given.kinds.has("object") && given.object?.isClosed && target.object !== undefined) {
      this.#objects(given.object, target.object, path, depth);
    }
  }

  #objects(given: ObjectShape, target: ObjectShape, path: string, depth: number): void {
    const names = new Set<string>();
    for (const name of given.names) {
      if (!given.required.has(name) && !target.isClosed) continue;
      const { name: taken, shape } = this.#argument(name, target, path);
      names.add(taken);
      if (shape !== undefined)
        this.#value(given.field(name) ?? { kinds: undefined }, shape, fieldPath(path, name), depth + 1);
    }
    this.#missing(names, target, path);
  }
}

/** A constant as the JSON Schema has it, from what Protobuf JSON allows besides. */
function strict(value: JsonValue, target: Shape, depth: number): JsonValue {
  if (depth > 100) return value;
  if (Array.isArray(value)) {
    const items = target.items?.();
    return items === undefined ? value : value.map((item) => strict(item, items, depth + 1));
  }
  if (isObject(value)) {
    const { object } = target;
    if (object === undefined) return value;
    const entries = Object.entries(value).flatMap(([name, field]): [string, JsonValue][] => {
      const own = object.field(name) === undefined ? camelCase(name) : name;
      const shape = object.field(own) ?? object.rest();
      if (field === null && !mayBe(shape, "null")) return [];
      return [[object.field(own) === undefined ? name : own, strict(field, shape, depth + 1)]];
    });
    return Object.fromEntries(entries);
  }
  const { kinds } = target;
  if (kinds === undefined) return value;
  if (typeof value === "string" && !kinds.has("string") && (kinds.has("integer") || kinds.has("number"))) {
    return value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
  }
  if (Number.isInteger(value) && kinds.has("string") && !kinds.has("integer") && !kinds.has("number")) {
    // 64-bit integers are written as strings, and read as numbers too; names of enum values are read as numbers.
    const { schema } = target.source ?? {};
    return schema?.["pattern"] !== undefined ? String(value) : value;
  }
  return value;
}

const checks = new WeakMap<JsonObject, WeakMap<JsonObject, JsonSchemaCheck | "unusable">>();

/** What is wrong with a constant; nothing where the schema cannot be used on its own. */
function violations(
  { schema, root }: SchemaSource,
  value: JsonValue,
  path: string,
): readonly FieldViolation[] {
  let byRoot = checks.get(schema);
  if (byRoot === undefined) {
    byRoot = new WeakMap();
    checks.set(schema, byRoot);
  }
  let check = byRoot.get(root);
  if (check === undefined) {
    check = prepare(schema, root);
    byRoot.set(root, check);
  }
  if (check === "unusable") return [];
  try {
    return check.check(value, path);
  } catch {
    // A schema that is too entangled is told of when the tool is called.
    return [];
  }
}

/** References go to `$defs`, as a rule; a schema with others cannot be taken from where it is. */
function prepare(schema: JsonObject, root: JsonObject): JsonSchemaCheck | "unusable" {
  const definitions: JsonObject = {};
  for (const name of ["$defs", "definitions", "components"]) {
    const value = root[name];
    if (value !== undefined && schema[name] === undefined) definitions[name] = value;
  }
  try {
    return createJsonSchemaCheck(schema === root ? schema : { ...definitions, ...schema });
  } catch {
    return "unusable";
  }
}

function camelCase(name: string): string {
  return name.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function wordNames(names: readonly string[]): string {
  if (names.length === 0) return "nothing";
  return names.slice(0, 12).join(", ") + (names.length > 12 ? ` and ${names.length - 12} more` : "");
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
