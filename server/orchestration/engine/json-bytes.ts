import type { JsonValue } from "@bufbuild/protobuf";

/** The size of a value as JSON, in bytes. */
export function jsonBytes(value: JsonValue): number {
  return Buffer.byteLength(JSON.stringify(value));
}
