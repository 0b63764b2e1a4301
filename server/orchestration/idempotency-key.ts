import { createHash } from "node:crypto";

/**
 * A UUID that is the same for the same place, whoever makes it and how often: a step of a run for each attempt on each
 * worker, what a step starts, an occurrence of a schedule.
 */
export function idempotencyKey(owner: string, path: string): string {
  const hash = createHash("sha256").update(`${owner}/${path}`).digest();
  // Marks of a UUID whose content is up to whoever makes it: RFC 9562, version 8.
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x80;
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
  const hex = hash.toString("hex", 0, 16);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
