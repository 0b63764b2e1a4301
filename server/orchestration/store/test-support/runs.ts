import { create, fromJson, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { ListRunStepsRequestSchema } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { type RunEvent, RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import {
  RunSourceSchema,
  type RunStepSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { JournalEntry } from "../../engine/journal.ts";
import type { NewRun } from "../../runs.ts";

export function newRun(run: Partial<NewRun> = {}): NewRun {
  return {
    source: workflowSource("deploy", { city: "Bern" }),
    agents: [],
    title: "deploy",
    workflowVersion: 3,
    labels: { team: "shop" },
    principal: { id: "user:ada", role: "caller" },
    timeoutMs: 3_600_000,
    ...run,
  };
}

export function workflowSource(name: string, input: Record<string, JsonValue> = {}) {
  return create(RunSourceSchema, {
    kind: { case: "workflow", value: { workflow: { case: "name", value: name }, version: 3, input } },
  });
}

type EntryInit = NonNullable<MessageInitShape<typeof RunEventSchema>["kind"]>;

export function entry(path: string, kind: EntryInit, wakeTime?: number): JournalEntry {
  const event: RunEvent = create(RunEventSchema, { kind });
  switch (event.kind.case) {
    case undefined:
    case "created":
    case "finished":
      throw new Error("this is not recorded by workers");
    default:
      return { path, kind: event.kind, ...(wakeTime !== undefined && { wakeTime }) };
  }
}

export function planned(...paths: readonly string[]): JournalEntry {
  const steps = paths.map((path) => ({ path, kind: "tool", target: `tool of ${path}` }));
  return entry("", { case: "planned", value: { steps, maxConcurrency: 10 } });
}

export function started(path: string, attempt = 1, input?: JsonValue): JournalEntry {
  return entry(path, {
    case: "stepStarted",
    value: {
      kind: "tool",
      target: "weather.get",
      attempt,
      ...(input !== undefined && { input: fromJson(ValueSchema, input) }),
    },
  });
}

export function succeeded(path: string, output: JsonValue = null): JournalEntry {
  return finished(path, StepState.SUCCEEDED, { output: fromJson(ValueSchema, output) });
}

export function failed(path: string, message = "it broke"): JournalEntry {
  return finished(path, StepState.FAILED, { error: create(StatusSchema, { code: 14, message }) });
}

export function finished(
  path: string,
  state: StepState,
  step: Omit<MessageInitShape<typeof RunStepSchema>, "$typeName"> = {},
): JournalEntry {
  return entry(path, {
    case: "stepFinished",
    value: { step: { path, kind: "tool", target: "weather.get", attempts: 1, state, ...step } },
  });
}

export function asks(path: string, message = "Go on?"): JournalEntry {
  return entry(path, { case: "approvalRequested", value: { path, message } });
}

export function stepsOf(
  runId: string,
  request: Partial<MessageInitShape<typeof ListRunStepsRequestSchema>> = {},
) {
  return create(ListRunStepsRequestSchema, { ...request, runId } as MessageInitShape<
    typeof ListRunStepsRequestSchema
  >);
}
