import type { JsonValue } from "@bufbuild/protobuf";
import type { ErrorObject } from "ajv";
import { BRANCH } from "./foreign-schema.ts";
import type { Violations } from "./violations.ts";
import { describe, didYouMean, oneOf, quote, type Segment } from "./wording.ts";

/** Puts what Ajv found into the words and paths of all other checks. */
export function reportErrors(errors: readonly ErrorObject[], json: JsonValue, found: Violations): void {
  for (const error of withoutBranches(errors)) {
    found.within(pathOf(error, json), () => report(error, found));
  }
}

/** Errors of a schema's alternatives: those of one alternative each. */
type Branches = ErrorObject[][];

/**
 * Of a value that matches no alternative, keeps the errors of the one that it was probably meant to match. The
 * alternatives' errors lie between a mark in front of each and the error of the keyword itself.
 */
function withoutBranches(errors: readonly ErrorObject[]): ErrorObject[] {
  const kept: ErrorObject[] = [];
  const open: Branches[] = [];
  const current = () => open.at(-1)?.at(-1) ?? kept;
  for (const error of errors) {
    if (error.keyword === BRANCH) {
      if (error.schema === 0) {
        open.push([[]]);
      } else {
        open.at(-1)?.push([]);
      }
    } else if (error.keyword === "anyOf" || error.keyword === "oneOf") {
      const branches = open.pop() ?? [];
      current().push(...mostLikely(branches, error));
    } else {
      current().push(error);
    }
  }
  return kept;
}

function mostLikely(branches: Branches, error: ErrorObject): ErrorObject[] {
  const failed = branches.filter((branch) => branch.length > 0);
  if (failed.length < branches.length) {
    // More than one alternative of a oneOf matches.
    return [error];
  }
  const types = failed.flat().filter(({ keyword, instancePath }) => {
    return keyword === "type" && instancePath === error.instancePath;
  });
  if (types.length === failed.flat().length) {
    const schema = [...new Set(types.flatMap((type) => typeNames(type.schema)))];
    return types.slice(0, 1).map((type) => ({ ...type, schema }));
  }
  // What is wrong with the value as a whole tells that the alternative was not meant.
  const meant = failed.filter((branch) => {
    return !branch.some(({ keyword, instancePath }) => {
      return instancePath === error.instancePath && ["type", "const", "enum"].includes(keyword);
    });
  });
  const [first] = meant;
  return first !== undefined && meant.length === 1 ? first : [error];
}

function pathOf({ instancePath, keyword, params, propertyName }: ErrorObject, json: JsonValue): Segment[] {
  const segments: Segment[] = [];
  let value: JsonValue | undefined = json;
  for (const part of instancePath.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (Array.isArray(value)) {
      segments.push(Number(key));
      value = value[Number(key)];
    } else {
      segments.push(key);
      value = typeof value === "object" && value !== null ? value[key] : undefined;
    }
  }
  const member: unknown =
    propertyName ??
    {
      required: params["missingProperty"],
      dependentRequired: params["missingProperty"],
      additionalProperties: params["additionalProperty"],
      unevaluatedProperties: params["unevaluatedProperty"],
    }[keyword];
  if (typeof member === "string") {
    segments.push(member);
  }
  if (keyword === "unevaluatedItems" && typeof params["len"] === "number") {
    segments.push(params["len"]);
  }
  return segments;
}

function report(error: ErrorObject, found: Violations): void {
  const { keyword, params, schema, parentSchema, data } = error;
  const got = `got ${describe(data)}`;
  const expected = (what: string) => found.add("INVALID_VALUE", `expected ${what}, ${got}`);
  const limit = String(params["limit"]);
  switch (keyword) {
    case "type":
      expected(typeNames(schema).map(article).join(" or "));
      break;
    case "required":
      found.add("REQUIRED", "is required");
      break;
    case "dependentRequired":
      found.add("REQUIRED", `is required together with ${quote(String(params["property"]))}`);
      break;
    case "additionalProperties":
    case "unevaluatedProperties": {
      const names = Object.keys((parentSchema?.["properties"] as object | undefined) ?? {});
      const name = String(params["additionalProperty"] ?? params["unevaluatedProperty"]);
      const known =
        names.length === 0
          ? "no field is allowed here"
          : `known fields are ${names.slice(0, 12).map(quote).join(", ")}`;
      found.add("UNKNOWN_FIELD", `is no known field${didYouMean(name, names)}: ${known}`);
      break;
    }
    case "enum": {
      const names = (Array.isArray(schema) ? schema : []).map((value) =>
        typeof value === "string" ? value : JSON.stringify(value),
      );
      expected(oneOf(names, typeof data === "string" ? data : undefined));
      break;
    }
    case "const":
      expected(JSON.stringify(schema));
      break;
    case "minimum":
      expected(`a number of at least ${limit}`);
      break;
    case "maximum":
      expected(`a number of at most ${limit}`);
      break;
    case "exclusiveMinimum":
      expected(`a number above ${limit}`);
      break;
    case "exclusiveMaximum":
      expected(`a number below ${limit}`);
      break;
    case "multipleOf":
      expected(`a multiple of ${String(schema)}`);
      break;
    case "minLength":
      expected(`at least ${limit} characters`);
      break;
    case "maxLength":
      expected(`at most ${limit} characters`);
      break;
    case "pattern":
      expected(`a text that matches the regular expression ${quote(String(schema))}`);
      break;
    case "format":
      expected(`a text of the format ${quote(String(schema))}`);
      break;
    case "minItems":
      expected(`at least ${limit} items`);
      break;
    case "maxItems":
    case "items":
      expected(`at most ${limit} items`);
      break;
    case "minProperties":
      expected(`at least ${limit} members`);
      break;
    case "maxProperties":
      expected(`at most ${limit} members`);
      break;
    case "uniqueItems":
      found.add("INVALID_VALUE", "expected items that differ from each other");
      break;
    case "contains":
      found.add("INVALID_VALUE", "does not contain as many items of a certain form as it has to");
      break;
    case "anyOf":
      found.add("INVALID_VALUE", `matches none of the ${countOf(schema)} allowed forms, ${got}`);
      break;
    case "oneOf":
      found.add(
        "INVALID_VALUE",
        params["passingSchemas"] === null
          ? `matches none of the ${countOf(schema)} allowed forms, ${got}`
          : "matches more than one of the forms of which only one is allowed",
      );
      break;
    case "if":
    case "propertyNames":
      // The errors of the schema that applies are reported themselves.
      break;
    default:
      found.add("INVALID_VALUE", `is not allowed here, ${got}`);
  }
}

/** Each alternative has a mark in front. */
function countOf(schema: unknown): number {
  return Array.isArray(schema) ? schema.length / 2 : 0;
}

function typeNames(schema: unknown): string[] {
  return (Array.isArray(schema) ? schema : [schema]).map(String);
}

function article(type: string): string {
  switch (type) {
    case "null":
      return "null";
    case "boolean":
      return "true or false";
    case "integer":
      return "a whole number";
    case "array":
    case "object":
      return `an ${type}`;
    default:
      return `a ${type}`;
  }
}
