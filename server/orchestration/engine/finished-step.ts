import { create, fromJson } from "@bufbuild/protobuf";
import { anyPack, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { errorDomain } from "@toolplane/framework";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { StepFinishedSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type RunStep, RunStepSchema, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { toTimestamp } from "../../config/durations.ts";
import type { JournalEntry } from "./journal.ts";
import type { StepEnd } from "./step.ts";

/** What a step is, for its records. */
export interface StepAbout {
  readonly path: string;
  readonly kind: string;
  readonly target: string;
  /** The step that it is a part of. Undefined: none. */
  readonly parent: string | undefined;
}

/** What is known of a step when it ends. Times in milliseconds since 1970. */
export interface StepFacts {
  readonly attempts: number;
  readonly startTime: number | undefined;
  readonly endTime: number;
  readonly outputBytes: number;
}

/** Why a step was skipped that comes after one that failed. A step whose condition was false has no error. */
const skippedByFailure = create(StatusSchema, {
  code: Code.Aborted,
  message: "a step before it failed",
  details: [
    anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "DEPENDENCY_FAILED", domain: errorDomain })),
  ],
});

export function finishedEntry(about: StepAbout, end: StepEnd, facts: StepFacts): JournalEntry {
  const { path, kind, target } = about;
  const step = create(RunStepSchema, {
    path,
    kind,
    target,
    attempts: facts.attempts,
    endTime: toTimestamp(facts.endTime),
    outputBytes: BigInt(facts.outputBytes),
  });
  if (facts.startTime !== undefined) {
    step.startTime = toTimestamp(facts.startTime);
  }
  setEnd(step, end);
  return { path, kind: { case: "stepFinished", value: create(StepFinishedSchema, { step }) } };
}

function setEnd(step: RunStep, end: StepEnd): void {
  switch (end.state) {
    case "succeeded":
      step.state = StepState.SUCCEEDED;
      step.output = fromJson(ValueSchema, end.output);
      step.fallback = end.fallback ?? false;
      step.reused = end.reused ?? false;
      step.childId = end.childId ?? "";
      step.usage = end.usage;
      break;
    case "failed":
      step.state = StepState.FAILED;
      step.error = end.error;
      step.usage = end.usage;
      break;
    case "skipped":
      step.state = StepState.SKIPPED;
      step.error = end.cause === "failure" ? skippedByFailure : undefined;
      break;
    case "cancelled":
      step.state = StepState.CANCELLED;
      break;
  }
}
