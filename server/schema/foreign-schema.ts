import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { RE2JS } from "@bufbuild/re2";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { isObject, pointedAt } from "./json.ts";
import { modernise } from "./schema-dialects.ts";
import { quote } from "./wording.ts";

/** A schema may have this many values in all, and nest this deep. */
const MAX_NODES = 20_000;
const MAX_SCHEMA_DEPTH = 64;
/** As many alternatives, or properties of one object, may there be: the code that checks them nests. */
const MAX_MEMBERS = 1000;
const MAX_PATTERN = 1000;

/** Added by `prepareSchema`; see `schema-compiler.ts`. */
export const COST = "x-toolplane-cost";
export const BRANCH = "x-toolplane-branch";

export interface PreparedSchema {
  /** In the 2020-12 dialect, with only the keywords that validate, and all references below `$defs`. */
  readonly schema: JsonObject;
  /** What of the original is not checked. */
  readonly warnings: readonly string[];
}

const schemaLists = new Set(["allOf", "prefixItems"]);
const alternatives = new Set(["anyOf", "oneOf"]);
/** Schemas for as many values as there are members or items. */
const schemasPerElement = new Set([
  "items",
  "contains",
  "additionalProperties",
  "propertyNames",
  "unevaluatedItems",
  "unevaluatedProperties",
]);
const singleSchemas = new Set(["not", "if", "then", "else"]);
const plainKeywords = new Set([
  "type",
  "enum",
  "const",
  "multipleOf",
  "maximum",
  "exclusiveMaximum",
  "minimum",
  "exclusiveMinimum",
  "maxLength",
  "minLength",
  "maxItems",
  "minItems",
  "uniqueItems",
  "maxContains",
  "minContains",
  "maxProperties",
  "minProperties",
  "required",
  "dependentRequired",
  "format",
]);

/**
 * Rewrites a JSON Schema from outside so that checking against it is safe and bounded. Older dialects, and what OpenAPI
 * 3.0 adds, become 2020-12. References may only point into the schema itself. Patterns that could take exponential time
 * are left out. Every part that is checked once for each element or reference is preceded by its cost.
 *
 * @throws DomainError INVALID_SCHEMA
 */
export function prepareSchema(schema: JsonObject): PreparedSchema {
  return new Preparation(schema).run();
}

/** A JSON Schema that cannot be checked against. */
export function invalidSchema(message: string, cause?: unknown): DomainError {
  return new DomainError({ code: Code.FailedPrecondition, reason: "INVALID_SCHEMA", message, cause });
}

/** What a part of a schema costs: once, and for each member or item of the value. */
interface Cost {
  fixed: number;
  perElement: number;
}

class Preparation {
  readonly #root: JsonObject;
  readonly #names = new Map<JsonValue, string>();
  readonly #definitions: Record<string, JsonValue> = {};
  readonly #warnings: string[] = [];
  #nodes = 0;

  constructor(root: JsonObject) {
    this.#root = root;
  }

  run(): PreparedSchema {
    const $ref = this.#define(this.#root);
    // A set or map is iterated in the order of insertion, and goes on to what is added meanwhile.
    for (const [target, name] of this.#names) {
      this.#definitions[name] = this.#costed(target, 0);
    }
    return { schema: { $ref, $defs: this.#definitions }, warnings: this.#warnings };
  }

  #define(target: JsonValue): string {
    let name = this.#names.get(target);
    if (name === undefined) {
      name = `d${this.#names.size}`;
      this.#names.set(target, name);
    }
    return `#/$defs/${name}`;
  }

  /** A schema that is preceded by the cost of one evaluation. */
  #costed(schema: JsonValue, depth: number): JsonValue {
    if (typeof schema === "boolean") {
      return schema;
    }
    const cost: Cost = { fixed: 0, perElement: 0 };
    const rewritten = this.#rewrite(schema, depth, cost);
    return { allOf: [{ [COST]: [cost.fixed, cost.perElement] }, rewritten] };
  }

  #rewrite(schema: JsonValue, depth: number, cost: Cost): JsonValue {
    this.#count(1);
    cost.fixed++;
    if (typeof schema === "boolean") {
      return schema;
    }
    if (!isObject(schema)) {
      throw invalidSchema("a schema must be an object, true or false");
    }
    if (depth > MAX_SCHEMA_DEPTH) {
      throw invalidSchema(`the schema nests deeper than ${MAX_SCHEMA_DEPTH} levels`);
    }
    const modern = modernise(schema);
    const result: Record<string, JsonValue> = {};
    for (const [keyword, value] of Object.entries(modern)) {
      if (plainKeywords.has(keyword)) {
        const size = this.#size(value);
        cost.fixed += size;
        result[keyword] = value;
      } else if (schemaLists.has(keyword)) {
        result[keyword] = list(value, keyword).map((part) => this.#rewrite(part, depth + 1, cost));
      } else if (alternatives.has(keyword)) {
        result[keyword] = list(value, keyword).flatMap((part, index) => [
          { [BRANCH]: index },
          this.#rewrite(part, depth + 1, cost),
        ]);
      } else if (singleSchemas.has(keyword)) {
        result[keyword] = this.#rewrite(value, depth + 1, cost);
      } else if (schemasPerElement.has(keyword)) {
        cost.perElement++;
        result[keyword] = this.#costed(value, depth + 1);
      } else if (keyword === "properties" || keyword === "dependentSchemas") {
        result[keyword] = this.#named(keyword, value, depth, cost);
      } else if (keyword === "pattern") {
        if (typeof value !== "string") {
          throw invalidSchema("pattern must be a string");
        }
        const pattern = this.#pattern(value);
        if (pattern !== undefined) {
          result[keyword] = pattern;
        }
      } else if (keyword === "$ref") {
        result[keyword] = this.#define(this.#resolve(value));
      }
    }
    this.#patternProperties(modern["patternProperties"], result, depth, cost);
    return result;
  }

  #named(keyword: string, value: JsonValue, depth: number, cost: Cost): JsonObject {
    const entries = Object.entries(object(value, keyword));
    return Object.fromEntries(
      atMost(entries, keyword).map(([name, part]) => [name, this.#rewrite(part, depth + 1, cost)]),
    );
  }

  #patternProperties(
    value: JsonValue | undefined,
    result: Record<string, JsonValue>,
    depth: number,
    cost: Cost,
  ) {
    if (value === undefined) {
      return;
    }
    const patterns: [string, JsonValue][] = [];
    for (const [source, part] of Object.entries(object(value, "patternProperties"))) {
      const pattern = this.#pattern(source);
      if (pattern === undefined) {
        // Members that match it cannot be told from those that no keyword covers.
        delete result["additionalProperties"];
        delete result["unevaluatedProperties"];
      } else {
        cost.perElement++;
        patterns.push([pattern, this.#costed(part, depth + 1)]);
      }
    }
    result["patternProperties"] = Object.fromEntries(patterns);
  }

  /** The pattern in RE2 syntax, which is matched in linear time; undefined where RE2 does not know it. */
  #pattern(source: string): string | undefined {
    const pattern = source.replaceAll(/\\u([0-9a-fA-F]{4})/g, "\\x{$1}");
    if (pattern.length <= MAX_PATTERN && isRe2(pattern)) {
      return pattern;
    }
    this.#warnings.push(
      `the pattern ${quote(source)} is not checked: it needs a regular expression beyond RE2`,
    );
    return undefined;
  }

  #resolve(reference: JsonValue): JsonValue {
    const own = typeof this.#root["$id"] === "string" ? this.#root["$id"] : "";
    let local = String(reference);
    if (own !== "" && local.startsWith(own)) {
      local = local.slice(own.length);
    }
    const target =
      pointedAt(local, this.#root) ??
      (local.startsWith("#") ? findAnchor(this.#root, local.slice(1)) : undefined);
    if (target === undefined) {
      throw invalidSchema(
        local.startsWith("#")
          ? `$ref ${quote(local)} points to nothing`
          : `$ref ${quote(local)} points out of the schema; nothing is loaded from elsewhere`,
      );
    }
    return target;
  }

  /** The number of values in a value, which counts towards the limit. */
  #size(value: JsonValue, depth = 0): number {
    this.#count(1);
    if (typeof value !== "object" || value === null) {
      return 1;
    }
    if (depth > MAX_SCHEMA_DEPTH) {
      throw invalidSchema(`the schema nests deeper than ${MAX_SCHEMA_DEPTH} levels`);
    }
    return Object.values(value).reduce<number>((sum, member) => sum + this.#size(member, depth + 1), 1);
  }

  #count(nodes: number): void {
    this.#nodes += nodes;
    if (this.#nodes > MAX_NODES) {
      throw invalidSchema(`the schema has more than ${MAX_NODES} values`);
    }
  }
}

/** The part that names itself with `$anchor` or `$dynamicAnchor`. */
function findAnchor(root: JsonValue, anchor: string): JsonValue | undefined {
  const pending: JsonValue[] = [root];
  // Taking from the end keeps this linear.
  for (let value = pending.pop(); value !== undefined; value = pending.pop()) {
    if (typeof value === "object" && value !== null) {
      if (!Array.isArray(value) && (value["$anchor"] === anchor || value["$dynamicAnchor"] === anchor)) {
        return value;
      }
      pending.push(...Object.values(value));
    }
  }
  return undefined;
}

function isRe2(pattern: string): boolean {
  try {
    RE2JS.compile(pattern);
    return true;
  } catch {
    // Not the syntax of RE2: look-around or back references.
    return false;
  }
}

function list(value: JsonValue, keyword: string): readonly JsonValue[] {
  if (!Array.isArray(value)) {
    throw invalidSchema(`${keyword} must be an array`);
  }
  return atMost(value, keyword);
}

function atMost<T>(members: readonly T[], keyword: string): readonly T[] {
  if (members.length > MAX_MEMBERS) {
    throw invalidSchema(`${keyword} has more than ${MAX_MEMBERS} members`);
  }
  return members;
}

function object(value: JsonValue, keyword: string): JsonObject {
  if (!isObject(value)) {
    throw invalidSchema(`${keyword} must be an object`);
  }
  return value;
}
