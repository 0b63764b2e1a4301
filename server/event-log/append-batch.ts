import { DomainError } from "@toolplane/framework";
import { sql, type Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import { EVENT_LOG_CHANNEL, formatChanges, type Head } from "./channel.ts";
import {
  type Append,
  type Appended,
  ClosedStreamError,
  type LogPage,
  PositionGapError,
  UnknownStreamError,
} from "./event-log.ts";

/** What became of one append of a batch. */
export type Outcome =
  | {
      readonly kind: "appended";
      readonly appended: Appended;
      /** What was really appended: without repetitions. */
      readonly page: LogPage;
      /** The end of the stream after it. */
      readonly head: Head;
    }
  | { readonly kind: "refused"; readonly error: unknown };

/** A stream that is locked, as it will be at the end of the transaction. */
interface LockedStream {
  readonly id: string;
  last: number;
  closed: boolean;
  changed: boolean;
}

/** How far a writer of a stream is. */
interface WriterPosition {
  readonly streamId: string;
  readonly writer: string;
  position: number;
  changed: boolean;
}

/** What an append comes to: nothing but its fresh events, or nothing at all. */
interface Decision {
  readonly page: LogPage;
  readonly position: number;
  readonly closes: boolean;
}

/**
 * Does appends in their order, in one transaction. Each one is done or refused for itself; where this throws, none is
 * done. Streams are locked in the order of their names, so that transactions never wait for each other in a circle.
 * `origin` names this log in what other replicas are told.
 */
export async function appendBatch(
  transaction: Transaction<Tables>,
  appends: readonly Append[],
  origin: string,
): Promise<readonly Outcome[]> {
  const streams = await lockStreams(transaction, appends);
  const writers = await readWriters(transaction, appends, streams);
  const outcomes: Outcome[] = [];
  for (const append of appends) {
    outcomes.push(await appendOne(transaction, append, streams, writers));
  }
  await store(transaction, outcomes, [...streams.values()], [...writers.values()], origin);
  return outcomes;
}

async function appendOne(
  transaction: Transaction<Tables>,
  append: Append,
  streams: ReadonlyMap<string, LockedStream>,
  writers: ReadonlyMap<string, WriterPosition>,
): Promise<Outcome> {
  try {
    const stream = streams.get(append.stream);
    if (stream === undefined) {
      throw new UnknownStreamError(`there is no stream "${append.stream}"`);
    }
    const writer = append.writer && writers.get(writerKey(stream.id, append.writer.name));
    const { page, position, closes } = decide(append, stream, writer?.position ?? 0);
    const changes = page.events.length > 0 || closes;
    if (changes && append.project !== undefined) {
      await project(transaction, append.project, page);
    }
    if (changes) {
      stream.last += page.events.length;
      stream.closed ||= closes;
      stream.changed = true;
    }
    if (writer !== undefined && writer.position !== position) {
      writer.position = position;
      writer.changed = true;
    }
    const head = { id: stream.id, last: stream.last, closed: stream.closed };
    return { kind: "appended", appended: { lastSequence: stream.last, position }, page, head };
  } catch (error) {
    if (error instanceof TransactionLost) {
      throw error.cause;
    }
    return { kind: "refused", error };
  }
}

/** What there is to append, given how far the stream and the writer are. */
function decide(append: Append, stream: LockedStream, done: number): Decision {
  const { events, writer, close = false } = append;
  const repeated = writer === undefined ? 0 : done - (writer.firstPosition - 1);
  const isRepetition = events.length <= Math.max(repeated, 0);
  if (stream.closed && !isRepetition) {
    throw new ClosedStreamError(`the stream "${append.stream}" is closed`);
  }
  if (repeated < 0) {
    throw new PositionGapError(done);
  }
  const fresh = repeated === 0 ? events : events.slice(repeated);
  return {
    page: { first: stream.last + 1, events: fresh },
    position: writer === undefined ? 0 : done + fresh.length,
    closes: close && !stream.closed,
  };
}

/** The transaction can do no more, or has to be repeated: this is not the fault of one append. */
class TransactionLost extends Error {}

/** Runs the caller's part so that its failure undoes nothing but itself. */
async function project(
  transaction: Transaction<Tables>,
  run: NonNullable<Append["project"]>,
  page: LogPage,
): Promise<void> {
  await sql`SAVEPOINT projection`.execute(transaction);
  try {
    await run(transaction, page);
  } catch (error) {
    if (error instanceof DomainError && error.init.reason === "TRANSACTION_ABORTED") {
      throw new TransactionLost("collided", { cause: error });
    }
    await sql`ROLLBACK TO SAVEPOINT projection`.execute(transaction).catch((cause: unknown) => {
      throw new TransactionLost("ended", { cause });
    });
    throw error;
  }
  await sql`RELEASE SAVEPOINT projection`.execute(transaction);
}

async function lockStreams(
  transaction: Transaction<Tables>,
  appends: readonly Append[],
): Promise<ReadonlyMap<string, LockedStream>> {
  const names = [...new Set(appends.map(({ stream }) => stream))];
  const { rows } = await sql<{ id: string; name: string; last_sequence: string; closed: boolean }>`
    SELECT id, name, last_sequence, closed FROM event_streams
    WHERE name = ANY (${names}::text[]) ORDER BY name FOR UPDATE
  `.execute(transaction);
  return new Map(
    rows.map(({ id, name, last_sequence, closed }) => [
      name,
      { id, last: Number(last_sequence), closed, changed: false },
    ]),
  );
}

async function readWriters(
  transaction: Transaction<Tables>,
  appends: readonly Append[],
  streams: ReadonlyMap<string, LockedStream>,
): Promise<ReadonlyMap<string, WriterPosition>> {
  const writers = new Map<string, WriterPosition>();
  for (const { stream, writer } of appends) {
    const streamId = streams.get(stream)?.id;
    if (writer !== undefined && streamId !== undefined) {
      const key = writerKey(streamId, writer.name);
      writers.set(key, { streamId, writer: writer.name, position: 0, changed: false });
    }
  }
  if (writers.size > 0) {
    const wanted = [...writers.values()];
    const { rows } = await sql<{ stream_id: string; writer: string; position: string }>`
      SELECT stream_id, writer, position FROM event_writers
      WHERE (stream_id, writer) IN (SELECT * FROM unnest(
        ${wanted.map(({ streamId }) => streamId)}::bigint[],
        ${wanted.map(({ writer }) => writer)}::text[]
      ))
    `.execute(transaction);
    for (const { stream_id, writer, position } of rows) {
      const known = writers.get(writerKey(stream_id, writer));
      if (known !== undefined) {
        known.position = Number(position);
      }
    }
  }
  return writers;
}

function writerKey(streamId: string, writer: string): string {
  return `${streamId}/${writer}`;
}

/** Writes down in one statement what was decided, and tells the other replicas, who hear of it with the commit. */
async function store(
  transaction: Transaction<Tables>,
  outcomes: readonly Outcome[],
  allStreams: readonly LockedStream[],
  allWriters: readonly WriterPosition[],
  origin: string,
): Promise<void> {
  const streams = allStreams.filter(({ changed }) => changed);
  const writers = allWriters.filter(({ changed }) => changed);
  if (streams.length === 0) {
    return; // then no writer is further than before either
  }
  const streamIds: string[] = [];
  const sequences: number[] = [];
  const starts: number[] = [];
  const lengths: number[] = [];
  const payloads: Uint8Array[] = [];
  let start = 1;
  for (const outcome of outcomes) {
    if (outcome.kind === "appended") {
      for (const [index, event] of outcome.page.events.entries()) {
        streamIds.push(outcome.head.id);
        sequences.push(outcome.page.first + index);
        starts.push(start);
        lengths.push(event.length);
        payloads.push(event);
        start += event.length;
      }
    }
  }
  // One value with all payloads, which travels as it is: as elements of an array they would be written out as text.
  await sql`
    WITH stored_events AS (
      INSERT INTO event_log (stream_id, sequence, payload)
      SELECT stream_id, sequence, substring(${Buffer.concat(payloads)}::bytea FROM start FOR length)
      FROM unnest(${streamIds}::bigint[], ${sequences}::bigint[], ${starts}::integer[], ${lengths}::integer[])
        AS event (stream_id, sequence, start, length)
    ), stored_writers AS (
      INSERT INTO event_writers (stream_id, writer, position)
      SELECT * FROM unnest(
        ${writers.map(({ streamId }) => streamId)}::bigint[],
        ${writers.map(({ writer }) => writer)}::text[],
        ${writers.map(({ position }) => position)}::bigint[]
      )
      ON CONFLICT (stream_id, writer) DO UPDATE SET position = excluded.position
    ), stored_streams AS (
      UPDATE event_streams SET last_sequence = stream.last_sequence, closed = stream.closed
      FROM unnest(
        ${streams.map(({ id }) => id)}::bigint[],
        ${streams.map(({ last }) => last)}::bigint[],
        ${streams.map(({ closed }) => closed)}::boolean[]
      ) AS stream (id, last_sequence, closed)
      WHERE event_streams.id = stream.id
    )
    SELECT pg_notify(${EVENT_LOG_CHANNEL}, payload)
    FROM unnest(${formatChanges(origin, streams)}::text[]) AS payload
  `.execute(transaction);
}
