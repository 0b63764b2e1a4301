import type { DescMessage, JsonObject, JsonValue, MessageShape } from "@bufbuild/protobuf";
import { isWrapperDesc } from "@bufbuild/protobuf/wkt";
import { invalidArgument } from "@toolplane/framework";
import { type ParseMessageOptions, parseMessageJson } from "./message-json.ts";
import { messageSchema } from "./message-schema.ts";

/** Well-known types, besides the wrappers, whose JSON form is no object. */
const NO_OBJECTS = new Set([
  "google.protobuf.Duration",
  "google.protobuf.FieldMask",
  "google.protobuf.ListValue",
  "google.protobuf.Timestamp",
  "google.protobuf.Value",
]);

/**
 * The arguments of a tool are an object. A message whose JSON form is something else, such as a Timestamp, is written
 * as `{"value": …}`: the form that it has within google.protobuf.Any.
 */
function isWrapped(desc: DescMessage): boolean {
  return NO_OBJECTS.has(desc.typeName) || isWrapperDesc(desc);
}

/** The JSON Schema (2020-12) of the arguments that stand for a message. */
export function argumentsSchema(desc: DescMessage): JsonObject {
  const schema = messageSchema(desc);
  if (!isWrapped(desc)) {
    return schema;
  }
  const { $schema, $defs, ...value } = schema;
  return {
    ...($schema === undefined ? {} : { $schema }),
    type: "object",
    properties: { value },
    required: ["value"],
    additionalProperties: false,
    ...($defs === undefined ? {} : { $defs }),
  };
}

/** Reads the message that arguments stand for, as `parseMessageJson` does. */
export function parseArguments<Desc extends DescMessage>(
  desc: Desc,
  json: JsonObject,
  options: ParseMessageOptions & { readonly path: string },
): MessageShape<Desc> {
  return isWrapped(desc)
    ? parseMessageJson(desc, unwrap(json, options.path), { ...options, path: `${options.path}.value` })
    : parseMessageJson(desc, json, options);
}

function unwrap(json: JsonObject, path: string): JsonValue {
  const { value, ...others } = json;
  const violations = Object.keys(others).map((name) => ({
    field: `${path}.${name}`,
    description: 'is no known field: the only argument is "value"',
    reason: "UNKNOWN_FIELD",
  }));
  if (value === undefined) {
    violations.push({ field: `${path}.value`, description: "is required", reason: "REQUIRED" });
  }
  if (value === undefined || violations.length > 0) {
    throw invalidArgument(violations);
  }
  return value;
}
