import { randomBytes } from "node:crypto";
import type { Clock } from "@toolplane/framework";
import { sql, type Transaction } from "kysely";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import type { Tables } from "../storage/tables.ts";
import { createAppender, eventLogClosed } from "./appender.ts";
import { EVENT_LOG_CHANNEL, formatChanges, NO_ORIGIN } from "./channel.ts";
import { type EventLog, type LogPage, UnknownStreamError } from "./event-log.ts";
import { startFollowing } from "./following.ts";
import { createHeadReader } from "./heads.ts";
import { createPages, type PagesStats } from "./pages.ts";
import { createTurns } from "./turns.ts";
import { watchStream } from "./watch.ts";

const DEFAULT_CACHE_BYTES = 16 * 1024 * 1024;
const DEFAULT_PENDING_BYTES = 64 * 1024 * 1024;
const DEFAULT_IDLE_MS = 15_000;
/** Watchers are told about so many events, or so many KiB, each time the event loop comes round. */
const TURN_WEIGHT = 512;
/** `read` returns no more bytes than this and the page that exceeds it. */
const MAX_READ_BYTES = 4 * 1024 * 1024;

export interface EventLogOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Bytes of events kept in memory for those who watch or read. Default: 16 MiB. */
  readonly cacheBytes?: number | undefined;
  /** Bytes of events that may wait to be stored; what is beyond is refused. Default: 64 MiB. */
  readonly maxPendingBytes?: number | undefined;
  /** After so much silence a watcher is told that nothing happens, in milliseconds. Default: 15,000. */
  readonly idleMs?: number | undefined;
}

export interface EventLogStats {
  readonly pages: PagesStats;
  /** Bytes of events that wait to be stored. */
  readonly pendingBytes: number;
}

/** The event log of this replica. */
export interface OpenEventLog extends EventLog {
  stats(): EventLogStats;
}

/** Opens the streams of events in a database. Every replica opens its own. */
export async function openEventLog(options: EventLogOptions): Promise<OpenEventLog> {
  const { database, clock, logger } = options;
  await forgetOldAppenders(database);
  const origin = randomBytes(6).toString("hex");
  const heads = createHeadReader(database);
  const pages = createPages({ database, maxBytes: options.cacheBytes ?? DEFAULT_CACHE_BYTES });
  const following = await startFollowing({ database, heads, clock, logger, origin });
  const appender = createAppender({
    database,
    clock,
    logger,
    origin,
    maxPendingBytes: options.maxPendingBytes ?? DEFAULT_PENDING_BYTES,
    onAppended({ head, page }) {
      const follower = following.get(head.id);
      if (follower !== undefined) {
        pages.extend(head.id, page);
        follower.advance(head);
      }
    },
  });
  const turns = createTurns(TURN_WEIGHT);
  const watchParts = { following, heads, pages, turns, clock, idleMs: options.idleMs ?? DEFAULT_IDLE_MS };
  let closing: Promise<void> | undefined;

  async function close(): Promise<void> {
    await appender.close(); // its last events still reach those who watch
    await following.close(eventLogClosed());
  }

  return {
    create: createStream,
    remove: removeStreams,
    append: (append) => appender.append(append),
    watch: (stream, watchOptions) => watchStream(watchParts, stream, watchOptions),

    async read(stream, after, limit) {
      const head = await heads.read(stream);
      if (head === undefined) {
        throw new UnknownStreamError(`there is no stream "${stream}"`);
      }
      const last = Math.min(head.last, after + limit);
      const parts: LogPage["events"][] = [];
      let position = after;
      let bytes = 0;
      while (position < last && bytes < MAX_READ_BYTES) {
        const { events } = await pages.read(head.id, position, last);
        parts.push(events);
        position += events.length;
        bytes += events.reduce((sum, { length }) => sum + length, 0);
      }
      return { first: after + 1, events: parts.flat() };
    },

    stats: () => ({ pages: pages.stats(), pendingBytes: appender.pendingBytes }),

    close() {
      closing ??= close();
      return closing;
    },
  };
}

async function createStream(transaction: Transaction<Tables>, stream: string): Promise<void> {
  await sql`
    INSERT INTO event_streams (name) VALUES (${stream}) ON CONFLICT (name) DO NOTHING
  `.execute(transaction);
}

async function removeStreams(transaction: Transaction<Tables>, streams: readonly string[]): Promise<void> {
  // In the order in which appends lock them too.
  const { rows } = await sql<{ id: string }>`
    SELECT id FROM event_streams WHERE name = ANY (${streams}::text[]) ORDER BY name FOR UPDATE
  `.execute(transaction);
  const ids = rows.map(({ id }) => id);
  if (ids.length === 0) {
    return;
  }
  const changes = formatChanges(
    NO_ORIGIN,
    ids.map((id) => ({ id, removed: true })),
  );
  await sql`
    WITH removed_events AS (DELETE FROM event_log WHERE stream_id = ANY (${ids}::bigint[])),
      removed_writers AS (DELETE FROM event_writers WHERE stream_id = ANY (${ids}::bigint[])),
      removed_streams AS (DELETE FROM event_streams WHERE id = ANY (${ids}::bigint[]))
    SELECT pg_notify(${EVENT_LOG_CHANNEL}, payload) FROM unnest(${changes}::text[]) AS payload
  `.execute(transaction);
}

/** Rows of processes that are gone. One that lives needs its row only until its next append. */
async function forgetOldAppenders({ kysely }: Pick<Database, "kysely">): Promise<void> {
  await sql`DELETE FROM event_appenders WHERE updated_at < now() - interval '1 day'`.execute(kysely);
}
