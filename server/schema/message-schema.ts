import type { DescMessage, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { leadingComment } from "./comments.ts";
import { enumDescription } from "./documentation.ts";
import { fieldSchema } from "./field-schema.ts";
import { conjoin, type Definition, definitionName } from "./fragment.ts";
import { celNotes, fieldRules, isRequiredOneof, messageRules } from "./rules.ts";
import { enumDefinition, wellKnownFragment } from "./value-schema.ts";

export interface MessageSchemaOptions {
  /** Whether protovalidate rules are part of the schema. Default: true. */
  readonly rules?: boolean;
}

interface Node {
  readonly schema: JsonObject;
  readonly uses: readonly Definition[];
}

const schemasWithRules = new WeakMap<DescMessage, JsonObject>();
const schemasWithoutRules = new WeakMap<DescMessage, JsonObject>();
const nodesWithRules = new WeakMap<Definition, Node>();
const nodesWithoutRules = new WeakMap<Definition, Node>();

/**
 * The JSON Schema (2020-12) of a message's JSON form, https://protobuf.dev/programming-guides/json/. What it accepts,
 * `parseMessageJson` accepts, and every JSON form that a Protobuf library writes is valid against it. The parser takes
 * more, as the Protobuf JSON specification demands: `.proto` names of fields, null for an absent field, numbers in
 * strings, numbers of enum values. Extensions are left out.
 *
 * Message and enum types are in `$defs` under their full names. The result is made once for each descriptor, shared
 * and frozen.
 */
export function messageSchema(desc: DescMessage, options: MessageSchemaOptions = {}): JsonObject {
  const withRules = options.rules ?? true;
  const schemas = withRules ? schemasWithRules : schemasWithoutRules;
  let schema = schemas.get(desc);
  if (schema === undefined) {
    schema = assemble(desc, withRules);
    schemas.set(desc, schema);
  }
  return schema;
}

function assemble(desc: DescMessage, withRules: boolean): JsonObject {
  const root = node(desc, withRules);
  const found = new Set<Definition>(root.uses);
  // A set is iterated in the order of insertion, and goes on to what is added meanwhile.
  for (const definition of found) {
    for (const used of node(definition, withRules).uses) {
      found.add(used);
    }
  }
  const definitions = [...found]
    .map((definition): [string, JsonObject] => [
      definitionName(definition),
      node(definition, withRules).schema,
    ])
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.freeze({
    $schema: "https://json-schema.org/draft/2020-12/schema",
    ...root.schema,
    ...(definitions.length === 0 ? {} : { $defs: Object.freeze(Object.fromEntries(definitions)) }),
  });
}

function node(definition: Definition, withRules: boolean): Node {
  const nodes = withRules ? nodesWithRules : nodesWithoutRules;
  let made = nodes.get(definition);
  if (made === undefined) {
    made = makeNode(definition, withRules);
    deepFreeze(made.schema);
    nodes.set(definition, made);
  }
  return made;
}

function makeNode(definition: Definition, withRules: boolean): Node {
  switch (definition.kind) {
    case "scalar":
      return { schema: definition.schema, uses: [] };
    case "enum": {
      const description = enumDescription(definition);
      return {
        schema: { ...(description === "" ? {} : { description }), ...enumDefinition(definition) },
        uses: [],
      };
    }
    case "message":
      return wellKnownFragment(definition) ?? objectNode(definition, withRules);
  }
}

function objectNode(desc: DescMessage, withRules: boolean): Node {
  const properties: [string, JsonObject][] = [];
  const required: string[] = [];
  const uses = new Set<Definition>();
  const rules = withRules ? messageRules(desc) : undefined;
  for (const field of desc.fields) {
    const described = fieldSchema(field, withRules ? fieldRules(field, rules) : undefined);
    properties.push([field.jsonName, described.schema]);
    if (described.required) {
      required.push(field.jsonName);
    }
    for (const used of described.uses) {
      uses.add(used);
    }
  }
  const choices = [
    ...desc.oneofs.map((oneof) => ({ fields: oneof.fields, needed: withRules && isRequiredOneof(oneof) })),
    ...(rules?.oneof ?? []).map(({ fields, required: needed }) => ({
      fields: desc.fields.filter(({ name }) => fields.includes(name)),
      needed,
    })),
  ].map(({ fields, needed }) => ({ names: fields.map(({ jsonName }) => jsonName), needed }));
  required.push(...choices.flatMap(({ names, needed }) => (needed && names.length === 1 ? names : [])));
  const description = [leadingComment(desc), ...celNotes(rules)].filter(Boolean).join("\n");
  const schema: JsonObject = {
    ...(description === "" ? {} : { description }),
    type: "object",
    // A JSON name can be "__proto__".
    properties: Object.fromEntries(properties),
    ...(required.length === 0 ? {} : { required: [...new Set(required)] }),
    additionalProperties: false,
  };
  return {
    schema: choices
      .filter(({ names }) => names.length > 1)
      .reduce((whole, { names, needed }) => conjoin(whole, exclusive(names, needed)), schema),
    uses: [...uses],
  };
}

/** At most one of the properties; exactly one where `needed`. Linear in their number, unlike excluding every pair. */
function exclusive(names: readonly string[], needed: boolean): JsonObject {
  const alternatives = names.map((name) => ({ required: [name] }));
  return { oneOf: needed ? alternatives : [...alternatives, { not: { anyOf: alternatives } }] };
}

function deepFreeze(value: JsonValue): void {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const member of Object.values(value)) {
      deepFreeze(member);
    }
  }
}
