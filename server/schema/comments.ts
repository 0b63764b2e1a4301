import type { AnyDesc } from "@bufbuild/protobuf";
import type {
  DescriptorProto,
  EnumDescriptorProto,
  FileDescriptorProto,
  ServiceDescriptorProto,
} from "@bufbuild/protobuf/wkt";

const commentsByFile = new WeakMap<FileDescriptorProto, Map<object, string>>();

/**
 * The comment in front of an element of a `.proto` file, without comment marks; undefined when it has none or when the
 * descriptor came without source information. Notes to linters are left out.
 */
export function leadingComment(desc: Exclude<AnyDesc, { kind: "file" }>): string | undefined {
  const file = desc.kind === "enum_value" ? desc.parent.file : "file" in desc ? desc.file : desc.parent.file;
  let comments = commentsByFile.get(file.proto);
  if (comments === undefined) {
    comments = readComments(file.proto);
    commentsByFile.set(file.proto, comments);
  }
  return comments.get(desc.proto);
}

function readComments(file: FileDescriptorProto): Map<object, string> {
  const comments = new Map<object, string>();
  for (const location of file.sourceCodeInfo?.location ?? []) {
    const text = clean(location.leadingComments);
    const element = text === "" ? undefined : elementAt(file, location.path);
    if (element !== undefined) {
      comments.set(element, text);
    }
  }
  return comments;
}

function clean(comment: string): string {
  return withoutAsides(comment)
    .split("\n")
    .map((line) => line.replace(/^ /, "").trimEnd())
    .filter((line) => !/^(?:buf:lint:|protolint:|@exclude)/.test(line))
    .join("\n")
    .trim();
}

/** Removes what Google's API linter is told between "(--" and "--)". Linear, whatever a hostile server sends. */
function withoutAsides(comment: string): string {
  let kept = "";
  let from = 0;
  for (;;) {
    const start = comment.indexOf("(--", from);
    const end = start < 0 ? -1 : comment.indexOf("--)", start);
    if (end < 0) {
      return kept + comment.slice(from);
    }
    kept += comment.slice(from, start);
    from = end + 3;
  }
}

// Paths alternate field numbers of descriptor.proto with indexes, as described at google.protobuf.SourceCodeInfo.Location.
function elementAt(file: FileDescriptorProto, path: readonly number[]): object | undefined {
  const [kind, index = -1, ...rest] = path;
  switch (kind) {
    case 4:
      return inMessage(file.messageType[index], rest);
    case 5:
      return inEnum(file.enumType[index], rest);
    case 6:
      return inService(file.service[index], rest);
    case 7:
      return rest.length === 0 ? file.extension[index] : undefined;
    default:
      return undefined;
  }
}

function inMessage(message: DescriptorProto | undefined, path: readonly number[]): object | undefined {
  const [kind, index = -1, ...rest] = path;
  switch (kind) {
    case undefined:
      return message;
    case 3:
      return inMessage(message?.nestedType[index], rest);
    case 4:
      return inEnum(message?.enumType[index], rest);
    case 2:
      return rest.length === 0 ? message?.field[index] : undefined;
    case 6:
      return rest.length === 0 ? message?.extension[index] : undefined;
    case 8:
      return rest.length === 0 ? message?.oneofDecl[index] : undefined;
    default:
      return undefined;
  }
}

function inEnum(descriptor: EnumDescriptorProto | undefined, path: readonly number[]): object | undefined {
  const [kind, index = -1, ...rest] = path;
  if (kind === undefined) {
    return descriptor;
  }
  return kind === 2 && rest.length === 0 ? descriptor?.value[index] : undefined;
}

function inService(service: ServiceDescriptorProto | undefined, path: readonly number[]): object | undefined {
  const [kind, index = -1, ...rest] = path;
  if (kind === undefined) {
    return service;
  }
  return kind === 2 && rest.length === 0 ? service?.method[index] : undefined;
}
