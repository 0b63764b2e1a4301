import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type RunEvent,
  RunEventSchema,
  StepFinishedSchema,
  StepStartedSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type Run, RunSchema, RunStepSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { JournalEntry } from "../engine/journal.ts";
import type { Redactor } from "./redact.ts";
import type { RunRow } from "./rows.ts";

/** What events do not repeat when it is larger, in bytes. Steps and runs have it. */
const MAX_INPUT_BYTES = 16 * 1024;
const MAX_STEP_OUTPUT_BYTES = 64 * 1024;
const MAX_RUN_OUTPUT_BYTES = 1024 * 1024;

type Kind = RunEvent["kind"];

/** Events as they are stored: redacted, their number being their place in the stream. */
export interface EventEncoder {
  /** @param outputBytes the size of the output of a step that ended, as JSON */
  entry(entry: JournalEntry, outputBytes: number, nowMs: number): Uint8Array;
  event(kind: Kind, nowMs: number): Uint8Array;
}

export function createEventEncoder(redactor: Redactor): EventEncoder {
  function encode(path: string, kind: Kind, nowMs: number): Uint8Array {
    const event = create(RunEventSchema, { time: timestampFromMs(nowMs), path });
    event.kind = kind;
    return toBinary(RunEventSchema, redactor.message(RunEventSchema, event));
  }
  return {
    entry: ({ path, kind }, outputBytes, nowMs) =>
      encode(path, shortened(path, kind, outputBytes, nowMs), nowMs),
    event: (kind, nowMs) => encode("", kind, nowMs),
  };
}

function shortened(path: string, kind: JournalEntry["kind"], outputBytes: number, nowMs: number): Kind {
  switch (kind.case) {
    case "stepStarted": {
      const { input } = kind.value;
      if (input === undefined || toBinary(ValueSchema, input).byteLength <= MAX_INPUT_BYTES) {
        return kind;
      }
      const { input: _, ...rest } = kind.value;
      return { case: "stepStarted", value: create(StepStartedSchema, rest) };
    }
    case "stepFinished": {
      if (kind.value.step === undefined) {
        return kind;
      }
      const { output, ...rest } = kind.value.step;
      const isSmall = output !== undefined && outputBytes <= MAX_STEP_OUTPUT_BYTES;
      const step = create(RunStepSchema, { ...rest, ...(isSmall && { output }) });
      step.outputBytes = BigInt(outputBytes);
      step.path = path;
      step.endTime ??= timestampFromMs(nowMs);
      return { case: "stepFinished", value: create(StepFinishedSchema, { step }) };
    }
    default:
      return kind;
  }
}

/** A run as its events tell it. `row` is what `run` was made of. */
export function toldRun(run: Run, row: Pick<RunRow, "input" | "output">): Run {
  const { input, output, ...rest } = run;
  return create(RunSchema, {
    ...rest,
    ...(input && (row.input?.byteLength ?? 0) <= MAX_INPUT_BYTES && { input }),
    ...(output && (row.output?.byteLength ?? 0) <= MAX_RUN_OUTPUT_BYTES && { output }),
  });
}
