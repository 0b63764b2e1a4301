import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock, Logger } from "@toolplane/framework";
import { type Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  CancelRequestedSchema,
  RunWaitingSchema,
  StepFinishedSchema,
  StepProgressSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { RunState, type RunStep } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Append, EventLog } from "../../event-log/event-log.ts";
import type { Database } from "../../storage/database.ts";
import {
  type ApprovalAnswer,
  type Journal,
  type JournalEntry,
  LostRunError,
  type RunEnd,
} from "../engine/journal.ts";
import type { RunJobs } from "../jobs.ts";
import { announce } from "./announcements.ts";
import { readAnswers } from "./approvals.ts";
import { appendDurably, durably } from "./durably.ts";
import { endColumns, endedRow, endOfOpenSteps } from "./ending.ts";
import { isDispensable, isTold, isTooLarge, partsOf, sizeOf } from "./entries.ts";
import { type EventEncoder, toldRun } from "./events.ts";
import { tooManyEvents } from "./refusals.ts";
import { type RunRow, toRun } from "./rows.ts";
import { type PreparedEntry, resultOf, type StepImages, type StepWrite } from "./step-images.ts";
import {
  type Cancellation,
  type Fence,
  type RunWrite,
  releaseRun,
  StaleRunError,
  writeRun,
} from "./write.ts";

/** From so many bytes on that wait to be written, what can be done without is left out. */
const MAX_PENDING_BYTES = 32 * 1024 * 1024;

/** The run has an answer that the journal's owner is to hear of first, or is to be cancelled. */
class AnsweredError extends Error {}

/** Somebody else has appended to the run. */
class OvertakenError extends Error {
  readonly lastSequence: number;

  constructor(lastSequence: number) {
    super(`the last event is number ${lastSequence}`);
    this.lastSequence = lastSequence;
  }
}

export interface JournalOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: Pick<EventLog, "append">;
  readonly jobs: Pick<RunJobs, "send">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly encoder: EventEncoder;
  /** From so many on, what models write and the like is left out; from twice as many on, the run fails. */
  readonly maxEventsPerRun: number;
  /** Called when somebody wants the run to stop; may be called more than once. */
  readonly onCancel: (cancellation: Cancellation) => void;
  /** Called with the runs that the run had started and that nobody waits for any more, when it has ended before them. */
  readonly onOrphans: (runIds: readonly string[], end: RunEnd) => void;
  /** Called once the journal's owner has let go of the run, or has lost it. */
  readonly onLeft: () => void;
}

/** A run that was claimed. */
export interface HeldRun {
  /** As it was when it was claimed. */
  readonly row: RunRow;
  readonly steps: StepImages;
  readonly usage: Usage;
  readonly lastSequence: number;
  /** Steps that were taken over from another run, to be told after the plan. */
  readonly taken?: readonly RunStep[] | undefined;
}

/** What waits for its turn. */
type Work =
  | {
      readonly kind: "entries";
      readonly entries: readonly PreparedEntry[];
      readonly done: PromiseWithResolvers<void>;
    }
  | { readonly kind: "task"; readonly run: () => Promise<void>; readonly done: PromiseWithResolvers<void> };

/** Of a run that a worker has, for this worker. */
export function createJournal(options: JournalOptions, held: HeldRun): Journal {
  return new RunJournal(options, held);
}

/** Ends a run that no worker has. Throws a `LostRunError` when that is no longer so. */
export async function cancelUnowned(
  options: JournalOptions,
  held: HeldRun,
  cancellation: Cancellation,
): Promise<void> {
  await new RunJournal(options, held).cancel(cancellation);
}

class RunJournal implements Journal {
  readonly #options: JournalOptions;
  readonly #row: RunRow;
  readonly #steps: StepImages;
  /** Counts its events for itself, so that nothing is appended twice. */
  readonly #writer = randomUUID();
  readonly #taken: RunStep[];
  readonly #queue: Work[] = [];
  #isWorking = false;
  #pendingEvents = 0;
  #pendingBytes = 0;
  /** How many events this journal has appended: its positions as a writer. */
  #position = 0;
  #lastSequence: number;
  #usage: Usage;
  #isLeavingOut = false;
  /** Why nothing more can be recorded. */
  #over: unknown;

  constructor(options: JournalOptions, { row, steps, usage, lastSequence, taken = [] }: HeldRun) {
    this.#options = options;
    this.#row = row;
    this.#steps = steps;
    this.#usage = usage;
    this.#lastSequence = lastSequence;
    this.#taken = [...taken];
  }

  setUsage(total: Usage): void {
    this.#usage = create(UsageSchema, total);
  }

  record(entries: readonly JournalEntry[]): Promise<void> {
    const done = Promise.withResolvers<void>();
    try {
      return this.#enqueue({ kind: "entries", entries: this.#prepareAll(entries), done });
    } catch (error) {
      // What cannot be encoded, such as a number that is none, is the fault of these entries alone.
      done.promise.catch(() => undefined);
      done.reject(error);
      return done.promise;
    }
  }

  finish(end: RunEnd): Promise<void> {
    return this.#do(() => this.#finish(end));
  }

  cancel({ by, message }: Cancellation): Promise<void> {
    const value = create(CancelRequestedSchema, { by, message });
    const entry = this.#prepareWhole({ path: "", kind: { case: "cancelRequested", value } });
    return this.#do(() => this.#finish({ state: "cancelled", by, message }, [entry]));
  }

  async park(until: number | undefined): Promise<boolean> {
    let isParked = false;
    await this.#do(async () => {
      isParked = await this.#park(until);
    });
    return isParked;
  }

  release(): Promise<void> {
    return this.#do(async () => {
      const { database, clock } = this.#options;
      await durably(clock, () =>
        database.kysely.transaction().execute((transaction) => releaseRun(transaction, this.#fence())),
      );
      this.#leave(new LostRunError("this worker has let go of the run"));
    });
  }

  answers(): Promise<ReadonlyMap<string, ApprovalAnswer>> {
    return readAnswers(this.#options.database.kysely, this.#row.number);
  }

  #prepareAll(entries: readonly JournalEntry[]): readonly PreparedEntry[] {
    const prepared = entries.flatMap((entry) => this.#prepare(entry));
    if (entries.some(({ kind }) => kind.case === "planned")) {
      prepared.push(...this.#tellTaken());
    }
    for (const entry of prepared) {
      this.#pendingEvents += 1;
      this.#pendingBytes += sizeOf(entry);
    }
    return prepared;
  }

  /** Nothing: it is left out. */
  #prepare(entry: JournalEntry): PreparedEntry[] {
    if (isTold(entry)) {
      return [];
    }
    if (isDispensable(entry) && this.#hasTooMuch()) {
      if (this.#isLeavingOut) {
        return [];
      }
      this.#isLeavingOut = true;
      const value = create(StepProgressSchema, {
        message: "There are too many events: from here on, what models write and other details are left out.",
      });
      return [this.#prepareWhole({ path: entry.path, kind: { case: "stepProgress", value } })];
    }
    return [this.#prepareWhole(entry)];
  }

  #prepareWhole(entry: JournalEntry, isKnown = false): PreparedEntry {
    const { clock, encoder } = this.#options;
    const time = clock.now();
    const result = resultOf(entry);
    return { entry, result, time, event: encoder.entry(entry, result.outputBytes, time), isKnown };
  }

  #tellTaken(): PreparedEntry[] {
    return this.#taken.splice(0).map((step) => {
      const value = create(StepFinishedSchema, { step });
      return this.#prepareWhole({ path: step.path, kind: { case: "stepFinished", value } }, true);
    });
  }

  #hasTooMuch(): boolean {
    const { maxEventsPerRun } = this.#options;
    return (
      this.#lastSequence + this.#pendingEvents >= maxEventsPerRun || this.#pendingBytes > MAX_PENDING_BYTES
    );
  }

  #do(run: () => Promise<void>): Promise<void> {
    return this.#enqueue({ kind: "task", run, done: Promise.withResolvers() });
  }

  #enqueue(work: Work): Promise<void> {
    const { promise } = work.done;
    // Whoever does not wait for it hears of it with the next thing that is waited for.
    promise.catch(() => undefined);
    if (this.#over === undefined) {
      this.#queue.push(work);
      void this.#work();
    } else {
      work.done.reject(this.#over);
    }
    return promise;
  }

  async #work(): Promise<void> {
    if (this.#isWorking) {
      return;
    }
    this.#isWorking = true;
    // Whoever records several things at once shares a transaction.
    await Promise.resolve();
    for (;;) {
      const batch = this.#nextBatch();
      if (batch.length === 0) {
        break;
      }
      try {
        await this.#doBatch(batch);
        for (const { done } of batch) {
          done.resolve();
        }
      } catch (error) {
        this.#leave(
          error instanceof StaleRunError ? new LostRunError(error.message, { cause: error }) : error,
        );
        for (const { done } of batch) {
          done.reject(this.#over);
        }
      }
    }
    this.#isWorking = false;
  }

  /** Nothing more is recorded here. The first reason counts. */
  #leave(reason: unknown): void {
    const isFirst = this.#over === undefined;
    this.#over ??= reason;
    for (const { done } of this.#queue.splice(0)) {
      done.reject(this.#over);
    }
    if (isFirst) {
      this.#options.onLeft();
    }
  }

  /** A task alone, or entries of as many callers as share an append. */
  #nextBatch(): readonly Work[] {
    const { length } = this.#queue;
    let count = 0;
    let entries = 0;
    let bytes = 0;
    while (count < length) {
      const work = this.#queue[count];
      if (work?.kind !== "entries") {
        break;
      }
      entries += work.entries.length;
      bytes += work.entries.reduce((sum, entry) => sum + sizeOf(entry), 0);
      if (count > 0 && isTooLarge(entries, bytes)) {
        break;
      }
      count += 1;
    }
    return this.#queue.splice(0, Math.max(count, 1));
  }

  async #doBatch(batch: readonly Work[]): Promise<void> {
    const entries: PreparedEntry[] = [];
    for (const work of batch) {
      if (work.kind === "task") {
        await work.run();
      } else {
        entries.push(...work.entries);
      }
    }
    // One caller's entries may be more than one append holds.
    for (const part of partsOf(entries)) {
      await this.#append(part);
      this.#pendingEvents -= part.length;
      this.#pendingBytes -= part.reduce((sum, entry) => sum + sizeOf(entry), 0);
    }
  }

  async #append(entries: readonly PreparedEntry[]): Promise<void> {
    const { maxEventsPerRun } = this.#options;
    if (this.#lastSequence + entries.length > 2 * maxEventsPerRun) {
      await this.#finish({ state: "failed", error: tooManyEvents(2 * maxEventsPerRun) });
      throw new LostRunError("the run had too many events");
    }
    const write = this.#take(entries);
    let cancellation: Cancellation | undefined;
    await this.#write(
      entries.map(({ event }) => event),
      async (transaction, { first, events }) => {
        const lastSequence = first + events.length - 1;
        cancellation = await writeRun(transaction, this.#fence(), { ...write, lastSequence });
      },
    );
    if (cancellation !== undefined) {
      this.#options.onCancel(cancellation);
    }
  }

  /** Takes entries in, which have to be written from then on. */
  #take(entries: readonly PreparedEntry[]): Omit<RunWrite, "lastSequence"> {
    const writes = new Map<string, StepWrite>();
    for (const entry of entries) {
      this.#steps.apply(entry, writes);
    }
    return {
      steps: [...writes.values()],
      counts: this.#steps.counts(),
      usage: this.#usage,
      planned: entries.some(({ entry }) => entry.kind.case === "planned"),
      progressed: entries.some(({ entry }) => entry.kind.case === "stepFinished"),
    };
  }

  async #write(
    events: readonly Uint8Array[],
    project: NonNullable<Append["project"]>,
    close = false,
  ): Promise<void> {
    const { lastSequence } = await appendDurably(this.#options, {
      stream: this.#row.id,
      events,
      close,
      writer: { name: this.#writer, firstPosition: this.#position + 1 },
      project,
    });
    this.#position += events.length;
    this.#lastSequence = lastSequence;
  }

  #fence(): Fence {
    return { number: this.#row.number, epoch: this.#row.epoch, owned: this.#row.worker !== null };
  }

  /** Ends the run in one append. `preface` tells what led to it. */
  async #finish(end: RunEnd, preface: readonly PreparedEntry[] = []): Promise<void> {
    const { clock, encoder, logger } = this.#options;
    const nowMs = clock.now();
    const orphans = this.#steps
      .open()
      .flatMap(({ kind, childId }) => (kind === "workflow" && childId !== "" ? [childId] : []));
    const open = endOfOpenSteps(this.#steps, nowMs).map((entry) => this.#prepareWhole(entry));
    const entries = [...preface, ...open];
    const write = this.#take(entries);
    const columns = endColumns(end, nowMs, { correlationId: this.#row.id, logger });
    // The last event says how many there are, and somebody who cancels the run may have appended one meanwhile.
    for (let isWritten = false; !isWritten; ) {
      const lastSequence = this.#lastSequence + entries.length + 1;
      const row = endedRow(this.#row, columns, { ...write, lastSequence });
      const finished = encoder.event({ case: "finished", value: toldRun(toRun(row), row) }, nowMs);
      isWritten = await this.#appendEnd([...entries.map(({ event }) => event), finished], {
        ...write,
        lastSequence,
        end: columns,
      });
    }
    this.#leave(new LostRunError("the run has ended"));
    if (orphans.length > 0) {
      this.#options.onOrphans(orphans, end);
    }
  }

  /** False: there are more events than was thought. */
  async #appendEnd(events: readonly Uint8Array[], write: RunWrite): Promise<boolean> {
    try {
      await this.#write(
        events,
        async (transaction, { first }) => {
          if (first !== this.#lastSequence + 1) {
            throw new OvertakenError(first - 1);
          }
          await writeRun(transaction, this.#fence(), write);
          await announce(transaction, { kind: "ended", runId: this.#row.id });
        },
        true,
      );
      return true;
    } catch (error) {
      if (!(error instanceof OvertakenError)) {
        throw error;
      }
      this.#lastSequence = error.lastSequence;
      return false;
    }
  }

  async #park(until: number | undefined): Promise<boolean> {
    const { clock, encoder, jobs } = this.#options;
    const value = create(RunWaitingSchema, { ...(until !== undefined && { until: timestampFromMs(until) }) });
    const event = encoder.event({ case: "waiting", value }, clock.now());
    const jobId = until === undefined ? undefined : randomUUID();
    const write = this.#take([]);
    let cancellation: Cancellation | undefined;
    try {
      await this.#write([event], async (transaction, { first }) => {
        cancellation = await writeRun(transaction, this.#fence(), {
          ...write,
          lastSequence: first,
          park: { state: RunState.WAITING, jobId },
        });
        // The run's row is locked now: whoever answers or cancels has done so, or will find that no worker has the run.
        if (cancellation !== undefined || (await readAnswers(transaction, this.#row.number)).size > 0) {
          throw new AnsweredError();
        }
        if (jobId !== undefined) {
          const { id: runId, depth } = this.#row;
          await jobs.send(transaction, { id: jobId, runId, depth, startAfter: until });
        }
      });
    } catch (error) {
      if (!(error instanceof AnsweredError)) {
        throw error;
      }
      if (cancellation !== undefined) {
        this.#options.onCancel(cancellation);
      }
      return false;
    }
    this.#leave(new LostRunError("the run waits, and no worker has it"));
    return true;
  }
}
