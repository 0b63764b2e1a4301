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
  /** True makes these the last events of the stream. */
  readonly close?: boolean | undefined;
  /**
   * Runs in the transaction of the append, after the stream is locked and what is a repetition was left out: `events` is
   * what is really appended, the first of it with number `first`. What it throws undoes this append and rejects it.
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

/** The stream has had its last event. */
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
  /** Makes an empty stream in the caller's transaction. */
  create(transaction: Transaction<Tables>, stream: string): Promise<void>;
  /** Resolves when the events are durable. Appends of many callers share transactions. */
  append(append: Append): Promise<Appended>;
  /** At most `limit` events after `after`; fewer only at the end of the stream, or when they are large. */
  read(stream: string, after: number, limit: number): Promise<LogPage>;
  /**
   * Everything after `after`, then what is appended, until the stream is closed and told to its end. Nothing is kept for
   * a watcher that does not ask for more: it goes on from what is stored.
   */
  watch(stream: string, options: WatchOptions): AsyncGenerator<LogNews, void, undefined>;
  /** Deletes streams with their events in the caller's transaction. Whoever watches them is told an `UnknownStreamError`. */
  remove(transaction: Transaction<Tables>, streams: readonly string[]): Promise<void>;
  close(): Promise<void>;
}
