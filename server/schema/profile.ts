import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isObject, items, pointedAt } from "./json.ts";
import { quote } from "./wording.ts";

/** Whose rules for the schemas of tools are followed. */
export type Provider = "anthropic" | "openai" | "gemini";

interface Profile {
  /** Formats that are kept; others are put into the description. */
  readonly formats: ReadonlySet<string>;
  /** Names of properties that are kept; others are put into the description. */
  readonly names: RegExp;
  /** Keywords that are kept; undefined: all. */
  readonly keywords: ReadonlySet<string> | undefined;
}

const widelyKnownFormats = [
  "date-time",
  "date",
  "time",
  "duration",
  "email",
  "hostname",
  "ipv4",
  "ipv6",
  "uuid",
];

const profiles: Readonly<Record<Provider, Profile>> = {
  anthropic: {
    formats: new Set([...widelyKnownFormats, "uri"]),
    names: /^[a-zA-Z0-9_.-]{1,64}$/,
    keywords: undefined,
  },
  openai: { formats: new Set(widelyKnownFormats), names: /^/, keywords: undefined },
  // The Schema object of the Gemini API: a part of OpenAPI 3.0 without references.
  gemini: {
    formats: new Set(["date-time"]),
    names: /^[a-zA-Z_][a-zA-Z0-9_]{0,63}$/,
    keywords: new Set([
      "type",
      "format",
      "description",
      "nullable",
      "enum",
      "items",
      "minItems",
      "maxItems",
      "properties",
      "required",
      "minProperties",
      "maxProperties",
      "minLength",
      "maxLength",
      "pattern",
      "minimum",
      "maximum",
      "anyOf",
    ]),
  },
};

/** Longer patterns say nothing to a model that the description does not. */
const MAX_PATTERN = 100;
/** A schema whose references have to be written out is cut at this many parts, and where a type holds itself. */
const MAX_PARTS = 5000;
/** Combinators within combinators that are merged. */
const MAX_MERGED = 20;
/** Keywords that are not merged but only checked. */
const conditions = new Set(["not", "if", "then", "else", "dependentSchemas", "dependentRequired"]);

/**
 * A schema of arguments that a provider accepts. What it cannot say is in descriptions, so that a model knows it, and is
 * checked against the tool's own schema when the tool is called. Arguments in their canonical JSON form that the tool
 * accepts are valid against it; they need not be translated back. (Gemini has no form for any value at all: lists in a
 * google.protobuf.Value can hold no lists there.)
 *
 * At the top every provider wants an object without `anyOf`, `oneOf`, `allOf` and `not`: alternatives are merged. A
 * choice of at most one field, which is how a Protobuf oneof is described, becomes a sentence.
 */
export function toProfile(schema: JsonObject, provider: Provider): JsonObject {
  return new Conversion(schema, provider).run();
}

class Conversion {
  readonly #root: JsonObject;
  readonly #profile: Profile;
  readonly #inline: boolean;
  /** Definitions that are being written out. */
  readonly #open: string[] = [];
  #parts = 0;

  constructor(root: JsonObject, provider: Provider) {
    this.#root = root;
    this.#profile = profiles[provider];
    this.#inline = provider === "gemini";
  }

  run(): JsonObject {
    const { $schema: _, $id: __, $defs, definitions, ...top } = this.#root;
    const converted = this.#convert(this.#merge({ ...top, type: "object" }));
    const kept = this.#inline
      ? {}
      : { ...this.#definitions("$defs", $defs), ...this.#definitions("definitions", definitions) };
    return { ...converted, ...kept };
  }

  #definitions(keyword: string, value: JsonValue | undefined): JsonObject {
    return isObject(value) ? { [keyword]: mapMembers(value, (definition) => this.#convert(definition)) } : {};
  }

  #target(reference: string): JsonObject {
    const target = pointedAt(reference, this.#root);
    return isObject(target) ? target : {};
  }

  #resolve(schema: JsonObject): JsonObject {
    const { $ref, ...rest } = schema;
    return typeof $ref === "string" ? { ...this.#target($ref), ...rest } : schema;
  }

  /** Merges what a schema's combinators say about its properties into the schema itself. */
  #merge(schema: JsonObject, depth = 0): JsonObject {
    const notes: string[] = [];
    const { allOf, anyOf, oneOf, ...rest } = exclusivesToNotes(this.#resolve(schema), notes);
    const base = Object.fromEntries(Object.entries(rest).filter(([keyword]) => !conditions.has(keyword)));
    if (Object.keys(base).length < Object.keys(rest).length) {
      notes.push("More conditions are checked when it is called.");
    }
    // References in a circle, or doubled ones, have no end.
    if (depth > MAX_MERGED || ++this.#parts > MAX_PARTS) {
      return describe(base, notes);
    }
    let merged: JsonObject = base;
    for (const part of items(allOf).filter(isObject)) {
      merged = mergeBoth(merged, this.#merge(part, depth + 1));
    }
    for (const alternatives of [items(anyOf), items(oneOf)]) {
      const parts = alternatives.filter(isObject).map((part) => this.#merge(part, depth + 1));
      if (parts.length === 0) {
        continue;
      }
      if (base["type"] !== "object" && !parts.some((part) => isObject(part["properties"]))) {
        // Alternatives of a value that is no object are schemas of their own.
        merged = { ...merged, anyOf: [...alternatives] };
        continue;
      }
      const forms = parts.map((part) =>
        items(part["required"])
          .map((name) => quote(String(name)))
          .join(", "),
      );
      notes.push(
        `One of these forms: ${forms.map((form) => (form === "" ? "any" : `with ${form}`)).join("; ")}.`,
      );
      merged = mergeBoth(merged, parts.reduce(mergeEither));
    }
    return describe(merged, notes);
  }

  #convert(schema: JsonValue): JsonObject {
    this.#parts++;
    if (!isObject(schema)) {
      return this.#inline ? anyType : {};
    }
    if (this.#inline && typeof schema["$ref"] === "string") {
      return this.#writeOut(schema["$ref"], schema);
    }
    const notes: string[] = [];
    const plain = exclusivesToNotes(schema, notes);
    let result = this.#members(this.#inline ? this.#merge(plain) : plain, notes);
    if (this.#inline) {
      result = toOpenApi(result, notes);
    }
    const { keywords } = this.#profile;
    if (keywords !== undefined) {
      result = Object.fromEntries(Object.entries(result).filter(([keyword]) => keywords.has(keyword)));
    }
    return describe(result, notes);
  }

  /** Replaces a reference by what it refers to; a type within itself is only named. */
  #writeOut(reference: string, schema: JsonObject): JsonObject {
    const { $ref: _, ...rest } = schema;
    const target = this.#target(reference);
    const name = reference.slice(reference.lastIndexOf("/") + 1);
    if (this.#open.includes(reference) || this.#parts > MAX_PARTS) {
      const type = target["type"] === undefined ? "object" : target["type"];
      return describe({ type }, [
        String(rest["description"] ?? ""),
        `Of the same form as ${name} further up.`,
      ]);
    }
    this.#open.push(reference);
    const converted = this.#convert({ ...target, ...rest });
    this.#open.pop();
    return converted;
  }

  #members(schema: JsonObject, notes: string[]): JsonObject {
    const result: Record<string, JsonValue> = {};
    for (const [keyword, value] of Object.entries(schema)) {
      switch (keyword) {
        case "properties":
          result[keyword] = this.#properties(value, notes);
          break;
        case "items":
        case "additionalProperties":
          result[keyword] = typeof value === "boolean" ? value : this.#convert(value);
          break;
        case "anyOf":
        case "oneOf":
        case "allOf":
        case "prefixItems":
          result[keyword] = items(value).map((part) => this.#convert(part));
          break;
        case "patternProperties":
          result[keyword] = isObject(value) ? mapMembers(value, (part) => this.#convert(part)) : value;
          break;
        case "format":
          if (typeof value === "string" && this.#profile.formats.has(value)) {
            result[keyword] = value;
          } else {
            notes.push(`Format: ${String(value)}.`);
          }
          break;
        case "pattern":
          if (typeof value === "string" && value.length <= MAX_PATTERN) {
            result[keyword] = value;
          }
          break;
        default:
          result[keyword] = value;
      }
    }
    if (isObject(schema["properties"])) {
      const kept = Object.keys(
        isObject(result["properties"] ?? null) ? (result["properties"] as JsonObject) : {},
      );
      const required = items(schema["required"]).filter((name) => kept.includes(String(name)));
      if (kept.length < Object.keys(schema["properties"]).length) {
        delete result["additionalProperties"];
      }
      delete result["required"];
      if (required.length > 0) {
        result["required"] = required;
      }
    }
    return result;
  }

  #properties(value: JsonValue, notes: string[]): JsonObject {
    const entries = Object.entries(isObject(value) ? value : {});
    for (const [name, schema] of entries.filter(([name]) => !this.#profile.names.test(name))) {
      const type = isObject(schema) && typeof schema["type"] === "string" ? ` (${schema["type"]})` : "";
      notes.push(`Also has the field ${quote(name)}${type}.`);
    }
    return Object.fromEntries(
      entries
        .filter(([name]) => this.#profile.names.test(name))
        .map(([name, schema]): [string, JsonObject] => [name, this.#convert(schema)]),
    );
  }
}

/** Replaces choices of at most one, or exactly one, field by a sentence. */
function exclusivesToNotes(schema: JsonObject, notes: string[]): JsonObject {
  const parts = [schema, ...items(schema["allOf"]).filter(isObject)];
  const found = parts.map((part) => exclusiveFields(part));
  if (found.every((names) => names === undefined)) {
    return schema;
  }
  for (const choice of found) {
    if (choice !== undefined) {
      const names = choice.names.map((name) => quote(name)).join(", ");
      notes.push(`Set ${choice.needed ? "exactly" : "at most"} one of ${names}.`);
    }
  }
  const { oneOf, allOf, ...rest } = schema;
  const others = items(allOf).filter((part) => !isObject(part) || exclusiveFields(part) === undefined);
  return {
    ...rest,
    ...(found[0] === undefined && oneOf !== undefined ? { oneOf } : {}),
    ...(others.length > 0 ? { allOf: others } : {}),
  };
}

/** The fields of a `oneOf` that does nothing but to require one of them each. */
function exclusiveFields(schema: JsonObject): { names: string[]; needed: boolean } | undefined {
  const alternatives = items(schema["oneOf"]);
  const names = alternatives.map(requiredOnly).filter((name) => name !== undefined);
  const rest = alternatives.filter((alternative) => requiredOnly(alternative) === undefined);
  const [none] = rest;
  if (names.length === 0 || rest.length > 1 || (none !== undefined && !isNone(none, names.length))) {
    return undefined;
  }
  return { names, needed: none === undefined };
}

function requiredOnly(schema: JsonValue): string | undefined {
  const required = isObject(schema) && Object.keys(schema).length === 1 ? items(schema["required"]) : [];
  return required.length === 1 ? String(required[0]) : undefined;
}

function isNone(schema: JsonValue, count: number): boolean {
  const not = isObject(schema) ? schema["not"] : undefined;
  const excluded = isObject(not) ? items(not["anyOf"]) : [];
  return excluded.length === count && excluded.every((part) => requiredOnly(part) !== undefined);
}

function mergeBoth(a: JsonObject, b: JsonObject): JsonObject {
  const required = [...new Set([...items(a["required"]), ...items(b["required"])])];
  const notes = [a["description"], b["description"]].filter((text) => typeof text === "string");
  return {
    ...b,
    ...a,
    ...unionOfProperties(a, b),
    ...(required.length > 0 ? { required } : {}),
    ...(notes.length > 0 ? { description: [...new Set(notes)].join("\n") } : {}),
  };
}

function mergeEither(a: JsonObject, b: JsonObject): JsonObject {
  const others = items(b["required"]);
  const { required: _, ...rest } = mergeBoth(a, b);
  const required = items(a["required"]).filter((name) => others.includes(name));
  return { ...rest, ...(required.length > 0 ? { required } : {}) };
}

function unionOfProperties(a: JsonObject, b: JsonObject): JsonObject {
  const properties = new Map<string, JsonValue>();
  for (const described of [a["properties"], b["properties"]]) {
    for (const [name, schema] of Object.entries(isObject(described) ? described : {})) {
      const known = properties.get(name);
      const same = known === undefined || JSON.stringify(known) === JSON.stringify(schema);
      properties.set(name, same ? schema : { anyOf: [known, schema] });
    }
  }
  // A part that allows only its own properties would refuse those of the others.
  const { additionalProperties: ofA } = a;
  const { additionalProperties: ofB } = b;
  const closed = (ofA === false && ofB !== true) || (ofB === false && ofA !== true);
  return {
    ...(properties.size > 0 ? { properties: Object.fromEntries(properties) } : {}),
    ...(closed ? { additionalProperties: false } : {}),
  };
}

const scalarTypes: JsonObject[] = [
  { type: "string", nullable: true },
  { type: "number" },
  { type: "boolean" },
];

/** A value of any type, for a dialect in which every schema has a type and every array describes its items. */
const anyType: JsonObject = {
  anyOf: [
    ...scalarTypes,
    { type: "object" },
    { type: "array", items: { anyOf: [...scalarTypes, { type: "object" }] } },
  ],
};

/** The dialect of OpenAPI 3.0 that has one type a schema, and enums of strings. */
function toOpenApi(schema: JsonObject, notes: string[]): JsonObject {
  const result: Record<string, JsonValue> = { ...schema };
  const types = result["type"] === undefined ? [] : [result["type"]].flat().map(String);
  if (types.includes("null")) {
    result["nullable"] = true;
  }
  const [type] = types.filter((name) => name !== "null");
  const choices = result["const"] === undefined ? items(result["enum"]) : [result["const"]];
  delete result["enum"];
  if (choices.length > 0 && choices.every((choice) => typeof choice === "string")) {
    result["type"] = "string";
    result["enum"] = [...choices];
  } else if (choices.length > 0) {
    result["type"] = type ?? "string";
    notes.push(`One of ${choices.map((choice) => JSON.stringify(choice)).join(", ")}.`);
  } else if (type !== undefined) {
    result["type"] = type;
  } else if (types.length > 0) {
    result["type"] = "string";
  } else if (result["anyOf"] === undefined && result["oneOf"] === undefined) {
    Object.assign(result, anyType);
  }
  if (result["oneOf"] !== undefined) {
    result["anyOf"] = result["oneOf"];
  }
  if (isObject(result["properties"]) && Object.keys(result["properties"]).length === 0) {
    delete result["properties"];
  }
  if (result["type"] === "array" && !isObject(result["items"])) {
    result["items"] = anyType;
  }
  const values = result["additionalProperties"];
  if (isObject(values)) {
    notes.push(
      `Has members of any name, each ${typeof values["type"] === "string" ? `of type ${values["type"]}` : "of one form"}.`,
    );
  }
  return result;
}

function describe(schema: JsonObject, notes: readonly string[]): JsonObject {
  const text = [schema["description"], ...notes]
    .filter((part) => typeof part === "string" && part !== "")
    .join("\n");
  return text === "" ? schema : { ...schema, description: text };
}

function mapMembers(value: JsonObject, convert: (member: JsonValue) => JsonValue): JsonObject {
  return Object.fromEntries(
    Object.entries(value).map(([name, member]): [string, JsonValue] => [name, convert(member)]),
  );
}
