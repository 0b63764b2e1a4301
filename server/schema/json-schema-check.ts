import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { FieldViolation } from "@toolplane/framework";
import { prepareSchema } from "./foreign-schema.ts";
import { isShallow } from "./json.ts";
import { CompiledSchema, SchemaCompiler, TooCostly } from "./schema-compiler.ts";
import { reportErrors } from "./schema-errors.ts";
import { Violations } from "./violations.ts";

/** A check of JSON values against a JSON Schema that came from outside. */
export interface JsonSchemaCheck {
  /**
   * Everything that is wrong with a value that is at `path` of a request; empty when nothing is. Throws INVALID_SCHEMA
   * for a schema that turns out to be too entangled to be compiled.
   */
  check(json: JsonValue, path: string): readonly FieldViolation[];
  /** Parts of the schema that are not checked, for people. */
  readonly warnings: readonly string[];
}

/** Values nest at most this deep, as those of google.protobuf.Struct do. */
const MAX_DEPTH = 100;
/** Compiled schemas that are kept; others are compiled again when they are next needed. */
const MAX_COMPILED = 500;

/**
 * Prepares a check against a JSON Schema. Drafts 6 to 2020-12 and the schemas of OpenAPI 3.0 are understood. The schema
 * may be hostile: its size is bounded, nothing is loaded for it, and a check ends after a bounded number of steps.
 * Compilation is left to the first check.
 *
 * @throws DomainError FAILED_PRECONDITION, INVALID_SCHEMA: why the schema cannot be used.
 */
export function createJsonSchemaCheck(schema: JsonObject): JsonSchemaCheck {
  const prepared = prepareSchema(schema);
  compiler().checkKeywords(prepared.schema);
  return {
    warnings: prepared.warnings,
    check: (json, path) => Violations.of(path, (found) => check(prepared.schema, json, found)),
  };
}

function check(schema: JsonObject, json: JsonValue, found: Violations): void {
  if (!isShallow(json, MAX_DEPTH)) {
    found.add("TOO_DEEP", `nests deeper than ${MAX_DEPTH} levels`);
    return;
  }
  try {
    const compiled = compiledSchema(schema);
    if (!compiled.isValid(json)) {
      reportErrors(compiled.errors(json), json, found);
      if (found.isEmpty) {
        found.add("INVALID_VALUE", "does not match the schema");
      }
    }
  } catch (error) {
    if (!(error instanceof TooCostly)) {
      throw error;
    }
    found.add(
      "SCHEMA_TOO_COMPLEX",
      "cannot be checked: the tool's schema takes too many steps for this value",
    );
  }
}

// Compilers hold no state between checks, and what they compiled is only a cache.
let sharedCompiler: SchemaCompiler | undefined;
const compiledSchemas = new Map<JsonObject, CompiledSchema>();

function compiler(): SchemaCompiler {
  sharedCompiler ??= new SchemaCompiler();
  return sharedCompiler;
}

/** The least recently used entries are dropped; a map keeps the order of insertion. */
function compiledSchema(schema: JsonObject): CompiledSchema {
  const compiled = compiledSchemas.get(schema) ?? new CompiledSchema(compiler(), schema);
  compiledSchemas.delete(schema);
  compiledSchemas.set(schema, compiled);
  for (const oldest of compiledSchemas.keys()) {
    if (compiledSchemas.size <= MAX_COMPILED) {
      break;
    }
    compiledSchemas.delete(oldest);
  }
  return compiled;
}
