// Writes a file descriptor back as Protobuf source, for the one import that is shipped as a descriptor only. Custom
// options and comments are left out: nobody who imports the file needs them.
import { ScalarType } from "@bufbuild/protobuf";

/** @param {import("@bufbuild/protobuf").DescFile} file */
export function printProto(file) {
  const { proto } = file;
  const out = [`syntax = "${proto.syntax || "proto2"}";`, `package ${proto.package};`];
  for (const dependency of proto.dependency) {
    out.push(`import "${dependency}";`);
  }
  out.push(...file.enums.map(printEnum), ...file.messages.map(printMessage));
  out.push(...file.extensions.map(printExtension));
  return `${out.join("\n")}\n`;
}

function printEnum(desc) {
  return `enum ${desc.name} {\n${desc.values.map((value) => `${value.name} = ${value.number};`).join("\n")}\n}`;
}

function printMessage(desc) {
  const body = [
    ...desc.nestedEnums.map(printEnum),
    ...desc.nestedMessages.filter((nested) => !nested.proto.options?.mapEntry).map(printMessage),
    ...desc.proto.extensionRange.map(
      (range) => `extensions ${range.start} to ${printRangeEnd(range.end - 1)};`,
    ),
    ...desc.proto.reservedRange.map((range) => `reserved ${range.start} to ${printRangeEnd(range.end - 1)};`),
    ...desc.proto.reservedName.map((name) => `reserved "${name}";`),
    ...desc.members.map((member) =>
      member.kind === "oneof"
        ? `oneof ${member.name} {\n${member.fields.map((field) => printField(field, "")).join("\n")}\n}`
        : printField(member, printLabel(member)),
    ),
    ...desc.nestedExtensions.map(printExtension),
  ];
  return `message ${desc.name} {\n${body.join("\n")}\n}`;
}

function printRangeEnd(last) {
  return last === 536870911 ? "max" : String(last);
}

function printExtension(desc) {
  return `extend ${desc.extendee.typeName} {\n${printField(desc, printLabel(desc))}\n}`;
}

function printLabel(field) {
  switch (field.fieldKind) {
    case "map":
      return "";
    case "list":
      return "repeated ";
    default:
      return "optional ";
  }
}

function printField(field, label) {
  return `${label}${printType(field)} ${field.name} = ${field.number};`;
}

function printType(field) {
  switch (field.fieldKind) {
    case "map": {
      const value =
        field.mapKind === "scalar" ? scalarName(field.scalar) : `.${(field.message ?? field.enum).typeName}`;
      return `map<${scalarName(field.mapKey)}, ${value}>`;
    }
    case "list":
      return field.listKind === "scalar"
        ? scalarName(field.scalar)
        : `.${(field.message ?? field.enum).typeName}`;
    case "scalar":
      return scalarName(field.scalar);
    default:
      return `.${(field.message ?? field.enum).typeName}`;
  }
}

function scalarName(scalar) {
  return ScalarType[scalar].toLowerCase();
}
