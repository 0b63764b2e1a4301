import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

/** Milliseconds for people: `0.4 ms`, `12 ms`, `1.5 s`, `3m 20s`, `2h 5m`. */
export function formatMs(ms: number): string {
  if (ms < 10) return `${trim(ms.toFixed(1))} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${trim((ms / 1000).toFixed(1))} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return pair(Math.floor(seconds / 60), "m", seconds % 60, "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 48 * 60) return pair(Math.floor(minutes / 60), "h", minutes % 60, "m");
  return `${Math.floor(minutes / 1440)}d`;
}

/** How long ago, in one unit: `now`, `12s ago`, `5m ago`, `3h ago`, `9d ago`. */
export function formatAge(time: Timestamp | undefined, now: number): string {
  if (time === undefined) return "never";
  const seconds = Math.floor((now - timestampMs(time)) / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h ago`;
  return `${Math.floor(seconds / 86_400)}d ago`;
}

/** The time of day, in the user's zone: `14:03:27`. */
export function formatClock(ms: number): string {
  return new Date(ms).toTimeString().slice(0, 8);
}

export function formatDuration(duration: Duration | undefined): string {
  return duration === undefined ? "" : formatMs(durationMs(duration));
}

export function durationMs(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

export function timestampMs(time: Timestamp): number {
  return Number(time.seconds) * 1000 + time.nanos / 1e6;
}

/** `1 tool`, `2 tools`, `1,200 tools`. */
export function count(n: number, noun: string, plural = `${noun}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? noun : plural}`;
}

/** Bytes for people: `512 B`, `1.5 KiB`, `100 MiB`. */
export function formatBytes(bytes: number | bigint): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = Number(bytes);
  let unit = 0;
  // What would be written as 1024 of a unit is 1 of the next.
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 9.95 && unit > 0 ? trim(value.toFixed(1)) : Math.round(value)} ${units[unit]}`;
}

/** A part of a whole from 0 to 1 in percent: `98.4 %`. Only all is `100 %`, only nothing is `0 %`. */
export function formatShare(share: number): string {
  const percent = Math.round(share * 1000) / 10;
  if (percent >= 100 && share < 1) return "99.9 %";
  if (percent <= 0 && share > 0) return "0.1 %";
  return `${trim(percent.toFixed(1))} %`;
}

/** A number for people: `1,200`, `12.5`, `0.042`. */
export function formatNumber(value: number | bigint): string {
  const isSmall = Math.abs(Number(value)) < 100;
  return value.toLocaleString("en", isSmall ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 1 });
}

/** How long until then, in one unit: `now`, `in 12s`, `in 5m`. */
export function formatUntil(time: Timestamp | undefined, now: number): string {
  if (time === undefined) return "";
  const seconds = Math.ceil((timestampMs(time) - now) / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `in ${seconds}s`;
  return `in ${Math.ceil(seconds / 60)}m`;
}

/** The first sentence of a text, for a line of a table. */
export function firstSentence(text: string): string {
  const line = text.trim().split(/\n\s*\n/, 1)[0] ?? "";
  return /^.*?[.!?](?=\s|$)/s.exec(line)?.[0].replace(/\.$/, "") ?? line;
}

function trim(number: string): string {
  return number.replace(/\.0$/, "");
}

function pair(high: number, highUnit: string, low: number, lowUnit: string): string {
  return low === 0 ? `${high}${highUnit}` : `${high}${highUnit} ${low}${lowUnit}`;
}
