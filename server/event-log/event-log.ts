import type { Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";

/** Events of one stream, in order and without gaps. */
export interface LogPage {
  /** The number of the first event. */
  readonly first: number;
  /** What was appended, byte by byte. */
  readonly events: readonly Uint8Array[];
}

/** What is to be appended. */
export interface Append {
  readonly stream: string;
  readonly events: readonly Uint8Array[];
  /**
   * Makes a repeated append harmless: each writer of a stream counts its events from 1, and what it has appended before
   * is left out.
   */
  readonly writer?: { readonly name: string; readonly firstPosition: number } | undefined;
  /** True makes these the last events of the stream. Closing a stream once more, without further events, is harmless. */
  readonly close?: boolean | undefined;
  /**
   * Runs in the transaction of the append, after the stream is locked and what is a repetition was left out: `events` is
   * what is really appended, the first of it with number `first`; where that is nothing, and nothing is closed, it is not
   * called. What it throws undoes this append and rejects it.
   *
   * It holds up other appends, so it should not take long. It may be called again when the transaction has to be repeated:
   * what it keeps outside of the transaction counts only once `append` has resolved.
   */
  readonly project?: ((transaction: Transaction<Tables>, page: LogPage) => Promise<void>) | undefined;
}

/** What became of an append. */
export interface Appended {
  /** The number of the stream's last event. */
  readonly lastSequence: number;
  /** Everything of the writer up to this position is durable; 0 without a writer. */
  readonly position: number;
}

/** The stream does not exist. */
export class UnknownStreamError extends Error {
  override readonly name = "UnknownStreamError";
}

/** The stream has had its last event. A repetition of what a writer has appended before is no reason for this. */
export class ClosedStreamError extends Error {
  override readonly name = "ClosedStreamError";
}

/** The append begins after the next position of its writer, so that events are missing in between. */
export class PositionGapError extends Error {
  override readonly name = "PositionGapError";
  /** The writer's last durable position. */
  readonly position: number;

  constructor(position: number) {
    super(`the writer's last durable position is ${position}`);
    this.position = position;
  }
}

/** What a watcher is told. */
export type LogNews =
  | { readonly kind: "events"; readonly page: LogPage }
  /** Everything that was there when the watch began was told. Once. */
  | { readonly kind: "caught-up"; readonly sequence: number }
  /** Nothing happened for a while. */
  | { readonly kind: "idle" };

export interface WatchOptions {
  /** Begins after this number. Default 0: from the beginning. */
  readonly after?: number | undefined;
  /** Ends the watch when aborted, without an error. */
  readonly signal: AbortSignal;
}

/** Append-only streams of events, durable, numbered from 1 without gaps, and followed from any replica. */
export interface EventLog {
  /** Makes an empty stream in the caller's transaction; leaves one that exists as it is. */
  create(transaction: Transaction<Tables>, stream: string): Promise<void>;
  /**
   * Resolves when the events are durable. Appends of many callers share transactions; those of one stream are done in the
   * order of the calls. A database that is away for some seconds is waited for, and nothing is appended twice for that.
   *
   * Throws the errors above; RESOURCE_EXHAUSTED when too much waits to be stored, and UNAVAILABLE when the database is
   * away for longer. With reason APPEND_UNCERTAIN the events may have been stored all the same; repeating them is safe
   * with a writer.
   */
  append(append: Append): Promise<Appended>;
  /** At most `limit` events after `after`; fewer only at the end of the stream, or when they are large. */
  read(stream: string, after: number, limit: number): Promise<LogPage>;
  /**
   * Everything after `after`, then what is appended, until the stream is closed and told to its end. Nothing is kept for
   * a watcher that does not ask for more: it goes on from what is stored.
   *
   * Throws an `UnknownStreamError` also when the stream is removed meanwhile, OUT_OF_RANGE when `after` is beyond the last
   * event, and UNAVAILABLE when the log is closed: another replica goes on after the last event. To end a watch early,
   * abort its signal: `return()` alone has an effect only when something happens.
   */
  watch(stream: string, options: WatchOptions): AsyncGenerator<LogNews, void, undefined>;
  /** Deletes streams with their events in the caller's transaction. Whoever watches them is told an `UnknownStreamError`. */
  remove(transaction: Transaction<Tables>, streams: readonly string[]): Promise<void>;
  /** Stores what waits, for at most 5 s, then ends all watches. */
  close(): Promise<void>;
}
