import type { DescEnum, DescMessage, JsonObject, JsonValue } from "@bufbuild/protobuf";

/** A schema shared by every field of a scalar type whose JSON form is long to describe. */
export interface ScalarDefinition {
  readonly kind: "scalar";
  /** Has a hyphen, which no Protobuf type name can have. */
  readonly name: string;
  readonly schema: JsonObject;
}

/** What `$defs` can hold. */
export type Definition = DescMessage | DescEnum | ScalarDefinition;

/** The schema of one value, and what has to be known besides. */
export interface Fragment {
  readonly schema: JsonObject;
  /** What the schema refers to. */
  readonly uses: readonly Definition[];
  /** Rules that JSON Schema cannot express, as sentences. */
  readonly notes: readonly string[];
  /** Whether the default value obeys the rules, so that a field without presence may be left out of the JSON form. */
  readonly zeroAllowed: boolean;
}

export function fragment(schema: JsonObject, rest: Partial<Omit<Fragment, "schema">> = {}): Fragment {
  return { schema, uses: [], notes: [], zeroAllowed: true, ...rest };
}

/** A reference to a definition, which becomes part of `$defs` of every schema that uses it. */
export function reference(definition: Definition): Fragment {
  return fragment({ $ref: `#/$defs/${definitionName(definition)}` }, { uses: [definition] });
}

export function definitionName(definition: Definition): string {
  return definition.kind === "scalar" ? definition.name : definition.typeName;
}

/** A schema that accepts what both accept. Keywords that both have go to `allOf`. */
export function conjoin(schema: JsonObject, other: JsonObject): JsonObject {
  const clash = Object.keys(other).some((key) => key in schema && key !== "allOf");
  if (clash) {
    return { ...schema, allOf: [...list(schema["allOf"]), other] };
  }
  const allOf = [...list(schema["allOf"]), ...list(other["allOf"])];
  return { ...schema, ...other, ...(allOf.length > 0 ? { allOf } : {}) };
}

function list(value: JsonValue | undefined): JsonValue[] {
  return Array.isArray(value) ? value : [];
}

/** A schema of nothing but some values. An empty `enum` is not allowed. */
export function oneOfValues(values: readonly JsonValue[]): JsonObject {
  return values.length === 0 ? { not: {} } : { enum: [...values] };
}

/** A schema of anything but some values. */
export function noneOfValues(values: readonly JsonValue[]): JsonObject {
  return values.length === 0 ? {} : { not: { enum: [...values] } };
}
