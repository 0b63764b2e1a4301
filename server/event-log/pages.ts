import { type ByteLru, createByteLru } from "@toolplane/framework/policies";
import { sql } from "kysely";
import type { Database } from "../storage/database.ts";
import { type LogPage, UnknownStreamError } from "./event-log.ts";

/** A page ends at a multiple of this, so that watchers who began anywhere soon read the same ones. */
const PAGE_EVENTS = 256;
/** A page ends with the event that makes it larger. */
const PAGE_BYTES = 1024 * 1024;
/** What an event takes in memory besides its payload, roughly: the view upon the page's bytes. */
const EVENT_OVERHEAD_BYTES = 160;

export interface PagesOptions {
  readonly database: Pick<Database, "kysely">;
  /** So many bytes of events are kept in memory at most. */
  readonly maxBytes: number;
}

export interface PagesStats {
  readonly entries: number;
  readonly bytes: number;
  readonly maxBytes: number;
  /** Pages, or their ends, that were read from the database. */
  readonly loads: number;
}

/** The events of all streams, by pages, of which those used last are in memory. */
export interface Pages {
  /**
   * Events after `after`: up to the end of their page, or up to `last`, which is stored. Whoever asks for the same gets
   * the same objects.
   */
  read(streamId: string, after: number, last: number): Promise<LogPage>;
  /** Adds what was just appended to the last page, if that is in memory, so that it need not be read. */
  extend(streamId: string, page: LogPage): void;
  stats(): PagesStats;
}

interface Page extends LogPage {
  readonly bytes: number;
}

export function createPages({ database, maxBytes }: PagesOptions): Pages {
  const cache: ByteLru<Page> = createByteLru<Page>({
    maxBytes,
    bytesOf: ({ bytes, events }) => bytes + (events.length + 1) * EVENT_OVERHEAD_BYTES,
  });
  const loading = new Map<string, Promise<Page>>();
  let loads = 0;

  /** The page that begins with `first`, at least up to `wanted`, unless it is full before that. */
  async function pageFrom(streamId: string, first: number, wanted: number, last: number): Promise<Page> {
    const key = `${streamId}/${first}`;
    for (;;) {
      let page = cache.get(key);
      if (page === undefined || !reaches(page, wanted)) {
        page = await (loading.get(key) ?? load(key, streamId, page ?? { first, events: [], bytes: 0 }, last));
      }
      // What somebody else was loading may have been asked for before the wanted event was there.
      if (reaches(page, wanted)) {
        return page;
      }
    }
  }

  function load(key: string, streamId: string, known: Page, last: number): Promise<Page> {
    const work = loadRest(streamId, known, last)
      .then((page) => {
        const present = cache.peek(key);
        // It may have been extended meanwhile.
        if (present === undefined || endOf(present) < endOf(page)) {
          cache.set(key, page);
        }
        return page;
      })
      .finally(() => loading.delete(key));
    loading.set(key, work);
    return work;
  }

  async function loadRest(streamId: string, known: Page, last: number): Promise<Page> {
    loads++;
    const first = endOf(known) + 1;
    const upTo = Math.min(last, boundaryOf(known.first));
    const { rows } = await sql<{ payloads: Buffer | null; lengths: number[] | null }>`
      SELECT string_agg(payload, ''::bytea ORDER BY sequence) AS payloads,
        array_agg(octet_length(payload) ORDER BY sequence) AS lengths
      FROM (
        SELECT sequence, payload,
          sum(octet_length(payload)) OVER (ORDER BY sequence) - octet_length(payload) AS bytes_before
        FROM event_log WHERE stream_id = ${streamId} AND sequence BETWEEN ${first} AND ${upTo}
      ) AS event
      WHERE bytes_before < ${PAGE_BYTES - known.bytes}
    `.execute(database.kysely);
    const { payloads, lengths } = rows[0] ?? {};
    if (!payloads || !lengths) {
      throw new UnknownStreamError("the stream was removed");
    }
    return join(known, split(payloads, lengths));
  }

  return {
    async read(streamId, after, last) {
      const wanted = after + 1;
      const aligned = boundaryOf(wanted) - PAGE_EVENTS + 1;
      let page = await pageFrom(streamId, aligned, wanted, last);
      if (endOf(page) < wanted) {
        // The page was cut for its bytes; what follows it is paged from wherever it is asked for.
        page = await pageFrom(streamId, wanted, wanted, last);
      }
      const events = page.events.slice(wanted - page.first, last - page.first + 1);
      return { first: wanted, events };
    },

    extend(streamId, appended) {
      let { first, events } = appended;
      while (events.length > 0) {
        const boundary = boundaryOf(first);
        const start = boundary - PAGE_EVENTS + 1;
        const key = `${streamId}/${start}`;
        const page = first === start ? { first, events: [], bytes: 0 } : cache.peek(key);
        const added = events.slice(0, boundary - first + 1);
        if (page === undefined || endOf(page) + 1 !== first || isFull(page)) {
          return;
        }
        cache.set(key, join(page, own(cut(added, PAGE_BYTES - page.bytes))));
        first += added.length;
        events = events.slice(added.length);
      }
    },

    stats: () => ({ entries: cache.size, bytes: cache.bytes, maxBytes, loads }),
  };
}

/** The last sequence that a page with this event may have. */
function boundaryOf(sequence: number): number {
  return Math.ceil(sequence / PAGE_EVENTS) * PAGE_EVENTS;
}

function endOf({ first, events }: LogPage): number {
  return first + events.length - 1;
}

function isFull(page: Page): boolean {
  return page.bytes >= PAGE_BYTES || endOf(page) === boundaryOf(page.first);
}

function reaches(page: Page, sequence: number): boolean {
  return endOf(page) >= sequence || isFull(page);
}

function join(page: Page, events: readonly Uint8Array[]): Page {
  const bytes = events.reduce((sum, { length }) => sum + length, page.bytes);
  return { first: page.first, events: [...page.events, ...events], bytes };
}

/** The first events, up to the one that makes them larger than `bytes`. */
function cut(events: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let before = 0;
  const end = events.findIndex(({ length }) => {
    before += length;
    return before >= bytes;
  });
  return end < 0 ? events : events.slice(0, end + 1);
}

/** Copies: what was appended belongs to the caller, and may be views upon something much larger. */
function own(events: readonly Uint8Array[]): readonly Uint8Array[] {
  return split(
    Buffer.concat(events),
    events.map(({ length }) => length),
  );
}

function split(payloads: Buffer, lengths: readonly number[]): readonly Uint8Array[] {
  let end = 0;
  return lengths.map((length) => {
    end += length;
    return payloads.subarray(end - length, end);
  });
}
