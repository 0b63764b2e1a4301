import { createHash } from "node:crypto";

/** What stands below a thought, so that one that was changed is refused when it is sent back. */
export function signatureOf(thinking: string): string {
  return createHash("sha256").update(`signed ${thinking}`).digest("base64");
}
