import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type CallContext, toStatus } from "@toolplane/framework";
import { type Status, StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { StepFinishedSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import {
  RunState,
  RunStepSchema,
  StepCountsSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { JournalEntry, RunEnd } from "../engine/journal.ts";
import { cancelled } from "./refusals.ts";
import { encodeJson, type RunRow } from "./rows.ts";
import type { StepImages } from "./step-images.ts";
import type { RunEndColumns, RunWrite } from "./write.ts";

/** The run as it will be, without its approvals: it waits for none. */
export function endedRow(
  row: RunRow,
  { state, time, output, error }: RunEndColumns,
  { counts, usage, lastSequence }: Pick<RunWrite, "counts" | "usage" | "lastSequence">,
): RunRow {
  return {
    ...row,
    state,
    end_time: time,
    output: output ?? null,
    error: error === undefined ? null : Buffer.from(error),
    counts: Buffer.from(toBinary(StepCountsSchema, counts)),
    usage: Buffer.from(toBinary(UsageSchema, usage)),
    last_sequence: String(lastSequence),
  };
}

export function endColumns(
  end: RunEnd,
  nowMs: number,
  call: Pick<CallContext, "correlationId" | "logger">,
): RunEndColumns {
  const status = endStatus(end, call);
  const output = end.state === "cancelled" ? undefined : end.output;
  return {
    state: endState(end),
    time: new Date(nowMs),
    output: output === undefined ? undefined : encodeJson(output),
    error: status && toBinary(StatusSchema, status),
  };
}

function endState({ state }: RunEnd): RunState {
  switch (state) {
    case "succeeded":
      return RunState.SUCCEEDED;
    case "failed":
      return RunState.FAILED;
    case "cancelled":
      return RunState.CANCELLED;
  }
}

/** Why a run failed or was cancelled. An error that is a Status already is taken as it is. */
function endStatus(end: RunEnd, call: Pick<CallContext, "correlationId" | "logger">): Status | undefined {
  switch (end.state) {
    case "succeeded":
      return undefined;
    case "failed":
      return isStatus(end.error) ? end.error : create(StatusSchema, toStatus(end.error, call));
    case "cancelled":
      return create(StatusSchema, toStatus(cancelled(end), call));
  }
}

function isStatus(error: unknown): error is Status {
  return (
    typeof error === "object" &&
    error !== null &&
    "$typeName" in error &&
    error.$typeName === StatusSchema.typeName
  );
}

/** No step is left open when its run ends. */
export function endOfOpenSteps(steps: StepImages, nowMs: number): JournalEntry[] {
  return steps.open().map(({ path, kind, target, attempts, startTime, childId }) => {
    const step = create(RunStepSchema, {
      path,
      kind,
      target,
      state: StepState.CANCELLED,
      attempts,
      ...(startTime !== undefined && { startTime: timestampFromMs(startTime) }),
      endTime: timestampFromMs(nowMs),
      childId,
    });
    return { path, kind: { case: "stepFinished", value: create(StepFinishedSchema, { step }) } };
  });
}
