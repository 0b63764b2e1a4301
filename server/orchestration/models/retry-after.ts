import type { IncomingHttpHeaders } from "node:http";

/** No provider is believed when it asks for more. */
const MAX_MS = 60 * 60 * 1_000;

/**
 * How long a provider asks to wait, in milliseconds; undefined where it does not say. It may do so by `retry-after-ms`, by
 * `retry-after` in seconds or as a date, or by the times at which limits that are used up are full again.
 */
export function retryAfterMs(headers: IncomingHttpHeaders, now: number): number | undefined {
  const wait = asked(headers, now) ?? resets(headers, now);
  return wait === undefined ? undefined : Math.min(Math.max(Math.ceil(wait), 0), MAX_MS);
}

function asked(headers: IncomingHttpHeaders, now: number): number | undefined {
  const ms = toNumber(headers["retry-after-ms"]);
  if (ms !== undefined) {
    return ms;
  }
  const text = headers["retry-after"];
  const seconds = toNumber(text);
  return seconds === undefined ? untilDate(text, now) : seconds * 1_000;
}

/** The latest of the limits of which nothing is left. */
function resets(headers: IncomingHttpHeaders, now: number): number | undefined {
  const waits = Object.entries(headers).flatMap(([name, value]) => {
    const [, limit] = /^anthropic-ratelimit-(.+)-reset$/.exec(name) ?? [];
    if (limit !== undefined && headers[`anthropic-ratelimit-${limit}-remaining`] === "0") {
      return untilDate(value, now) ?? [];
    }
    const [, kind] = /^x-ratelimit-reset-(.+)$/.exec(name) ?? [];
    return kind !== undefined && headers[`x-ratelimit-remaining-${kind}`] === "0"
      ? (goDuration(value) ?? [])
      : [];
  });
  return waits.length === 0 ? undefined : Math.max(...waits);
}

type Header = IncomingHttpHeaders[string];

function toNumber(value: Header): number | undefined {
  return typeof value === "string" && /^\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : undefined;
}

function untilDate(value: Header, now: number): number | undefined {
  const time = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return Number.isNaN(time) ? undefined : time - now;
}

const UNITS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };

/** Such as `6m0s` or `20ms`. */
function goDuration(value: Header): number | undefined {
  if (typeof value !== "string" || !/^(\d+(\.\d+)?(h|ms|m|s))+$/.test(value)) {
    return undefined;
  }
  return [...value.matchAll(/([\d.]+)(h|ms|m|s)/g)].reduce(
    (sum, [, number, unit = ""]) => sum + Number(number) * (UNITS[unit] ?? 0),
    0,
  );
}
