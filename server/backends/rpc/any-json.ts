import {
  create,
  createFileRegistry,
  createMutableRegistry,
  type DescMessage,
  fromBinary,
  type JsonValue,
  type Message,
  type MutableRegistry,
  type Registry,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import {
  type Any,
  AnySchema,
  anyPack,
  anyUnpack,
  BytesValueSchema,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";

/**
 * A message as JSON. A google.protobuf.Any begins with its `@type`, for people. One whose type nobody described keeps
 * its content: it becomes `{"@type": "…", "value": "<base64>"}`, in the form of the well-known types.
 *
 * @param whole true: with fields that have their default value, too
 */
export function messageToJson(
  desc: DescMessage,
  message: Message,
  registry: Registry,
  whole = false,
): JsonValue {
  const json = toJsonWithUnknown(desc, message, registry, whole);
  return mayHoldAny(desc) ? typeFirst(json) : json;
}

function toJsonWithUnknown(
  desc: DescMessage,
  message: Message,
  registry: Registry,
  whole: boolean,
): JsonValue {
  try {
    return toJson(desc, message, { registry, alwaysEmitImplicit: whole });
  } catch (error) {
    // The rare case pays: the message is copied and its unknown parts are wrapped.
    const opaque: Opaque = { known: registry, registry: createMutableRegistry(registry) };
    const copy = fromBinary(desc, toBinary(desc, message));
    if (!wrapUnknown(reflect(desc, copy), opaque)) {
      throw error;
    }
    return toJson(desc, copy, { registry: opaque.registry, alwaysEmitImplicit: whole });
  }
}

/** Of each message looked at, whether its fields can lead to an Any: most cannot, and need not be looked through. */
const anyHolders = new WeakMap<DescMessage, boolean>();

function mayHoldAny(desc: DescMessage): boolean {
  const known = anyHolders.get(desc);
  if (known !== undefined) {
    return known;
  }
  const reached = new Set([desc]);
  for (const { fields } of reached) {
    for (const { message } of fields) {
      if (message) {
        reached.add(message);
      }
    }
  }
  const holds = [...reached].some(({ typeName }) => typeName === AnySchema.typeName);
  anyHolders.set(desc, holds);
  return holds;
}

/** Moves every `@type` to the front of its object. */
function typeFirst(json: JsonValue): JsonValue {
  if (Array.isArray(json)) {
    return json.map(typeFirst);
  }
  if (json === null || typeof json !== "object") {
    return json;
  }
  const members = Object.entries(json).map(([name, value]) => [name, typeFirst(value)] as const);
  const at = members.findIndex(([name]) => name === "@type");
  if (at > 0) {
    members.unshift(...members.splice(at, 1));
  }
  return Object.fromEntries(members);
}

interface Opaque {
  readonly known: Registry;
  /** The known types, and one for every unknown type that was wrapped. */
  readonly registry: MutableRegistry;
}

/** Wraps every Any of an unknown type, also inside others. Returns whether there was one. */
function wrapUnknown(message: ReflectMessage, opaque: Opaque): boolean {
  if (message.desc.typeName === AnySchema.typeName) {
    // The descriptor may be another copy of any.proto; what it describes is the same.
    return wrapAny(message.message as Any, opaque);
  }
  let found = false;
  for (const field of message.fields) {
    if (!message.isSet(field)) {
      continue;
    }
    if (field.fieldKind === "message") {
      found = wrapUnknown(message.get(field), opaque) || found;
    } else if (field.fieldKind === "list" && field.listKind === "message") {
      for (const item of message.get(field)) {
        found = wrapUnknown(item as ReflectMessage, opaque) || found;
      }
    } else if (field.fieldKind === "map" && field.mapKind === "message") {
      for (const item of message.get(field).values()) {
        found = wrapUnknown(item as ReflectMessage, opaque) || found;
      }
    }
  }
  return found;
}

function wrapAny(any: Any, opaque: Opaque): boolean {
  const typeName = any.typeUrl.slice(any.typeUrl.lastIndexOf("/") + 1);
  if (typeName === "") {
    return false;
  }
  const known = opaque.known.getMessage(typeName);
  if (!known) {
    any.value = toBinary(BytesValueSchema, create(BytesValueSchema, { value: any.value }));
    opaque.registry.add(opaqueMessage(typeName));
    return true;
  }
  const inner = anyUnpack(any, known);
  if (!inner || !wrapUnknown(reflect(known, inner), opaque)) {
    return false;
  }
  any.value = anyPack(known, inner).value;
  return true;
}

/** A message of the given name with nothing but `bytes value = 1`. */
function opaqueMessage(typeName: string): DescMessage {
  const dot = typeName.lastIndexOf(".");
  const file = create(FileDescriptorProtoSchema, {
    name: "opaque.proto",
    syntax: "proto3",
    package: typeName.slice(0, Math.max(0, dot)),
    messageType: [
      {
        name: typeName.slice(dot + 1),
        field: [
          {
            name: "value",
            jsonName: "value",
            number: 1,
            label: FieldDescriptorProto_Label.OPTIONAL,
            type: FieldDescriptorProto_Type.BYTES,
          },
        ],
      },
    ],
  });
  const message = createFileRegistry(file, () => undefined).getMessage(typeName);
  if (!message) {
    throw new Error(`"${typeName}" is not a type name`);
  }
  return message;
}
