import type { JournalEntry } from "../engine/journal.ts";
import type { PreparedEntry } from "./step-images.ts";

/** What one append holds, at most; a single entry may be larger. */
const MAX_ENTRIES = 500;
const MAX_BYTES = 2 * 1024 * 1024;

export function isTooLarge(entries: number, bytes: number): boolean {
  return entries > MAX_ENTRIES || bytes > MAX_BYTES;
}

/** Entries in parts that one append holds. */
export function* partsOf(entries: readonly PreparedEntry[]): Generator<readonly PreparedEntry[]> {
  let start = 0;
  let bytes = 0;
  for (const [index, entry] of entries.entries()) {
    bytes += sizeOf(entry);
    if (index > start && isTooLarge(index + 1 - start, bytes)) {
      yield entries.slice(start, index);
      start = index;
      bytes = sizeOf(entry);
    }
  }
  if (start < entries.length) {
    yield entries.slice(start);
  }
}

/** In bytes. */
export function sizeOf({ event, result }: PreparedEntry): number {
  return event.byteLength + (result.output?.byteLength ?? 0) + (result.error?.byteLength ?? 0);
}

/** What the store itself tells: nobody else does. */
export function isTold({ kind }: JournalEntry): boolean {
  return kind.case === "started" || kind.case === "waiting" || kind.case === "cancelRequested";
}

/** What a run can do without when it has too many events. */
export function isDispensable({ kind }: JournalEntry): boolean {
  switch (kind.case) {
    case "modelDelta":
    case "toolSelection":
      return true;
    case "stepProgress":
      return kind.value.childId === "";
    default:
      return false;
  }
}
