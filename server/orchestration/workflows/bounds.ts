import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { type Weight, weighTemplate } from "../expressions/weigh.ts";
import { stepTemplates, workflowOutput } from "./parts.ts";
import type { Problems } from "./problems.ts";

/** What the expressions of one step may be, all together. Each is parsed when it is checked and when a run begins. */
const STEP_LIMIT: Weight = { count: 2_000, length: 32_768 };

/** What the expressions of one workflow may be, all together. */
const WORKFLOW_LIMIT: Weight = { count: 10_000, length: 131_072 };

/** Reports expressions that are too many to look at. True: they are not. */
export function checkBounds(workflow: Workflow, problems: Problems): boolean {
  let count = 0;
  let length = 0;
  let isBounded = true;
  const take = (weight: Weight) => {
    count += weight.count;
    length += weight.length;
  };
  for (const [index, step] of workflow.steps.entries()) {
    const weight = sum(stepTemplates(step).map(weighTemplate));
    take(weight);
    if (exceeds(weight, STEP_LIMIT)) {
      report(problems, `steps[${index}]`, step.id, "the step", weight, STEP_LIMIT, "divide it into steps");
      isBounded = false;
    }
  }
  take(weighTemplate(workflowOutput(workflow)));
  const all = { count, length };
  if (exceeds(all, WORKFLOW_LIMIT)) {
    const advice = "divide it into workflows, or go through lists with for_each";
    report(problems, "steps", undefined, "the workflow", all, WORKFLOW_LIMIT, advice);
    isBounded = false;
  }
  return isBounded;
}

function sum(weights: readonly Weight[]): Weight {
  return weights.reduce((a, b) => ({ count: a.count + b.count, length: a.length + b.length }), {
    count: 0,
    length: 0,
  });
}

function exceeds(weight: Weight, limit: Weight): boolean {
  return weight.count > limit.count || weight.length > limit.length;
}

function report(
  problems: Problems,
  field: string,
  stepId: string | undefined,
  what: string,
  weight: Weight,
  limit: Weight,
  advice: string,
): void {
  problems.add({
    reason: "TOO_MANY_EXPRESSIONS",
    field,
    stepId,
    message: `${what} has ${weight.count} expressions of ${weight.length} characters, and may have ${limit.count} of ${limit.length}; ${advice}`,
  });
}
