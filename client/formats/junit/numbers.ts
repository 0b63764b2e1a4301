import type { MessageInitShape } from "@bufbuild/protobuf";
import { type DurationSchema, type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";

const MAX_SECONDS = 1e9;

/**
 * A time in seconds as producers print it: `1.5`, `1,234.5` with thousands, `0,123` and `1.234,5` where the decimal sign
 * is a comma. With one sign alone it is the decimal sign: tests of a second are more usual than tests of half an hour.
 * Undefined: not a time.
 */
export function parseSeconds(text: string | undefined): MessageInitShape<typeof DurationSchema> | undefined {
  const trimmed =
    text
      ?.trim()
      .replace(/\s*s$/, "")
      .replace(/[\s'\u00a0\u202f]/g, "") ?? "";
  const plain = decimal(trimmed);
  const match = /^\+?(\d{1,12})?(?:\.(\d*))?$/.exec(plain);
  if (match !== null && /\d/.test(plain)) {
    const seconds = Number(match[1] ?? "0");
    // Nanoseconds by their digits: a multiplication would not give back what was printed.
    const nanos = Number((match[2] ?? "").padEnd(9, "0").slice(0, 9));
    return seconds < MAX_SECONDS ? { seconds: BigInt(seconds), nanos } : undefined;
  }
  const number = /^\d[\d.]*e[+-]?\d+$/i.test(plain) ? Number(plain) : Number.NaN;
  return number < MAX_SECONDS ? secondsToDuration(number) : undefined;
}

/** @param seconds 0 or more */
export function secondsToDuration(seconds: number): MessageInitShape<typeof DurationSchema> {
  const nanos = Math.round(seconds * 1e9);
  return { seconds: BigInt(Math.floor(nanos / 1e9)), nanos: nanos % 1e9 };
}

/** When something began: ISO 8601, where a time without a zone counts as UTC. Undefined: not a time. */
export function parseTimestamp(text: string | undefined): Timestamp | undefined {
  const trimmed = text?.trim() ?? "";
  if (!/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(trimmed)) {
    return undefined;
  }
  const ms = Date.parse(/(?:Z|[+-]\d\d:?\d\d)$/i.test(trimmed) ? trimmed : `${trimmed.replace(" ", "T")}Z`);
  return Number.isNaN(ms) ? undefined : timestampFromMs(ms);
}

/** A whole number that is not negative, with or without thousands. Undefined: none. */
export function parseCount(text: string | undefined): number | undefined {
  const digits = text?.trim().replace(/[,.'\s]/g, "") ?? "";
  return /^\d{1,9}$/.test(digits) ? Number(digits) : undefined;
}

/** The same number with a dot before its decimals, and nothing between its thousands. */
function decimal(text: string): string {
  const comma = text.lastIndexOf(",");
  const dot = text.lastIndexOf(".");
  if (comma === -1) {
    return text.indexOf(".") === dot ? text : text.replaceAll(".", "");
  }
  if (dot !== -1) {
    return comma < dot ? text.replaceAll(",", "") : text.replaceAll(".", "").replace(",", ".");
  }
  return text.indexOf(",") === comma ? text.replace(",", ".") : text.replaceAll(",", "");
}
