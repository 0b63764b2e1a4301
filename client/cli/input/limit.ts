import { UsageError } from "../usage-error.ts";

/** Reads `--limit`; 0 means all and becomes Infinity. */
export function parseLimit(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`--limit: "${text}" is not a whole number`);
  return Number(text) === 0 ? Number.POSITIVE_INFINITY : Number(text);
}
