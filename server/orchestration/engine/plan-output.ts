import type { JsonValue } from "@bufbuild/protobuf";
import type { Scope, StepScope } from "../expressions/expression.ts";
import type { PlanStep, RunPlan } from "../plan.ts";
import { evaluateField } from "./scope.ts";

/**
 * The output of a run whose steps have ended as told. Throws INVALID_ARGUMENT, reason `EXPRESSION`, when its template
 * cannot be evaluated.
 */
export function outputOf(
  { output, steps }: RunPlan,
  base: Pick<Scope, "input" | "run">,
  ended: ReadonlyMap<string, StepScope>,
): JsonValue {
  switch (output.kind) {
    case "template": {
      const seen = output.template.references.steps.flatMap((id) => {
        const step = ended.get(id);
        return step === undefined ? [] : [[id, step] as const];
      });
      return evaluateField("output", output.template, { ...base, steps: Object.fromEntries(seen) });
    }
    case "leaves":
      return Object.fromEntries(leavesOf(steps).map(({ id }) => [id, ended.get(id)?.output ?? null]));
    case "single":
      return ended.get(steps[0]?.id ?? "")?.output ?? null;
    case "list":
      return listOf(steps, output.name, ended);
  }
}

/** What a failed run gives back all the same. */
export function outputOfFailed(plan: RunPlan, ended: ReadonlyMap<string, StepScope>): JsonValue | undefined {
  return plan.output.kind === "list" ? listOf(plan.steps, plan.output.name, ended) : undefined;
}

function listOf(
  steps: readonly PlanStep[],
  name: string | undefined,
  ended: ReadonlyMap<string, StepScope>,
): JsonValue {
  return steps.map(({ id }) => {
    const step = ended.get(id);
    if (step?.state !== "succeeded") {
      return { error: step?.error ?? { code: "CANCELLED", message: "it was stopped, or never begun" } };
    }
    return name === undefined ? step.output : { [name]: step.output };
  });
}

/** The steps that no other comes after. */
function leavesOf(steps: readonly PlanStep[]): readonly PlanStep[] {
  const followed = new Set(steps.flatMap(({ dependsOn }) => dependsOn));
  return steps.filter(({ id }) => !followed.has(id));
}
