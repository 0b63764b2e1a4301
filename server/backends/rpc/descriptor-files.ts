import {
  create,
  createFileRegistry,
  type DescFile,
  type FileRegistry,
  fromBinary,
  toBinary,
} from "@bufbuild/protobuf";
import { protoCamelCase } from "@bufbuild/protobuf/reflect";
import {
  type DescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_any,
  file_google_protobuf_api,
  file_google_protobuf_descriptor,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_field_mask,
  file_google_protobuf_source_context,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_type,
  file_google_protobuf_wrappers,
} from "@bufbuild/protobuf/wkt";

/** Files of one service that are read at most. */
export const MAX_FILES = 2_000;
/** Files that may be broken before the rest is given up: each costs linking the others again. */
const MAX_BROKEN = 100;

const BUILT_IN: ReadonlyMap<string, FileDescriptorProto> = new Map(
  [
    file_google_protobuf_any,
    file_google_protobuf_api,
    file_google_protobuf_descriptor,
    file_google_protobuf_duration,
    file_google_protobuf_empty,
    file_google_protobuf_field_mask,
    file_google_protobuf_source_context,
    file_google_protobuf_struct,
    file_google_protobuf_timestamp,
    file_google_protobuf_type,
    file_google_protobuf_wrappers,
  ].map((file: DescFile) => [file.proto.name, file.proto]),
);

/** Symbol to file name, of everything that is built in. */
const BUILT_IN_SYMBOLS: ReadonlyMap<string, string> = new Map(
  [...BUILT_IN.values()].flatMap((file) => [...symbolsOf(file)].map((symbol) => [symbol, file.name])),
);

/** True for the well-known types, which never have to be asked for. */
export function isBuiltIn(fileName: string): boolean {
  return BUILT_IN.has(fileName);
}

/** Files that are ready to use, and what is wrong with the others. */
export interface LinkedFiles {
  readonly registry: FileRegistry;
  /** In dependency order, the same for the same input in any order. */
  readonly files: readonly FileDescriptorProto[];
  /** File name to what is wrong with it. */
  readonly broken: ReadonlyMap<string, string>;
}

/**
 * Links files as servers and people hand them in. Servers leave out imports that only options need, send files under
 * other names than they import them by, send files twice, leave out JSON names, and write type names relative to their
 * scope. All of that is put right: imports are derived from the types used, well-known types are always ours, and a file
 * that still does not link is set aside together with the files that need it. The given files are changed.
 */
export function linkFiles(given: Iterable<FileDescriptorProto>): LinkedFiles {
  const files = new Map<string, FileDescriptorProto>();
  for (const file of given) {
    if (!BUILT_IN.has(file.name) && !files.has(file.name) && !redefinesBuiltIn(file)) {
      files.set(file.name, file);
    }
  }
  const fileOf = new Map(BUILT_IN_SYMBOLS);
  for (const file of sorted(files.values())) {
    for (const symbol of symbolsOf(file)) {
      if (!fileOf.has(symbol)) {
        fileOf.set(symbol, file.name);
      }
    }
  }
  for (const file of files.values()) {
    repair(file, fileOf);
  }
  for (const name of [...files.values()].flatMap(({ dependency }) => dependency)) {
    addBuiltIn(name, files);
  }

  const broken = new Map<string, string>();
  let order = inDependencyOrder(files, broken);
  for (;;) {
    const result = tryLink(order);
    if ("registry" in result) {
      return { registry: result.registry, files: order, broken };
    }
    if (broken.size >= MAX_BROKEN) {
      throw new Error(`more than ${MAX_BROKEN} files do not link, the last one: ${result.reason}`);
    }
    broken.set(result.file.name, result.reason);
    order = withoutDependents(order, broken);
  }
}

/** Types that the files use and neither they nor the well-known types define, without leading dots. */
export function missingSymbols(files: Iterable<FileDescriptorProto>): Set<string> {
  const known = new Set(BUILT_IN_SYMBOLS.keys());
  const all = [...files];
  for (const file of all) {
    for (const symbol of symbolsOf(file)) {
      known.add(symbol);
    }
  }
  const missing = new Set<string>();
  for (const file of all) {
    for (const { name } of referencesOf(file)) {
      // A relative name that does not resolve could be anything: only a full one can be asked for.
      if (name.startsWith(".") && !known.has(name.slice(1))) {
        missing.add(name.slice(1));
      }
    }
  }
  return missing;
}

/** The files as a serialized FileDescriptorSet, without source information. */
export function serializeFiles(files: readonly FileDescriptorProto[]): Uint8Array {
  return toBinary(
    FileDescriptorSetSchema,
    create(FileDescriptorSetSchema, {
      file: files.map((file) =>
        Object.assign(create(FileDescriptorProtoSchema), file, { sourceCodeInfo: undefined }),
      ),
    }),
  );
}

/** Reads a serialized FileDescriptorSet that `serializeFiles` wrote. */
export function readFiles(bytes: Uint8Array): FileRegistry {
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
}

function sorted(files: Iterable<FileDescriptorProto>): FileDescriptorProto[] {
  return [...files].sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** A copy of a well-known file under another name; what it defines is taken from ours. */
function redefinesBuiltIn(file: FileDescriptorProto): boolean {
  if (file.package !== "google.protobuf") {
    return false;
  }
  for (const symbol of symbolsOf(file)) {
    if (BUILT_IN_SYMBOLS.has(symbol)) {
      return true;
    }
  }
  return false;
}

function addBuiltIn(name: string, files: Map<string, FileDescriptorProto>): void {
  const file = BUILT_IN.get(name);
  if (file && !files.has(name)) {
    files.set(name, file);
    for (const dependency of file.dependency) {
      addBuiltIn(dependency, files);
    }
  }
}

/** Makes names absolute, adds JSON names, and imports exactly what is used. */
function repair(file: FileDescriptorProto, fileOf: ReadonlyMap<string, string>): void {
  const imports = new Set<string>();
  for (const reference of referencesOf(file)) {
    const symbol = resolve(reference, fileOf);
    if (symbol !== undefined) {
      reference.set(`.${symbol}`);
      const origin = fileOf.get(symbol);
      if (origin !== undefined && origin !== file.name) {
        imports.add(origin);
      }
    }
  }
  for (const [message] of withScopes(file)) {
    for (const field of message.field) {
      field.jsonName ||= protoCamelCase(field.name);
    }
  }
  file.dependency = [...imports].sort();
  // These are positions in the list of imports, which has changed. Nothing that links or calls reads them.
  file.publicDependency = [];
  file.weakDependency = [];
}

/** A type name as written, where it was written, and how to write another. */
interface Reference {
  readonly name: string;
  readonly scope: string;
  set(name: string): void;
}

function* referencesOf(file: FileDescriptorProto): Generator<Reference> {
  function* ofField(field: FieldDescriptorProto, scope: string): Generator<Reference> {
    if (field.typeName) {
      yield { name: field.typeName, scope, set: assign(field, "typeName") };
    }
    if (field.extendee) {
      yield { name: field.extendee, scope, set: assign(field, "extendee") };
    }
  }
  for (const [message, scope] of withScopes(file)) {
    for (const field of [...message.field, ...message.extension]) {
      yield* ofField(field, scope);
    }
  }
  for (const field of file.extension) {
    yield* ofField(field, file.package);
  }
  for (const service of file.service) {
    const scope = join(file.package, service.name);
    for (const method of service.method) {
      yield { name: method.inputType, scope, set: assign(method, "inputType") };
      yield { name: method.outputType, scope, set: assign(method, "outputType") };
    }
  }
}

function assign<K extends string>(owner: { [key in K]: string }, key: K): (value: string) => void {
  return (value) => {
    owner[key] = value;
  };
}

/** Finds a name the way Protobuf does: from the innermost scope outwards. */
function resolve({ name, scope }: Reference, fileOf: ReadonlyMap<string, string>): string | undefined {
  if (name.startsWith(".")) {
    return name.slice(1);
  }
  for (let outer = scope; ; outer = outer.slice(0, Math.max(0, outer.lastIndexOf(".")))) {
    const candidate = join(outer, name);
    if (fileOf.has(candidate)) {
      return candidate;
    }
    if (outer === "") {
      return undefined;
    }
  }
}

/** The messages and enums of a file, by their full names. */
function* symbolsOf(file: FileDescriptorProto): Generator<string> {
  for (const { name } of file.enumType) {
    yield join(file.package, name);
  }
  for (const [message, scope] of withScopes(file)) {
    yield scope;
    for (const { name } of message.enumType) {
      yield join(scope, name);
    }
  }
}

/** All messages with their full names, outer ones first. */
function* withScopes(file: FileDescriptorProto): Generator<[DescriptorProto, string]> {
  const pending = file.messageType.map((message): [DescriptorProto, string] => [
    message,
    join(file.package, message.name),
  ]);
  for (let next = pending.pop(); next; next = pending.pop()) {
    yield next;
    const [message, scope] = next;
    for (const nested of message.nestedType) {
      pending.push([nested, join(scope, nested.name)]);
    }
  }
}

function join(scope: string, name: string): string {
  return scope === "" ? name : `${scope}.${name}`;
}

/** Imports before the files that need them, by name where that leaves a choice. Cycles are broken files. */
function inDependencyOrder(
  files: ReadonlyMap<string, FileDescriptorProto>,
  broken: Map<string, string>,
): FileDescriptorProto[] {
  const order: FileDescriptorProto[] = [];
  const done = new Set<string>();
  let pending = sorted(files.values());
  while (pending.length > 0) {
    const ready = pending.filter(({ dependency }) => dependency.every((name) => done.has(name)));
    if (ready.length === 0) {
      for (const { name } of pending) {
        broken.set(name, `${name} is part of a circle of imports`);
      }
      return order;
    }
    for (const file of ready) {
      done.add(file.name);
      order.push(file);
    }
    pending = pending.filter(({ name }) => !done.has(name));
  }
  return order;
}

function withoutDependents(
  order: readonly FileDescriptorProto[],
  broken: Map<string, string>,
): FileDescriptorProto[] {
  return order.filter((file) => {
    const needed = file.dependency.find((name) => broken.has(name));
    if (needed !== undefined && !broken.has(file.name)) {
      broken.set(file.name, `it needs ${needed}, which cannot be used: ${broken.get(needed)}`);
    }
    return !broken.has(file.name);
  });
}

function tryLink(
  order: readonly FileDescriptorProto[],
): { readonly registry: FileRegistry } | { readonly file: FileDescriptorProto; readonly reason: string } {
  const set = create(FileDescriptorSetSchema, { file: [...order] });
  let current: FileDescriptorProto | undefined;
  // The registry does not say which file it failed at, so the one that it reads is noted.
  set.file[Symbol.iterator] = function* () {
    for (const file of order) {
      current = file;
      yield file;
    }
    return undefined;
  };
  try {
    return { registry: createFileRegistry(set) };
  } catch (error) {
    if (!current) {
      throw error;
    }
    return { file: current, reason: error instanceof Error ? error.message : String(error) };
  }
}
