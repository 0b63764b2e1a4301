import { randomUUID } from "node:crypto";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { type Batcher, BatcherError, createBatcher } from "@toolplane/framework/policies";
import { sql, type Transaction } from "kysely";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import type { Tables } from "../storage/tables.ts";
import { isTransientDatabaseError } from "../storage/transient.ts";
import { appendBatch, type Outcome } from "./append-batch.ts";
import type { Append, Appended } from "./event-log.ts";

/** So many transactions write at once, so that a stream that somebody else has locked holds only some others up. */
const LANES = 4;
/** In one transaction, at most. */
const MAX_APPENDS = 256;
const MAX_BATCH_BYTES = 4 * 1024 * 1024;
/** What an event takes in memory besides its payload, roughly. */
const EVENT_OVERHEAD_BYTES = 64;
/** With the delays below, a database that restarts is waited for about 7 s. */
const MAX_RETRIES = 12;
const MAX_RETRY_DELAY_MS = 1_500;
/** How long `close` waits for appends. */
const CLOSE_TIMEOUT_MS = 5_000;

export interface AppenderOptions {
  readonly database: Pick<Database, "kysely">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Names this log in what other replicas are told. */
  readonly origin: string;
  /** So many bytes wait at most to be written. */
  readonly maxPendingBytes: number;
  /** Called with what has become durable, in the order of each stream. */
  onAppended(outcome: Outcome & { readonly kind: "appended" }): void;
}

/** Writes the appends of many callers in shared transactions; those of one stream in their order. */
export interface Appender {
  append(append: Append): Promise<Appended>;
  /** Bytes that wait. */
  readonly pendingBytes: number;
  /** Writes what waits, for at most 5 s, and takes nothing any more. */
  close(): Promise<void>;
}

/** An append that waits for its outcome. */
interface Pending {
  readonly append: Append;
  readonly bytes: number;
  outcome: Outcome | undefined;
  /** A transaction with it may have been committed, and nobody knows yet. */
  unknown: boolean;
}

export function createAppender(options: AppenderOptions): Appender {
  const { maxPendingBytes } = options;
  const lanes = Array.from({ length: LANES }, () => createLane(options));
  let pendingBytes = 0;

  function admit(append: Append): Pending {
    const { writer } = append;
    if (writer !== undefined && !(Number.isSafeInteger(writer.firstPosition) && writer.firstPosition > 0)) {
      throw new RangeError(`a writer's positions count from 1: ${writer.firstPosition}`);
    }
    const bytes = append.events.reduce((sum, { length }) => sum + length + EVENT_OVERHEAD_BYTES, 0);
    // What alone is too large waits alone.
    if (pendingBytes > 0 && pendingBytes + bytes > maxPendingBytes) {
      throw eventLogFull();
    }
    return { append, bytes, outcome: undefined, unknown: false };
  }

  return {
    get pendingBytes() {
      return pendingBytes;
    },

    async append(append) {
      const pending = admit(append);
      pendingBytes += pending.bytes;
      try {
        await lanes[laneOf(append.stream)]?.add(pending);
      } catch (error) {
        throw explain(error, pending);
      } finally {
        pendingBytes -= pending.bytes;
      }
      const { outcome } = pending;
      if (outcome?.kind !== "appended") {
        throw outcome?.error;
      }
      return outcome.appended;
    },

    async close() {
      await Promise.all(lanes.map((lane) => lane.close({ deadlineMs: CLOSE_TIMEOUT_MS })));
    },
  };
}

/**
 * One transaction at a time.
 *
 * Each transaction has a number, which it writes into the lane's own row. When the answer to a commit is lost, the next
 * transaction finds there whether the one before was committed. So nothing is appended twice, not even for callers
 * without a writer.
 */
function createLane(options: AppenderOptions): Batcher<Pending> {
  const { database, clock, logger, origin, onAppended } = options;
  const id = randomUUID();
  let lastNumber = 0;
  /** A transaction whose answer has not come. */
  let open: { readonly number: number; readonly outcomes: ReadonlyMap<Pending, Outcome> } | undefined;

  function settle(outcomes: ReadonlyMap<Pending, Outcome>): void {
    for (const [pending, outcome] of outcomes) {
      pending.outcome = outcome;
      pending.unknown = false;
      if (outcome.kind === "appended") {
        onAppended(outcome);
      }
    }
  }

  /** Learns what became of the transaction before. */
  function reconcile(committed: number): void {
    if (open === undefined) {
      return;
    }
    if (open.number === committed) {
      settle(open.outcomes);
    } else {
      for (const pending of open.outcomes.keys()) {
        pending.unknown = false;
      }
    }
    open = undefined;
  }

  async function write(batch: readonly Pending[]): Promise<void> {
    const number = ++lastNumber;
    await database.kysely.transaction().execute(async (transaction) => {
      reconcile(await claim(transaction, id, number));
      const rest = batch.filter(({ outcome }) => outcome === undefined);
      const outcomes = await appendBatch(
        transaction,
        rest.map(({ append }) => append),
        origin,
      );
      open = {
        number,
        outcomes: new Map(rest.map((pending, index) => [pending, outcomeAt(outcomes, index)])),
      };
      for (const pending of rest) {
        pending.unknown = true;
      }
    });
    reconcile(number);
  }

  return createBatcher<Pending>({
    name: "event log",
    write,
    maxItems: MAX_APPENDS,
    maxBytes: MAX_BATCH_BYTES,
    sizeOf: ({ bytes }) => bytes,
    maxDelayMs: 0, // what comes while a transaction goes on makes the next one
    maxPending: 100_000,
    isTransient: isTransientDatabaseError,
    maxRetries: MAX_RETRIES,
    maxRetryDelayMs: MAX_RETRY_DELAY_MS,
    clock,
    onEvent(event) {
      if (event.kind === "retrying" || event.kind === "rejected") {
        logger.warn({ err: event.error, appends: event.items }, `appends to the event log: ${event.kind}`);
      }
    },
  });
}

/**
 * Takes the lane's row; returns the number of the transaction that was committed last. One that still goes on although
 * its connection is gone is waited for, since it holds the row.
 */
async function claim(transaction: Transaction<Tables>, id: string, number: number): Promise<number> {
  const { rows } = await sql<{ previous_batch: string }>`
    INSERT INTO event_appenders AS known (id, batch) VALUES (${id}, ${number})
    ON CONFLICT (id) DO UPDATE
    SET previous_batch = known.batch, batch = excluded.batch, updated_at = excluded.updated_at
    RETURNING previous_batch
  `.execute(transaction);
  return Number(rows[0]?.previous_batch ?? 0);
}

function outcomeAt(outcomes: readonly Outcome[], index: number): Outcome {
  return outcomes[index] ?? { kind: "refused", error: new Error("an append of the batch has no outcome") };
}

function laneOf(stream: string): number {
  let sum = 0;
  for (let index = 0; index < stream.length; index++) {
    sum = (sum * 31 + stream.charCodeAt(index)) % 1_000_003;
  }
  return sum % LANES;
}

/** What a caller is told of an append that was given up. */
function explain(error: unknown, { unknown }: Pending): unknown {
  if (unknown || (error instanceof BatcherError && error.reason === "unfinished")) {
    return new DomainError({
      code: Code.Unavailable,
      reason: "APPEND_UNCERTAIN",
      message:
        "whether the events were stored is not known, because the database did not answer; look before you repeat",
      retryAfterMs: 1_000,
      cause: error,
    });
  }
  if (!(error instanceof BatcherError)) {
    return error;
  }
  return error.reason === "full" ? eventLogFull(error) : eventLogClosed(error);
}

function eventLogFull(cause?: unknown): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "EVENT_LOG_FULL",
    message: "events come faster than they can be stored; send them again later",
    retryAfterMs: 500,
    cause,
  });
}

/** The log is closed; another replica, or this one after its restart, goes on. */
export function eventLogClosed(cause?: unknown): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "the server is shutting down; go on from the last event",
    retryAfterMs: 1_000,
    cause,
  });
}
