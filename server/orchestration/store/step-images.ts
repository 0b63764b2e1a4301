import { clone, create, toBinary, toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type RunStep,
  type StepCounts,
  StepCountsSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { JournalEntry } from "../engine/journal.ts";
import { encodeJson, type StepRow } from "./rows.ts";

/** What is kept in mind of a step while a worker has its run. All times in milliseconds since 1970. */
export interface StepImage {
  readonly path: string;
  /** The order in which the steps of a run were first known. */
  readonly position: number;
  kind: string;
  target: string;
  state: StepState;
  attempts: number;
  failures: number;
  startTime: number | undefined;
  endTime: number | undefined;
  wakeTime: number | undefined;
  childId: string;
  approval:
    | { readonly message: string; readonly time: number; readonly deadline: number | undefined }
    | undefined;
  /** As the run has taken note of it. */
  answer: { readonly approved: boolean; readonly comment: string; readonly by: string } | undefined;
}

/** What is written of a step, and not kept in mind. */
export interface StepResult {
  readonly output: Buffer | undefined;
  readonly outputBytes: number;
  readonly error: Uint8Array | undefined;
  readonly usage: Uint8Array | undefined;
  readonly fallback: boolean;
  readonly reused: boolean;
}

/** A row to be written. */
export type StepWrite = Readonly<StepImage> & StepResult;

const nothing: StepResult = {
  output: undefined,
  outputBytes: 0,
  error: undefined,
  usage: undefined,
  fallback: false,
  reused: false,
};

/** An entry that waits to be written. */
export interface PreparedEntry {
  readonly entry: JournalEntry;
  readonly result: StepResult;
  /** When it happened, in milliseconds since 1970. */
  readonly time: number;
  /** Its event, as it is stored. */
  readonly event: Uint8Array;
  /** True: its step was written before. */
  readonly isKnown: boolean;
}

/** What the steps of a run are, as its entries are taken in. */
export interface StepImages {
  /** Changes what the entry is about, and says so in `writes`, by path. */
  apply(entry: PreparedEntry, writes: Map<string, StepWrite>): void;
  counts(): StepCounts;
  /** Those that have not ended, in order. */
  open(): StepImage[];
}

type CountedState = Exclude<keyof StepCounts & string, "$typeName" | "$unknown" | "total">;

function countedAs(state: StepState): CountedState | undefined {
  switch (state) {
    case StepState.RUNNING:
    case StepState.WAITING:
      return "running";
    case StepState.SUCCEEDED:
      return "succeeded";
    case StepState.FAILED:
      return "failed";
    case StepState.SKIPPED:
      return "skipped";
    case StepState.CANCELLED:
      return "cancelled";
    case StepState.PENDING:
    case StepState.UNSPECIFIED:
      return undefined;
  }
}

export function countSteps(steps: Iterable<{ readonly state: StepState }>): StepCounts {
  const counts = create(StepCountsSchema);
  for (const { state } of steps) {
    counts.total += 1;
    addTo(counts, state, 1);
  }
  return counts;
}

function addTo(counts: StepCounts, state: StepState, change: 1 | -1): void {
  const name = countedAs(state);
  if (name !== undefined) {
    counts[name] += change;
  }
}

export function createStepImages(known: Iterable<StepImage>): StepImages {
  const images = new Map<string, StepImage>();
  const counted = create(StepCountsSchema);
  let nextPosition = 1;

  function add(image: StepImage): StepImage {
    images.set(image.path, image);
    counted.total += 1;
    addTo(counted, image.state, 1);
    nextPosition = Math.max(nextPosition, image.position + 1);
    return image;
  }

  for (const image of known) {
    add(image);
  }

  function imageAt(path: string, kind = "", target = ""): StepImage {
    return (
      images.get(path) ??
      add({
        path,
        position: nextPosition,
        kind,
        target,
        state: StepState.PENDING,
        attempts: 0,
        failures: 0,
        startTime: undefined,
        endTime: undefined,
        wakeTime: undefined,
        childId: "",
        approval: undefined,
        answer: undefined,
      })
    );
  }

  function move(image: StepImage, state: StepState): void {
    addTo(counted, image.state, -1);
    addTo(counted, state, 1);
    image.state = state;
  }

  /** The step that the entry is about as it is afterwards; undefined: about none. */
  function take({ path, kind, wakeTime }: JournalEntry, nowMs: number): StepImage | undefined {
    switch (kind.case) {
      case "stepStarted": {
        const image = imageAt(path);
        image.kind = kind.value.kind || image.kind;
        image.target = kind.value.target || image.target;
        image.attempts = Math.max(image.attempts, kind.value.attempt);
        image.startTime ??= nowMs;
        image.endTime = undefined;
        image.wakeTime = wakeTime;
        move(image, wakeTime === undefined ? StepState.RUNNING : StepState.WAITING);
        return image;
      }
      case "stepRetrying": {
        const image = imageAt(path);
        image.failures += 1;
        image.wakeTime = wakeTime;
        move(image, StepState.WAITING);
        return image;
      }
      case "approvalRequested": {
        const image = imageAt(path);
        const deadline = milliseconds(kind.value.deadline);
        const time = milliseconds(kind.value.requestTime) ?? nowMs;
        image.startTime ??= nowMs;
        image.wakeTime = wakeTime ?? deadline;
        image.approval = { message: kind.value.message, time, deadline };
        move(image, StepState.WAITING);
        return image;
      }
      case "approvalResolved": {
        const image = imageAt(path);
        const { approved, comment, by } = kind.value;
        image.answer = { approved, comment, by };
        image.wakeTime = undefined;
        if (image.endTime === undefined) {
          move(image, StepState.RUNNING);
        }
        return image;
      }
      case "stepProgress": {
        const image = images.get(path);
        if (kind.value.childId === "" || image === undefined || image.endTime !== undefined) {
          return undefined;
        }
        image.childId = kind.value.childId;
        return image;
      }
      case "stepFinished": {
        const { step } = kind.value;
        const image = imageAt(path);
        image.kind = step?.kind || image.kind;
        image.target = step?.target || image.target;
        image.attempts = Math.max(image.attempts, step?.attempts ?? 0);
        image.startTime ??= milliseconds(step?.startTime);
        image.endTime = milliseconds(step?.endTime) ?? nowMs;
        image.wakeTime = undefined;
        image.childId = step?.childId || image.childId;
        move(image, step?.state ?? StepState.UNSPECIFIED);
        return image;
      }
      case "started":
      case "planned":
      case "modelDelta":
      case "toolSelection":
      case "usage":
      case "waiting":
      case "cancelRequested":
        return undefined;
    }
  }

  return {
    apply({ entry, result, time, isKnown }, writes) {
      if (isKnown) {
        return;
      }
      if (entry.kind.case === "planned") {
        for (const { path, kind, target } of entry.kind.value.steps) {
          if (!images.has(path)) {
            writes.set(path, { ...imageAt(path, kind, target), ...nothing });
          }
        }
        return;
      }
      const image = take(entry, time);
      if (image !== undefined) {
        writes.set(image.path, { ...image, ...result });
      }
    },
    counts: () => clone(StepCountsSchema, counted),
    open: () => [...images.values()].filter(({ endTime }) => endTime === undefined),
  };
}

export function resultOf({ kind }: JournalEntry): StepResult {
  switch (kind.case) {
    case "stepRetrying":
      // While it waits, its last error says why.
      return { ...nothing, error: kind.value.error && toBinary(StatusSchema, kind.value.error) };
    case "stepFinished":
      return kind.value.step === undefined ? nothing : finished(kind.value.step);
    default:
      return nothing;
  }
}

function finished({ output, outputBytes, error, usage, fallback, reused }: RunStep): StepResult {
  const text = output && encodeJson(toJson(ValueSchema, output));
  return {
    output: text,
    outputBytes: text?.byteLength ?? Number(outputBytes),
    error: error && toBinary(StatusSchema, error),
    usage: usage && toBinary(UsageSchema, usage),
    fallback,
    reused,
  };
}

/** What an image is made of. */
export const IMAGE_COLUMNS = [
  "path",
  "position",
  "kind",
  "target",
  "state",
  "attempts",
  "failures",
  "start_time",
  "end_time",
  "wake_time",
  "child_id",
  "approval_message",
  "approval_time",
  "approval_deadline",
  "answer_approved",
  "answer_comment",
  "answer_by",
  "answer_taken",
] as const satisfies readonly (keyof StepRow)[];

export function imageOf(row: Pick<StepRow, (typeof IMAGE_COLUMNS)[number]>): StepImage {
  return {
    path: row.path,
    position: row.position,
    kind: row.kind,
    target: row.target,
    state: row.state,
    attempts: row.attempts,
    failures: row.failures,
    startTime: row.start_time?.getTime(),
    endTime: row.end_time?.getTime(),
    wakeTime: row.wake_time?.getTime(),
    childId: row.child_id,
    approval:
      row.approval_message === null
        ? undefined
        : {
            message: row.approval_message,
            time: row.approval_time?.getTime() ?? 0,
            deadline: row.approval_deadline?.getTime(),
          },
    answer: row.answer_taken
      ? {
          approved: row.answer_approved ?? false,
          comment: row.answer_comment ?? "",
          by: row.answer_by ?? "",
        }
      : undefined,
  };
}

function milliseconds(time: Timestamp | undefined): number | undefined {
  return time && timestampMs(time);
}
