import { clearField, clone, create, type DescFile, equals, toBinary } from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  type FileDescriptorSet,
  type SourceCodeInfo,
  SourceCodeInfoSchema,
} from "@bufbuild/protobuf/wkt";

/** A Protobuf file as reflection sends it. */
export interface ServedFile {
  /** Unique in its index. */
  readonly name: string;
  /** The files it imports, in order. */
  readonly dependencies: readonly ServedFile[];
  /** The serialized `google.protobuf.FileDescriptorProto`. */
  bytes(): Uint8Array;
}

/** Finds Protobuf files by what they declare. */
export interface FileIndex {
  byName(name: string): ServedFile | undefined;
  /**
   * The file that declares a symbol: a message, enum, enum value, field, oneof, extension, service or method by its
   * full name. `package.Service/Method` is understood too.
   */
  bySymbol(symbol: string): ServedFile | undefined;
  /** The file that declares the extension of a message with a field number. */
  byExtension(message: string, fieldNumber: number): ServedFile | undefined;
  /** The field numbers of all extensions of a message, ascending; undefined when there is no such message. */
  extensionNumbers(message: string): readonly number[] | undefined;
}

/** Serialized files, for as long as their descriptors live: many servers in a process may serve the same ones. */
const serialized = new WeakMap<DescFile, Uint8Array>();

/**
 * Indexes files with all that they depend on.
 *
 * A client knows a file by its name and accepts a symbol from one file only, but generated code from different
 * places can bring two files of one name. If they declare a common symbol they are taken for two copies, and the first
 * is served. Otherwise they are strangers, and the second is served under a name of its own.
 *
 * @param documented the same files with their comments, which generated code lacks. Files in it that differ from the
 *   indexed ones in anything else are out of date, and left aside.
 */
export function createFileIndex(files: Iterable<DescFile>, documented?: FileDescriptorSet): FileIndex {
  const sources = new Map(documented?.file.map((file) => [file.name, file]));
  const served = new Map<DescFile, ServedFile>();
  const names = new Map<string, ServedFile>();
  const symbols = new Map<string, ServedFile>();
  /** By message, also those without any, and field number. */
  const extensions = new Map<string, Map<number, ServedFile>>();

  function ofMessage(message: string): Map<number, ServedFile> {
    const known = extensions.get(message) ?? new Map<number, ServedFile>();
    extensions.set(message, known);
    return known;
  }

  function add(file: DescFile): ServedFile {
    const known = served.get(file) ?? copyOf(file);
    if (known !== undefined) {
      served.set(file, known);
      return known;
    }
    const dependencies = file.dependencies.map(add);
    const entry = serve(file, unusedName(file.proto.name), dependencies, sources.get(file.proto.name));
    served.set(file, entry);
    names.set(entry.name, entry);
    for (const symbol of declaredSymbols(file)) {
      if (!symbols.has(symbol)) {
        symbols.set(symbol, entry);
      }
    }
    for (const type of nestedTypes(file)) {
      if (type.kind === "message") {
        ofMessage(type.typeName);
      } else if (type.kind === "extension") {
        ofMessage(type.extendee.typeName).set(type.number, entry);
      }
    }
    return entry;
  }

  function copyOf(file: DescFile): ServedFile | undefined {
    const namesake = names.get(file.proto.name);
    return namesake && [...declaredSymbols(file)].some((symbol) => symbols.get(symbol) === namesake)
      ? namesake
      : undefined;
  }

  function unusedName(name: string): string {
    let unused = name;
    for (let number = 2; names.has(unused); number++) {
      unused = name.replace(/(\.proto)?$/, `.${number}$1`);
    }
    return unused;
  }

  for (const file of files) {
    add(file);
  }
  return {
    byName: (name) => names.get(name),
    bySymbol: (symbol) => symbols.get(symbol.replace("/", ".")),
    byExtension: (message, fieldNumber) => extensions.get(message)?.get(fieldNumber),
    extensionNumbers(message) {
      const numbers = extensions.get(message)?.keys();
      return numbers && [...numbers].sort((a, b) => a - b);
    },
  };
}

/** Prepares a file to be sent: under a name, with imports, and with comments that may not be its own. */
function serve(
  file: DescFile,
  name: string,
  dependencies: readonly ServedFile[],
  source: FileDescriptorProto | undefined,
): ServedFile {
  const isRenamed =
    name !== file.proto.name || dependencies.some((each, i) => each.name !== file.proto.dependency[i]);
  const comments = source && commentsFor(file.proto, source);
  if (!isRenamed && comments === undefined) {
    return { name, dependencies, bytes: () => serialize(file) };
  }
  const changed = clone(FileDescriptorProtoSchema, file.proto);
  changed.name = name;
  changed.dependency = dependencies.map((each) => each.name);
  if (comments !== undefined) {
    changed.sourceCodeInfo = comments;
  }
  const bytes = toBinary(FileDescriptorProtoSchema, changed);
  return { name, dependencies, bytes: () => bytes };
}

function serialize(file: DescFile): Uint8Array {
  const bytes = serialized.get(file) ?? toBinary(FileDescriptorProtoSchema, file.proto);
  serialized.set(file, bytes);
  return bytes;
}

/** The comments in a file's source, without the positions of everything else; undefined when it is another source. */
function commentsFor(file: FileDescriptorProto, source: FileDescriptorProto): SourceCodeInfo | undefined {
  const { sourceCodeInfo } = source;
  const declarations = clone(FileDescriptorProtoSchema, source);
  clearField(declarations, FileDescriptorProtoSchema.field.sourceCodeInfo);
  return sourceCodeInfo && equals(FileDescriptorProtoSchema, declarations, file)
    ? create(SourceCodeInfoSchema, {
        location: sourceCodeInfo.location.filter((each) => each.leadingComments || each.trailingComments),
      })
    : undefined;
}

/** The full names of everything that a file declares. */
function* declaredSymbols(file: DescFile): Generator<string> {
  for (const type of nestedTypes(file)) {
    yield type.typeName;
    switch (type.kind) {
      case "message":
        yield* [...type.fields, ...type.oneofs].map(({ name }) => `${type.typeName}.${name}`);
        break;
      case "service":
        yield* type.methods.map(({ name }) => `${type.typeName}.${name}`);
        break;
      case "enum": {
        // Protobuf scopes enum values as siblings of their enum; many clients take them for its children.
        const scope = type.typeName.slice(0, -type.name.length);
        yield* type.values.flatMap(({ name }) => [`${scope}${name}`, `${type.typeName}.${name}`]);
        break;
      }
      case "extension":
        break;
    }
  }
}
