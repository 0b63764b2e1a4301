/** Where replicas tell each other what became of streams. */
export const EVENT_LOG_CHANNEL = "toolplane_event_log";

/** PostgreSQL takes payloads of less than 8,000 bytes; an entry has at most 46. */
const ENTRIES_A_PAYLOAD = 160;

/** The end of a stream, as far as it is known. */
export interface Head {
  /** The number of the stream in the database. Another stream of the same name, later, has another one. */
  readonly id: string;
  /** The number of the last event. */
  readonly last: number;
  /** No event follows the last one. */
  readonly closed: boolean;
}

/** What became of a stream: it has grown or was closed, or it was removed. */
export type StreamChange = Head | { readonly id: string; readonly removed: true };

/** Stands for whoever does not follow streams, in place of a log's own name. */
export const NO_ORIGIN = "-";

/** Payloads of notifications that tell of all changes. `origin` names the log that makes them, in a few letters. */
export function formatChanges(origin: string, changes: readonly StreamChange[]): string[] {
  const entries = changes.map((change) =>
    "removed" in change
      ? `${change.id}:removed`
      : `${change.id}:${change.last}${change.closed ? ":closed" : ""}`,
  );
  const payloads: string[] = [];
  for (let start = 0; start < entries.length; start += ENTRIES_A_PAYLOAD) {
    payloads.push([origin, ...entries.slice(start, start + ENTRIES_A_PAYLOAD)].join(" "));
  }
  return payloads;
}

/** What is not understood, such as what a later version has added, is left out: the poll finds it. */
export function parseChanges(payload: string): { origin: string; changes: StreamChange[] } {
  const changes: StreamChange[] = [];
  const [origin = NO_ORIGIN, ...entries] = payload.split(" ");
  for (const entry of entries) {
    const [id = "", what = "", flag] = entry.split(":");
    if (what === "removed") {
      changes.push({ id, removed: true });
    } else if (/^\d+$/.test(what)) {
      changes.push({ id, last: Number(what), closed: flag === "closed" });
    }
  }
  return { origin, changes };
}
