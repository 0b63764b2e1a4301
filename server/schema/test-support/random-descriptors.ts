import { create, createFileRegistry, type FileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { protoCamelCase } from "@bufbuild/protobuf/reflect";
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  Edition,
  type EnumDescriptorProto,
  EnumDescriptorProtoSchema,
  FeatureSet_EnumType,
  FeatureSet_FieldPresence,
  FeatureSet_MessageEncoding,
  FeatureSetSchema,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  FieldOptions_JSType,
  FieldOptionsSchema,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
  FieldDescriptorProto_Label as Label,
  OneofDescriptorProtoSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";

const wellKnownFiles = [
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
];
const wellKnownTypes = [
  "Any",
  "Duration",
  "Empty",
  "FieldMask",
  "Struct",
  "Value",
  "ListValue",
  "Timestamp",
  "DoubleValue",
  "FloatValue",
  "Int64Value",
  "UInt64Value",
  "Int32Value",
  "UInt32Value",
  "BoolValue",
  "StringValue",
  "BytesValue",
];
const scalars = [
  Type.DOUBLE,
  Type.FLOAT,
  Type.INT64,
  Type.UINT64,
  Type.INT32,
  Type.FIXED64,
  Type.FIXED32,
  Type.BOOL,
  Type.STRING,
  Type.BYTES,
  Type.UINT32,
  Type.SFIXED32,
  Type.SFIXED64,
  Type.SINT32,
  Type.SINT64,
];
const mapKeys = scalars.filter((type) => ![Type.DOUBLE, Type.FLOAT, Type.BYTES].includes(type));

export type Dialect = "proto2" | "proto3" | "editions";
/** Draws one value, as `fc.gen()` does. */
export type Draw = fc.GeneratorValue;

/** Changes a field after it was made, such as by adding rules to its options. */
export type FieldChange = (field: FieldDescriptorProto, draw: Draw) => void;

export const MESSAGES = 3;
const ENUMS = 2;

/**
 * A file of random messages `test.M0` to `test.M2` that use every feature of a dialect, as a client of reflection sees
 * it: read from bytes, options of unknown extensions in unknown fields.
 */
export function randomDescriptors(draw: Draw, dialect: Dialect, change?: FieldChange): FileRegistry {
  const file = create(FileDescriptorProtoSchema, {
    name: "test.proto",
    package: "test",
    syntax: dialect,
    ...(dialect === "editions" ? { edition: Edition.EDITION_2023 } : {}),
    dependency: wellKnownFiles.map((file) => file.proto.name),
    messageType: Array.from({ length: MESSAGES }, (_, i) => randomMessage(draw, dialect, i, change)),
    enumType: Array.from({ length: ENUMS }, (_, i) => randomEnum(draw, dialect, i)),
  });
  return registryOf([file]);
}

/** A registry of files that depend on the well-known types only. */
export function registryOf(files: readonly FileDescriptorProto[]): FileRegistry {
  const set = create(FileDescriptorSetSchema, {
    file: [...wellKnownFiles.map((file) => file.proto), ...files],
  });
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, toBinary(FileDescriptorSetSchema, set)));
}

const enumNumbers = () => fc.uniqueArray(fc.integer({ min: -5, max: 5 }), { maxLength: 3 });

function randomEnum(draw: Draw, dialect: Dialect, index: number): EnumDescriptorProto {
  const others = draw(enumNumbers).filter((n) => n !== 0);
  const first = dialect === "proto2" ? (others.shift() ?? 0) : 0;
  return create(EnumDescriptorProtoSchema, {
    name: `E${index}`,
    value: [first, ...others].map((number, i) => ({ name: `E${index}_${"ABCD"[i]}`, number })),
    ...(dialect === "editions"
      ? {
          options: {
            features: create(FeatureSetSchema, {
              enumType: draw(fc.constantFrom, FeatureSet_EnumType.OPEN, FeatureSet_EnumType.CLOSED),
            }),
          },
        }
      : {}),
  });
}

function randomMessage(draw: Draw, dialect: Dialect, index: number, change?: FieldChange): DescriptorProto {
  const message = create(DescriptorProtoSchema, { name: `M${index}` });
  const count = draw(fc.nat, { max: 6 });
  for (let number = 1; number <= count; number++) {
    addField(draw, dialect, message, index, number, change);
  }
  if (draw(fc.boolean)) {
    message.oneofDecl.push(create(OneofDescriptorProtoSchema, { name: "choice" }));
    const members = draw(fc.integer, { min: 1, max: 4 });
    for (let i = 0; i < members; i++) {
      const field = newField(draw, dialect, index, `choice_${i}`, 20 + i);
      field.label = Label.OPTIONAL;
      field.oneofIndex = 0;
      change?.(field, draw);
      message.field.push(field);
    }
  }
  // Synthetic oneofs come last, as protoc writes them.
  for (const field of message.field.filter(({ proto3Optional }) => proto3Optional)) {
    field.oneofIndex = message.oneofDecl.length;
    message.oneofDecl.push(create(OneofDescriptorProtoSchema, { name: `_${field.name}` }));
  }
  return message;
}

function addField(
  draw: Draw,
  dialect: Dialect,
  message: DescriptorProto,
  index: number,
  number: number,
  change: FieldChange | undefined,
): void {
  const field = newField(draw, dialect, index, `field_${number}`, number);
  const shape = draw(fc.constantFrom, "singular", "singular", "singular", "repeated", "map", "special");
  const isMessage = field.type === Type.MESSAGE || field.type === Type.GROUP;
  field.label = Label.OPTIONAL;
  switch (shape) {
    case "repeated":
      field.label = Label.REPEATED;
      break;
    case "map":
      toMap(draw, message, field);
      break;
    case "special":
      if (dialect === "proto3") {
        field.proto3Optional = !isMessage;
      } else if (!isMessage && dialect === "proto2") {
        field.label = Label.REQUIRED;
      } else if (!isMessage && dialect === "editions") {
        setFeatures(
          field,
          draw(fc.constantFrom, FeatureSet_FieldPresence.IMPLICIT, FeatureSet_FieldPresence.LEGACY_REQUIRED),
        );
      }
      break;
    default:
  }
  change?.(field, draw);
  message.field.push(field);
}

function newField(
  draw: Draw,
  dialect: Dialect,
  index: number,
  name: string,
  number: number,
): FieldDescriptorProto {
  const field = create(FieldDescriptorProtoSchema, { name, number, type: draw(fc.constantFrom, ...scalars) });
  const kind = draw(fc.constantFrom, "scalar", "scalar", "enum", "message", "known");
  if (kind === "enum") {
    field.type = Type.ENUM;
    field.typeName = draw(fc.constantFrom, ".test.E0", ".test.E1");
    // An open enum needs a first value of zero only in proto3; closed enums cannot be used there.
    if (draw(fc.nat, { max: 4 }) === 0) {
      field.typeName = ".google.protobuf.NullValue";
    }
  } else if (kind === "message") {
    field.type = Type.MESSAGE;
    field.typeName = `.test.M${draw(fc.nat, { max: MESSAGES - 1 })}`;
    if (dialect === "proto2" && draw(fc.boolean)) {
      field.type = Type.GROUP;
    } else if (dialect === "editions" && draw(fc.boolean)) {
      field.options = create(FieldOptionsSchema, {
        features: create(FeatureSetSchema, { messageEncoding: FeatureSet_MessageEncoding.DELIMITED }),
      });
    }
  } else if (kind === "known") {
    field.type = Type.MESSAGE;
    field.typeName = `.google.protobuf.${draw(fc.constantFrom, ...wellKnownTypes)}`;
  } else if ([Type.INT64, Type.UINT64, Type.FIXED64].includes(field.type) && draw(fc.boolean)) {
    field.options = create(FieldOptionsSchema, { jstype: FieldOptions_JSType.JS_STRING });
  }
  const custom = draw(fc.nat, { max: 5 });
  field.jsonName = custom === 0 ? `${name}-@custom ${index}` : protoCamelCase(name);
  return field;
}

function setFeatures(field: FieldDescriptorProto, fieldPresence: FeatureSet_FieldPresence): void {
  field.options ??= create(FieldOptionsSchema);
  field.options.features = Object.assign(field.options.features ?? create(FeatureSetSchema), {
    fieldPresence,
  });
}

function toMap(draw: Draw, message: DescriptorProto, field: FieldDescriptorProto): void {
  const name = `${field.name[0]?.toUpperCase()}${field.name.slice(1).replace("_", "")}Entry`;
  const { type, typeName } = field;
  message.nestedType.push(
    create(DescriptorProtoSchema, {
      name,
      options: { mapEntry: true },
      field: [
        { name: "key", number: 1, label: Label.OPTIONAL, type: draw(fc.constantFrom, ...mapKeys) },
        {
          name: "value",
          number: 2,
          label: Label.OPTIONAL,
          type: type === Type.GROUP ? Type.MESSAGE : type,
          ...(typeName === "" ? {} : { typeName }),
        },
      ],
    }),
  );
  field.label = Label.REPEATED;
  field.type = Type.MESSAGE;
  field.typeName = `.test.${message.name}.${name}`;
  delete field.options;
}
