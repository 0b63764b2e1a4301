import { UsageError } from "../usage-error.ts";

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const PART = /(\d+(?:\.\d+)?)(ms|s|m|h|d)/y;

/** Reads `500ms`, `30s`, `1h30m`, or a plain number of seconds, into milliseconds. */
export function parseDuration(text: string, option: string): number {
  if (/^\d+(\.\d+)?$/.test(text) && Number(text) > 0) return Number(text) * 1000;
  let total = 0;
  PART.lastIndex = 0;
  let end = 0;
  for (let match = PART.exec(text); match !== null; match = PART.exec(text)) {
    total += Number(match[1]) * (UNIT_MS[match[2] as keyof typeof UNIT_MS] ?? Number.NaN); // The pattern names the units.
    end = PART.lastIndex;
  }
  if (end !== text.length || !(total > 0)) {
    throw new UsageError(
      `${option}: "${text}" is not a length of time`,
      "Write it as 500ms, 30s, 2m or 1h30m.",
    );
  }
  return total;
}
