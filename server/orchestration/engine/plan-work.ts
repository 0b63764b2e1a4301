import { create, type JsonValue } from "@bufbuild/protobuf";
import {
  PlannedStepSchema,
  RunPlannedSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import type { WorkAction, Works } from "../actions/action.ts";
import type { Scope } from "../expressions/expression.ts";
import type { PlanAction, PlanFallback, PlanRetry, PlanStep, RunPlan } from "../plan.ts";
import type { StepAbout } from "./finished-step.ts";
import type { JournalEntry } from "./journal.ts";
import { evaluateField, evaluateInputs, targetOf } from "./scope.ts";
import { errorScope } from "./statuses.ts";
import type { StepContext, StepOutput, WorkStep } from "./step.ts";
import { FALLBACK_ID, type StepFallback } from "./step-runner.ts";

export type Inputs = Readonly<Record<string, JsonValue>>;

const once: PlanRetry = { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 };

/** What is to be done, for whoever watches. */
export function plannedEntry({ steps, maxConcurrency }: RunPlan): JournalEntry {
  const value = create(RunPlannedSchema, {
    maxConcurrency,
    steps: steps.map((step) => {
      const { path, kind, target } = plannedAbout(step);
      const { description, dependsOn } = step;
      return create(PlannedStepSchema, { path, kind, target, description, dependsOn: [...dependsOn] });
    }),
  });
  return { path: "", kind: { case: "planned", value } };
}

/** A step of the plan, as far as it is known before it begins. */
export function plannedAbout({ id, fanOut, action }: PlanStep): StepAbout {
  return {
    path: id,
    kind: fanOut === undefined ? action.kind : "fan_out",
    target: targetOf(action, {}),
    parent: undefined,
  };
}

/** A step of the plan, or an item of it, as the work that it is. */
export function workOf(
  id: string,
  { action, timeoutMs, retry }: Pick<PlanStep, "timeoutMs" | "retry"> & { readonly action: WorkAction },
  inputs: Inputs,
  works: Works,
): WorkStep {
  return {
    id,
    kind: action.kind,
    target: targetOf(action, inputs),
    input: shownInput(inputs),
    timeoutMs,
    retry,
    execute: (context) => perform(works, action, inputs, context),
  };
}

export function fallbackOf(
  { fallback, timeoutMs }: PlanStep,
  scope: Scope,
  works: Works,
): StepFallback | undefined {
  switch (fallback?.kind) {
    case undefined:
      return undefined;
    case "value": {
      const { value } = fallback;
      return {
        kind: "value",
        value: (error) => evaluateField("fallback.value", value, { ...scope, error: errorScope(error) }),
      };
    }
    case "tool": {
      const { action } = fallback;
      return {
        kind: "work",
        work: (error) => toolFallback(action, { ...scope, error: errorScope(error) }, timeoutMs, works),
      };
    }
  }
}

function toolFallback(
  action: Extract<PlanFallback, { kind: "tool" }>["action"],
  scope: Scope,
  timeoutMs: number | undefined,
  works: Works,
): WorkStep {
  const step = { action, timeoutMs, retry: once };
  try {
    return workOf(FALLBACK_ID, step, evaluateInputs(action, scope, "fallback."), works);
  } catch (error) {
    // That it cannot begin is how it fails.
    return {
      ...workOf(FALLBACK_ID, step, {}, works),
      input: undefined,
      execute: () => Promise.reject(error),
    };
  }
}

/** Most actions are given one thing. */
function shownInput(inputs: Inputs): JsonValue {
  const [first, ...further] = Object.values(inputs);
  return first === undefined || further.length > 0 ? inputs : first;
}

function perform(
  works: Works,
  action: WorkAction,
  inputs: Inputs,
  context: StepContext,
): Promise<StepOutput> {
  switch (action.kind) {
    case "tool":
      return works.tool(action, inputs, context);
    case "agent":
      return works.agent(action, inputs, context);
    case "requirement":
      return works.requirement(action, inputs, context);
    case "test_run":
      return works.test_run(action, inputs, context);
    case "comparison":
      return works.comparison(action, inputs, context);
    case "workflow":
      return works.workflow(action, inputs, context);
  }
}

/** What a step that only computes does. */
export function valueWork(id: string, value: JsonValue, retry: PlanRetry): WorkStep {
  return {
    id,
    kind: "value" satisfies PlanAction["kind"],
    target: "",
    timeoutMs: undefined,
    retry,
    execute: () => Promise.resolve({ output: value }),
  };
}
