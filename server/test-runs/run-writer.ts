import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { TestRunOrigin } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { Kysely, Transaction } from "kysely";
import {
  type Appended,
  ClosedStreamError,
  type EventLog,
  PositionGapError,
  UnknownStreamError,
} from "../event-log/event-log.ts";
import type { Tables } from "../storage/tables.ts";
import { storable } from "../storage/text.ts";
import { runBusy, unknownRun } from "./refusals.ts";
import { createRunState, type RunState } from "./run-state.ts";

/** How many runs are remembered between two writes, and how many of their tests together. */
const MAX_REMEMBERED_RUNS = 200;
const MAX_REMEMBERED_TESTS = 1_000_000;
/** And how much text of tests that have not ended. */
const MAX_REMEMBERED_BYTES = 256 * 1024 * 1024;
/** Events that are read at once to catch up. */
const READ_PAGE = 2_000;
/** How often other writers of the same run may come first. */
const MAX_TRIES = 20;

/** What identifies a run in its tables; none of it ever changes. */
export interface RunIdentity {
  readonly id: string;
  readonly number: number;
  readonly project: string;
  readonly framework: string;
  /** The id of the principal. */
  readonly createdBy: string;
  readonly origin: TestRunOrigin;
}

/** Events to be written, and what goes with them. */
export interface RunWrite {
  readonly events: readonly TestEvent[];
  readonly writer?: { readonly name: string; readonly firstPosition: number } | undefined;
  /** True makes these the last events of the run. */
  readonly close?: boolean;
  /** True: the write is as right when somebody else has written first, so that it need not be prepared again. */
  readonly yields?: boolean;
  /**
   * Runs in the transaction that appends the events. `fold` has to be called once for each of them, in order: it adds
   * the event to the state. Events of the writer that were written before are not among them.
   */
  project(transaction: Transaction<Tables>, fresh: FreshEvents): Promise<void>;
}

export interface FreshEvents {
  readonly events: readonly TestEvent[];
  /** Before any event is folded: what all events before them come to. */
  readonly state: RunState;
  /** Adds the next of the events to the state. */
  fold(event: TestEvent): void;
}

/**
 * Writes events of runs, one write of a run at a time on this replica. What all events so far come to is remembered, and
 * trusted only where it ends exactly before the events that are written: other replicas may have written meanwhile.
 */
export interface RunWriter {
  /** `prepare` is called again when somebody else has written first. Undefined: there is nothing to write. */
  write(
    runId: string,
    prepare: (run: RunIdentity, state: RunState) => Promise<RunWrite | undefined>,
  ): Promise<Appended | undefined>;
  /** Looks at a run as it was after an event, or later. `look` must not keep the state, which changes. */
  read<T>(runId: string, sequence: number, look: (state: RunState) => T): Promise<T>;
}

/** Somebody else has written to the run meanwhile. */
class StaleStateError extends Error {}

interface RememberedRun {
  readonly identity: RunIdentity;
  state: RunState;
}

export function createRunWriter(
  database: { readonly kysely: Kysely<Tables> },
  eventLog: EventLog,
): RunWriter {
  /** The least recently used first. */
  const remembered = new Map<string, RememberedRun>();
  /** The end of the queue of each run that is being worked on. */
  const queues = new Map<string, Promise<unknown>>();

  /** One after the other for each run. */
  async function exclusively<T>(runId: string, work: () => Promise<T>): Promise<T> {
    const turn = (queues.get(runId) ?? Promise.resolve()).then(work, work);
    queues.set(runId, turn);
    try {
      return await turn;
    } finally {
      if (queues.get(runId) === turn) {
        queues.delete(runId);
      }
    }
  }

  async function recall(runId: string): Promise<RememberedRun> {
    const known = remembered.get(runId);
    remembered.delete(runId);
    const run = known ?? { identity: await readIdentity(database.kysely, runId), state: createRunState() };
    remembered.set(runId, run);
    forgetOthers(remembered);
    return run;
  }

  async function catchUp(run: RememberedRun): Promise<void> {
    for (;;) {
      const { events, first } = await readPage(eventLog, run.identity.id, run.state.lastSequence);
      if (events.length === 0) {
        return;
      }
      for (const [index, bytes] of events.entries()) {
        run.state.apply(fromBinary(TestEventSchema, bytes), first + index, bytes.byteLength);
      }
    }
  }

  /** Whether a failed append has left the state as it was. */
  function isUntouched(error: unknown): boolean {
    return error instanceof ClosedStreamError || error instanceof PositionGapError;
  }

  async function append(run: RememberedRun, write: RunWrite): Promise<Appended> {
    const { state } = run;
    const expected = state.lastSequence + 1;
    const { events, writer, close, yields = false, project } = write;
    const bytes = events.map((event) => toBinary(TestEventSchema, event));
    return await eventLog.append({
      stream: run.identity.id,
      events: bytes,
      writer,
      close,
      async project(transaction, page) {
        // The stream is locked by now: what others have written can be read, and nobody comes in between.
        if (yields && state.lastSequence + 1 < page.first) {
          await catchUp(run);
        }
        if (state.lastSequence + 1 !== page.first || (page.first !== expected && !yields)) {
          throw new StaleStateError();
        }
        let next = page.first;
        await project(transaction, {
          events: events.slice(events.length - page.events.length),
          state,
          fold(event) {
            state.apply(event, next, page.events[next - page.first]?.byteLength ?? 0);
            next += 1;
          },
        });
      },
    });
  }

  return {
    write: (runId, prepare) =>
      exclusively(runId, async () => {
        for (let tries = 0; tries < MAX_TRIES; tries++) {
          const run = await recall(runId);
          if (tries > 0 || run.state.lastSequence === 0) {
            await catchUp(run);
          }
          const write = await prepare(run.identity, run.state);
          if (write === undefined) {
            return undefined;
          }
          const expected = run.state.lastSequence;
          try {
            return await append(run, write);
          } catch (error) {
            if (error instanceof UnknownStreamError) {
              remembered.delete(runId);
              throw unknownRun(runId);
            }
            if (!isUntouched(error) && run.state.lastSequence !== expected) {
              // It counts events that were not written.
              remembered.delete(runId);
            }
            if (!(error instanceof StaleStateError)) {
              throw error;
            }
          }
        }
        throw runBusy(runId);
      }),

    read: (runId, sequence, look) =>
      exclusively(runId, async () => {
        const run = await recall(runId);
        if (run.state.lastSequence < sequence) {
          await catchUp(run);
        }
        return look(run.state);
      }),
  };

  async function readPage(log: EventLog, runId: string, after: number) {
    try {
      return await log.read(runId, after, READ_PAGE);
    } catch (error) {
      remembered.delete(runId);
      throw error instanceof UnknownStreamError ? unknownRun(runId) : error;
    }
  }
}

/** Throws NOT_FOUND. */
export async function readIdentity(kysely: Kysely<Tables>, runId: string): Promise<RunIdentity> {
  const row = await kysely
    .selectFrom("test_runs")
    .select(["id", "number", "project", "framework", "created_by", "origin"])
    .where("id", "=", storable(runId))
    .executeTakeFirst();
  if (row === undefined) {
    throw unknownRun(runId);
  }
  const { id, number, project, framework, created_by: createdBy, origin } = row;
  return { id, number: Number(number), project, framework, createdBy, origin };
}

function forgetOthers(remembered: Map<string, RememberedRun>): void {
  let tests = 0;
  let bytes = 0;
  for (const { state } of remembered.values()) {
    tests += state.counts.total;
    bytes += state.heldBytes;
  }
  const isLittle = () =>
    remembered.size <= MAX_REMEMBERED_RUNS && tests <= MAX_REMEMBERED_TESTS && bytes <= MAX_REMEMBERED_BYTES;
  for (const [id, { state }] of remembered) {
    if (remembered.size <= 1 || isLittle()) {
      return;
    }
    remembered.delete(id);
    tests -= state.counts.total;
    bytes -= state.heldBytes;
  }
}
