import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import {
  type Workflow,
  type WorkflowGraph,
  type WorkflowProblem,
  WorkflowProblemSeverity,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";

/** A workflow as a message, or as YAML or JSON. */
export type WorkflowSource =
  | { readonly case: "workflow"; readonly value: Workflow }
  | { readonly case: "text"; readonly value: string };

/** What a workflow was found to be. */
export interface CheckedWorkflow {
  readonly problems: readonly WorkflowProblem[];
  /** As it was understood; undefined: it could not be. */
  readonly workflow: Workflow | undefined;
  /** Undefined: that cannot be said. */
  readonly graph: WorkflowGraph | undefined;
}

/** Finds all that is wrong with workflows. */
export interface WorkflowChecks {
  validate(source: WorkflowSource): CheckedWorkflow | Promise<CheckedWorkflow>;
}

/** How many problems an error names. */
const MAX_NAMED = 50;

export function isError({ severity }: WorkflowProblem): boolean {
  return severity === WorkflowProblemSeverity.ERROR;
}

/**
 * The workflow, if it can be run; otherwise throws INVALID_ARGUMENT with a field for each problem.
 *
 * @param field where the workflow is in the request
 */
export function refuseProblems({ workflow, problems }: CheckedWorkflow, field: string): Workflow {
  const errors = problems.filter(isError);
  if (workflow !== undefined && errors.length === 0) {
    return workflow;
  }
  const violations = errors.slice(0, MAX_NAMED).map((problem) => toViolation(problem, field));
  if (errors.length > MAX_NAMED) {
    violations.push({
      field,
      description: `and ${errors.length - MAX_NAMED} more problems: ValidateWorkflow names them all`,
    });
  }
  throw invalidArgument(
    violations.length > 0 ? violations : [{ field, description: "it cannot be understood" }],
  );
}

function toViolation(
  { field, line, column, reason, message }: WorkflowProblem,
  root: string,
): FieldViolation {
  const place = line > 0 ? `line ${line}${column > 0 ? `, column ${column}` : ""}: ` : "";
  return {
    field: field === "" ? root : `${root}.${field}`,
    description: `${place}${message}`,
    ...(reason !== "" && { reason }),
  };
}
