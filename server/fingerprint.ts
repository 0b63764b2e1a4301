import { createHash } from "node:crypto";
import { type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";

/** Tells requests apart that have the same id. */
export function fingerprintOf<Desc extends DescMessage>(schema: Desc, request: MessageShape<Desc>): string {
  return createHash("sha256").update(toBinary(schema, request)).digest("base64url");
}
