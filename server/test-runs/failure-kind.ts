import { hash } from "node:crypto";

/** As much of a message as tells what kind of failure it is. */
const MAX_LENGTH = 300;

/**
 * A number that failures share whose messages differ in numbers, names in quotes, addresses and places only, as those do
 * that have one cause in the environment.
 */
export function failureKind(message: string): number {
  const [firstLine = ""] = message.trim().slice(0, MAX_LENGTH).split("\n", 1);
  const normalised = firstLine
    .replaceAll(/"[^"]*"|'[^']*'|`[^`]*`/g, "Q")
    .replaceAll(/\S*[/\\]\S*/g, "P")
    .replaceAll(/\b(?:0x)?[0-9a-f-]*\d[0-9a-f-]*\b/gi, "N")
    .replaceAll(/\s+/g, " ");
  return hash("sha1", normalised, "buffer").readInt32BE(0);
}
