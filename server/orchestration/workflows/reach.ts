import { StepTrigger } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import type { Node } from "../expressions/syntax.ts";
import type { LinkedStep } from "./graph.ts";
import type { StepParts } from "./parts.ts";
import type { Problems } from "./problems.ts";

/** Reports steps, and parts of steps, that never run. */
export function checkReach(
  { step, after }: LinkedStep,
  parts: StepParts,
  byId: ReadonlyMap<string, StepParts>,
  problems: Problems,
): void {
  const warn = (field: string, message: string) =>
    problems.add({
      reason: "UNREACHABLE",
      field: `${parts.field}.${field}`,
      stepId: step.id,
      message,
      isWarning: true,
    });
  if (parts.condition !== undefined && isAlwaysFalse(parts.condition.expression.node)) {
    warn(
      "condition",
      "is always false, so that the step never runs; remove the step or change the condition",
    );
  }
  const items = parts.items?.expression.node;
  if (items?.kind === "list" && items.elements.length === 0) {
    warn("for_each.items", "is always empty, so that nothing is done; name the list to go through");
  }
  if (step.trigger === StepTrigger.ON_FAILURE) {
    const before = Array.from(after.keys(), (id) => byId.get(id)?.step);
    if (before.length === 0) {
      warn("trigger", "waits for a failure, and the step comes after none; name the steps in depends_on");
    } else if (before.every((each) => each?.continueOnFailure)) {
      warn(
        "trigger",
        "waits for a failure, but a step with continue_on_failure counts as skipped; use trigger: always and ask for its state",
      );
    }
  }
  if (step.fallback !== undefined && step.action.case === "wait") {
    warn("fallback", "is never used: waiting does not fail; remove it");
  }
}

function isAlwaysFalse(node: Node): boolean {
  switch (node.kind) {
    case "constant":
      return node.value === false;
    case "and":
      return isAlwaysFalse(node.left) || isAlwaysFalse(node.right);
    case "or":
      return isAlwaysFalse(node.left) && isAlwaysFalse(node.right);
    case "call":
      return (
        node.function === "!_" && node.arguments[0]?.kind === "constant" && node.arguments[0].value === true
      );
    default:
      return false;
  }
}
