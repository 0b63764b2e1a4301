import { invalidArgument } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { RunSource } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { compileRun } from "./compile.ts";
import type { PlanStep } from "./plan.ts";

/**
 * The steps that a retry runs anew although they may have succeeded: those asked for, and all that come after them.
 * Throws INVALID_ARGUMENT for one that there is not.
 */
export function stepsAnew(
  source: RunSource,
  agents: readonly Agent[],
  fromSteps: readonly string[],
): ReadonlySet<string> {
  if (fromSteps.length === 0) {
    return new Set();
  }
  const { steps } = compileRun(source, agents);
  const known = new Set(steps.map(({ id }) => id));
  const unknown = fromSteps.flatMap((step, index) => (known.has(step) ? [] : [{ step, index }]));
  if (unknown.length > 0) {
    throw invalidArgument(
      unknown.map(({ step, index }) => ({
        field: `from_steps[${index}]`,
        description: `there is no step "${step}": name steps of the run itself, without items and turns`,
        reason: "UNKNOWN_STEP",
      })),
    );
  }
  return withDependents(steps, fromSteps);
}

function withDependents(steps: readonly PlanStep[], ids: readonly string[]): ReadonlySet<string> {
  const dependents = new Map<string, string[]>();
  for (const { id, dependsOn } of steps) {
    for (const before of dependsOn) {
      dependents.set(before, [...(dependents.get(before) ?? []), id]);
    }
  }
  // A set that grows while it is walked through is walked through to its end.
  const found = new Set(ids);
  for (const id of found) {
    for (const dependent of dependents.get(id) ?? []) {
      found.add(dependent);
    }
  }
  return found;
}
