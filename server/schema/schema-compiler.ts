import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { RE2JS } from "@bufbuild/re2";
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import type { RegExpEngine } from "ajv/dist/types/index.js";
import formats from "ajv-formats";
import { BRANCH, COST, invalidSchema } from "./foreign-schema.ts";
import { canonicalText } from "./json.ts";

/** Texts longer than this are not checked for their format. */
const MAX_FORMATTED = 4096;
/** Steps of a check that only tells whether a value is valid: well below a second. */
const BUDGET = 2_000_000;
/** Steps of a check that collects every violation. */
const BUDGET_FOR_ALL = 200_000;

/** Thrown when a check takes more steps than it may. */
export class TooCostly extends Error {
  override readonly name = "TooCostly";
}

/** A schema, compiled when first needed. */
export class CompiledSchema {
  readonly #compiler: SchemaCompiler;
  readonly #schema: JsonObject;
  #first: ValidateFunction | undefined;
  #all: ValidateFunction | undefined;

  constructor(compiler: SchemaCompiler, schema: JsonObject) {
    this.#compiler = compiler;
    this.#schema = schema;
  }

  isValid(json: JsonValue): boolean {
    this.#first ??= this.#compiler.compile(this.#schema, "first");
    const validate = this.#first;
    return this.#compiler.spend(BUDGET, () => validate(json));
  }

  /** Every error; the first one only when collecting all of them is too costly. */
  errors(json: JsonValue): readonly ErrorObject[] {
    this.#all ??= this.#compiler.compile(this.#schema, "all");
    const validate = this.#all;
    try {
      this.#compiler.spend(BUDGET_FOR_ALL, () => validate(json));
      return validate.errors ?? [];
    } catch (error) {
      if (!(error instanceof TooCostly)) {
        throw error;
      }
      this.isValid(json);
      return this.#first?.errors ?? [];
    }
  }
}

/**
 * Compiles prepared schemas. A check of a hostile schema or value ends with `TooCostly`: the cost keyword that
 * `prepareSchema` puts before every part that runs more than once takes from a budget, and so do regular expressions,
 * which are matched by RE2 in linear time.
 */
export class SchemaCompiler {
  readonly #meta = new Ajv2020({ strict: false, logger: false });
  #budget = 0;

  /** Throws INVALID_SCHEMA where a keyword has a value that it cannot have. */
  checkKeywords(schema: JsonObject): void {
    if (this.#meta.validateSchema(schema) !== true) {
      const [error] = this.#meta.errors ?? [];
      const place = (error?.instancePath ?? "").replaceAll(/\/\$defs\/d\d+|\/allOf\/1(?=\/|$)/g, "");
      throw invalidSchema(
        `it is not a valid JSON Schema: ${place === "" ? "" : `${place.slice(1)} `}${error?.message ?? "is wrong"}`,
      );
    }
  }

  /** Every schema has an Ajv of its own: one keeps patterns and values of all that it ever compiled. */
  compile(schema: JsonObject, errors: "first" | "all"): ValidateFunction {
    try {
      return this.#createAjv(errors === "all").compile(schema);
    } catch (error) {
      const reason =
        error instanceof RangeError ? "its parts and references nest too deep to be compiled" : String(error);
      throw invalidSchema(`the schema cannot be used: ${reason}`, error);
    }
  }

  /** Runs a check, which ends with `TooCostly` when it takes more steps or stack than there is. */
  spend(budget: number, check: () => boolean): boolean {
    this.#budget = budget;
    try {
      return check();
    } catch (error) {
      // References that lead back to themselves without going into the value end the stack.
      throw error instanceof RangeError ? new TooCostly(error.message) : error;
    }
  }

  #take(steps: number): void {
    this.#budget -= steps;
    if (this.#budget < 0) {
      throw new TooCostly("the check takes too many steps");
    }
  }

  #createAjv(allErrors: boolean): Ajv2020 {
    const ajv = new Ajv2020({
      allErrors,
      verbose: true,
      strict: false,
      logger: false,
      meta: false,
      validateSchema: false,
      addUsedSchema: false,
      // Inlining can multiply the size of the code, and optimising takes quadratic time.
      inlineRefs: false,
      ownProperties: true,
      code: { optimize: false, regExp: this.#regExp() },
    });
    formats.default(ajv);
    boundFormats(ajv);
    ajv.addKeyword({
      keyword: COST,
      schemaType: "array",
      validate: ([fixed, perElement]: [number, number], json: JsonValue) => {
        this.#take(fixed + (perElement + 1) * elements(json));
        return true;
      },
    });
    ajv.addKeyword({ keyword: BRANCH, validate: () => false });
    // Ajv compares every pair of objects.
    ajv.removeKeyword("uniqueItems");
    ajv.addKeyword({
      keyword: "uniqueItems",
      type: "array",
      schemaType: "boolean",
      validate: (unique: boolean, items: JsonValue[]) =>
        !unique || new Set(items.map((item) => canonicalText(item))).size === items.length,
    });
    return ajv;
  }

  #regExp(): RegExpEngine {
    const match = (pattern: string) => {
      const compiled = RE2JS.compile(pattern);
      return {
        test: (text: string) => {
          this.#take(1 + (text.length * pattern.length) / 10);
          return compiled.test(text);
        },
        // Ajv tells patterns apart by it.
        toString: () => pattern,
      };
    };
    return Object.assign(match, { code: "re2" });
  }
}

function elements(json: JsonValue): number {
  if (typeof json !== "object" || json === null) {
    return 0;
  }
  return Array.isArray(json) ? json.length : Object.keys(json).length;
}

function boundFormats(ajv: Ajv2020): void {
  for (const [name, format] of Object.entries(ajv.formats)) {
    const validate = typeof format === "object" && "validate" in format ? format.validate : format;
    const test =
      validate instanceof RegExp
        ? (text: string) => validate.test(text)
        : typeof validate === "function" &&
            !(typeof format === "object" && "type" in format && format.type === "number")
          ? (text: string) => Boolean((validate as (text: string) => boolean)(text))
          : undefined;
    if (test !== undefined) {
      ajv.addFormat(name, (text: string) => text.length > MAX_FORMATTED || test(text));
    }
  }
}
