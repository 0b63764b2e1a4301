import { hash } from "node:crypto";
import { type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { UnaryRequest } from "@connectrpc/connect";
import { principalOf } from "./call-context.ts";

/**
 * Names what a unary request asks for, and for whom: requests with the same key ask for the same.
 *
 * SHA-256 over the method, the principal with its role, the values of `headers` and the canonical message, each preceded by its
 * length, so that no two different requests have the same input. In base64url, 43 characters.
 *
 * @param headers names of headers that change what is answered, such as one that names a tenant
 */
export function requestKey(
  request: Pick<UnaryRequest, "method" | "message" | "header" | "contextValues">,
  headers: readonly string[] = [],
): string {
  return keyOf(requestScope(request, headers), canonicalBinary(request.method.input, request.message));
}

function keyOf(scope: string, body: Uint8Array): string {
  // UTF-16, because not every string has a form in UTF-8 that differs from that of all others.
  const scopeEnd = 4 + scope.length * 2;
  const input = Buffer.allocUnsafe(scopeEnd + body.byteLength);
  input.writeUInt32LE(scope.length);
  input.write(scope, 4, "utf16le");
  // What is left is the message.
  input.set(body, scopeEnd);
  return hash("sha256", input, "base64url");
}

/** Up to this size, in bytes, a message is its own name: that takes less time than to find a shorter one. */
const MAX_NAMED_BY_ITSELF = 1_024;

/**
 * As `requestKey`, for what only lives in this process and for as long as the request: not hashed where the message is
 * small, so it may hold what the request holds, and is not to be shown to anyone.
 */
export function localRequestKey(
  request: Pick<UnaryRequest, "method" | "message" | "header" | "contextValues">,
  headers: readonly string[] = [],
): string {
  const body = canonicalBinary(request.method.input, request.message);
  return body.byteLength <= MAX_NAMED_BY_ITSELF
    ? `${requestScope(request, headers)}=${Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("latin1")}`
    : keyOf(requestScope(request, headers), body);
}

/** What a request is about but for its message: its method, its principal with its role, and the values of `headers`. */
export function requestScope(
  { method, header, contextValues }: Pick<UnaryRequest, "method" | "header" | "contextValues">,
  headers: readonly string[] = [],
): string {
  const { id, role } = principalOf(contextValues);
  // Several keys may have one name, and what is answered may depend on the role.
  let scope = part(method.parent.typeName) + part(method.name) + part(id) + part(role);
  for (const name of headers) {
    const value = header.get(name);
    // An absent header is not an empty one.
    scope += value === null ? "-" : part(value);
  }
  return scope;
}

function part(text: string): string {
  return `${text.length}:${text}`;
}

/**
 * The binary form of a message that does not depend on the order in which the entries of its maps were written. Unknown
 * fields are part of it, in the order in which they came. What is packed into a `google.protobuf.Any` is taken as it is.
 *
 * Protobuf does not promise that equal messages have equal bytes; protobuf-es writes fields by number, so maps are all
 * that is left to put in order.
 */
export function canonicalBinary(desc: DescMessage, message: Message): Uint8Array {
  const bytes = toBinary(desc, message);
  const plan = planOf(desc);
  if (plan.size > 0) {
    sortMaps(plan, bytes);
  }
  return bytes;
}

/** Where the maps of a message are, by field number. Fields without any are left out. */
type Plan = Map<number, { readonly isMap: boolean; readonly inside: Plan | undefined }>;

const plans = new WeakMap<DescMessage, Plan>();

function planOf(desc: DescMessage): Plan {
  let plan = plans.get(desc);
  if (plan === undefined) {
    plan = new Map();
    // Kept before it is complete: types contain themselves.
    plans.set(desc, plan);
    for (const field of desc.fields) {
      const inside =
        field.message !== undefined && hasMaps(field.message) ? planOf(field.message) : undefined;
      if (field.fieldKind === "map") {
        // An entry is a message whose field 2 is the value.
        plan.set(field.number, { isMap: true, inside: inside && new Map([[2, { isMap: false, inside }]]) });
      } else if (inside !== undefined) {
        plan.set(field.number, { isMap: false, inside });
      }
    }
  }
  return plan;
}

/** Whether a message of this type can contain a map, at whatever depth. */
function hasMaps(desc: DescMessage, seen = new Set<DescMessage>()): boolean {
  if (seen.has(desc)) {
    return false;
  }
  seen.add(desc);
  return desc.fields.some(
    (field) => field.fieldKind === "map" || (field.message !== undefined && hasMaps(field.message, seen)),
  );
}

/** Puts the entries of each map into the order of their bytes, in place: that changes no length. */
function sortMaps(plan: Plan, bytes: Uint8Array): void {
  const reader = new BinaryReader(bytes);
  let run: { readonly field: number; readonly start: number; readonly entries: Uint8Array[] } | undefined;
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const [field, wireType] = reader.tag();
    const known = plan.get(field);
    if (run !== undefined && run.field !== field) {
      writeSorted(bytes, run.start, run.entries);
      run = undefined;
    }
    if (known === undefined) {
      reader.skip(wireType, field);
      continue;
    }
    const content = contentOf(reader, field, wireType);
    if (known.inside !== undefined) {
      sortMaps(known.inside, content);
    }
    if (known.isMap) {
      run ??= { field, start, entries: [] };
      run.entries.push(bytes.subarray(start, reader.pos));
    }
  }
  if (run !== undefined) {
    writeSorted(bytes, run.start, run.entries);
  }
}

/** The bytes of a message that is a field of another one, which is how every map and every message is written. */
function contentOf(reader: BinaryReader, field: number, wireType: WireType): Uint8Array {
  if (wireType === WireType.LengthDelimited) {
    return reader.bytes();
  }
  const group = reader.skip(wireType, field);
  // The end of a group is a tag like its start, and as long.
  return group.subarray(0, group.byteLength - tagLength(field));
}

function tagLength(field: number): number {
  return Math.ceil((32 - Math.clz32(field << 3)) / 7);
}

function writeSorted(bytes: Uint8Array, start: number, entries: readonly Uint8Array[]): void {
  if (entries.length > 1) {
    const copies = entries.map((entry) => entry.slice()).sort(Buffer.compare);
    let position = start;
    for (const copy of copies) {
      bytes.set(copy, position);
      position += copy.byteLength;
    }
  }
}
