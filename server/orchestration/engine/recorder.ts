import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Clock } from "@toolplane/framework";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import {
  StepRetryingSchema,
  StepStartedSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { toDuration } from "../../config/durations.ts";
import { finishedEntry, type StepAbout } from "./finished-step.ts";
import type { ClaimedRun, Journal, JournalEntry } from "./journal.ts";
import { jsonBytes } from "./json-bytes.ts";
import type { StepEnd, ToldKind } from "./step.ts";

/** What a step looked back on when this worker came to it first; nothing on every further occasion. */
export interface StepHistory {
  /** Attempts that failed. */
  readonly failures: number;
  /** Attempts whose worker died. */
  readonly crashes: number;
  readonly wakeTime: number | undefined;
}

/** Writes down what happens to the steps of a run, and knows which of them are open. */
export interface Recorder {
  history(path: string): StepHistory;
  /** How a step ended, as far as it is known. */
  ended(path: string): StepEnd | undefined;
  /** An attempt begins. Returns its number, and when the first one began. */
  begin(
    about: StepAbout,
    details?: {
      readonly input?: JsonValue | undefined;
      readonly items?: number;
      readonly wakeTime?: number | undefined;
    },
  ): { readonly attempt: number; readonly startTime: number };
  /** A step that only waits goes on to wait where another worker had left it. */
  resume(about: StepAbout): void;
  retrying(path: string, error: Status, delayMs: number): void;
  tell(path: string, kind: ToldKind): void;
  /** Records anything else about a step. */
  note(entry: JournalEntry): void;
  /** Resolves when the end of the step, and of all its parts that are still open, is durable. */
  end(about: StepAbout, end: StepEnd, outputBytes?: number): Promise<void>;
  /** Resolves when everything that was recorded so far is durable. */
  flushed(): Promise<void>;
  /** From now on nothing is recorded. */
  close(): void;
}

export interface RecorderOptions {
  readonly run: ClaimedRun;
  readonly journal: Journal;
  readonly clock: Clock;
  /** Called when something could not be recorded; the run cannot go on here. */
  readonly onFailure: (error: unknown) => void;
}

/** The longest input that an event shows, as JSON, in bytes. */
const MAX_SHOWN_INPUT_BYTES = 16 * 1024;

/** A step that this worker has begun. Kept until it has ended, and for parts of a step until that one has. */
interface LiveStep {
  readonly about: StepAbout;
  readonly startTime: number;
  readonly parts: Set<string>;
  attempts: number;
  end: StepEnd | undefined;
}

export function createRecorder({ run, journal, clock, onFailure }: RecorderOptions): Recorder {
  const live = new Map<string, LiveStep>();
  let last: Promise<void> = Promise.resolve();
  let isClosed = false;

  function write(entries: readonly JournalEntry[]): Promise<void> {
    if (isClosed) {
      return Promise.reject(new Error("the run is no longer recorded here"));
    }
    const written = journal.record(entries);
    last = written;
    written.catch(onFailure);
    return written;
  }

  /** For what nobody waits for; `onFailure` is told when it fails. */
  function writeSoon(entries: readonly JournalEntry[]): void {
    if (!isClosed) {
      void write(entries);
    }
  }

  function open(about: StepAbout): LiveStep {
    const known = live.get(about.path);
    if (known !== undefined) {
      return known;
    }
    const before = run.steps.get(about.path);
    const step: LiveStep = {
      about,
      startTime: before?.startTime ?? clock.now(),
      parts: new Set(),
      attempts: before?.attempts ?? 0,
      end: undefined,
    };
    live.set(about.path, step);
    if (about.parent !== undefined) {
      live.get(about.parent)?.parts.add(about.path);
    }
    return step;
  }

  function isOpen(path: string): boolean {
    const step = live.get(path);
    return step !== undefined && step.end === undefined;
  }

  /** Forgets a step with its parts; returns the ends of those that were open. */
  function forget(path: string): JournalEntry[] {
    const step = live.get(path);
    live.delete(path);
    const parts = [...(step?.parts ?? [])].flatMap(forget);
    if (step !== undefined && step.end === undefined) {
      parts.push(finish(step.about, { state: "cancelled" }, step));
    }
    return parts;
  }

  function finish(
    about: StepAbout,
    end: StepEnd,
    step: Pick<LiveStep, "attempts" | "startTime"> | undefined,
    outputBytes = 0,
  ): JournalEntry {
    const before = run.steps.get(about.path);
    return finishedEntry(about, end, {
      attempts: step?.attempts ?? before?.attempts ?? 0,
      startTime: step?.startTime ?? before?.startTime,
      endTime: clock.now(),
      outputBytes,
    });
  }

  return {
    history(path) {
      const before = live.has(path) ? undefined : run.steps.get(path);
      const failures = before?.failures ?? 0;
      return {
        failures,
        crashes: Math.max(0, (before?.attempts ?? 0) - failures),
        wakeTime: before?.wakeTime,
      };
    },
    ended: (path) => live.get(path)?.end ?? run.steps.get(path)?.end,
    begin(about, { input, items, wakeTime } = {}) {
      const step = open(about);
      step.attempts += 1;
      const { path, kind, target } = about;
      const value = create(StepStartedSchema, { kind, target, attempt: step.attempts, items: items ?? 0 });
      if (input !== undefined && jsonBytes(input) <= MAX_SHOWN_INPUT_BYTES) {
        value.input = fromJson(ValueSchema, input);
      }
      writeSoon([{ path, kind: { case: "stepStarted", value }, wakeTime }]);
      return { attempt: step.attempts, startTime: step.startTime };
    },
    resume: (about) => void open(about),
    retrying(path, error, delayMs) {
      if (isOpen(path)) {
        const attempt = live.get(path)?.attempts ?? 0;
        const value = create(StepRetryingSchema, { attempt, error, delay: toDuration(delayMs) });
        writeSoon([{ path, kind: { case: "stepRetrying", value }, wakeTime: clock.now() + delayMs }]);
      }
    },
    tell(path, kind) {
      if (isOpen(path)) {
        writeSoon([{ path, kind }]);
      }
    },
    note: (entry) => writeSoon([entry]),
    end(about, end, outputBytes) {
      const step = live.get(about.path);
      const parts = [...(step?.parts ?? [])].flatMap(forget);
      if (step !== undefined) {
        step.parts.clear();
        step.end = end;
      }
      if (about.parent === undefined) {
        live.delete(about.path);
      }
      return write([...parts, finish(about, end, step, outputBytes)]);
    },
    flushed: () => last,
    close() {
      isClosed = true;
    },
  };
}
