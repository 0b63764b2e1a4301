import { hash } from "node:crypto";
import type { PurgeScope } from "@toolplane/framework/policies";
import { storable } from "../storage/text.ts";

/** The channel that purges are announced on. */
export const purgeChannel = "toolplane_response_cache";

/** A purge as replicas tell each other. */
export interface PurgeNotice {
  readonly cache: string;
  readonly scope: PurgeScope;
  readonly sequence: number;
}

/** PostgreSQL takes payloads of less than 8,000 bytes. */
const MAX_PAYLOAD_BYTES = 7_900;

/** What does not fit is announced as a purge of everything, which costs the others a few reads. */
export function writeNotice(notice: PurgeNotice): string {
  const text = JSON.stringify(notice);
  return Buffer.byteLength(text) <= MAX_PAYLOAD_BYTES
    ? text
    : JSON.stringify({ ...notice, scope: { kind: "all" } });
}

/** Undefined: it is none of ours, or one of a version that we do not know. */
export function readNotice(payload: string): PurgeNotice | undefined {
  try {
    const notice: PurgeNotice = JSON.parse(payload);
    return ["all", "tag", "key"].includes(notice.scope.kind) && Number.isSafeInteger(notice.sequence)
      ? notice
      : undefined;
  } catch {
    return undefined;
  }
}

/** What a scope is about, as it is stored. */
export function subjectOf(scope: PurgeScope): string {
  switch (scope.kind) {
    case "all":
      return "";
    case "tag":
      return storable(scope.tag);
    case "key":
      return digestOf(scope.key).toString("hex");
  }
}

export function digestOf(key: string): Buffer {
  // UTF-16, because not every string has a form in UTF-8 that differs from that of all others.
  return hash("sha256", Buffer.from(key, "utf16le"), "buffer");
}
