import { create } from "@bufbuild/protobuf";
import {
  type WorkflowProblem,
  WorkflowProblemSchema,
  WorkflowProblemSeverity,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";

/** A place in a text, both from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** Where a field such as `steps[2].tool.name` is in the text; of one that is not there, where it would belong. */
export type FindPlace = (field: string) => Place | undefined;

/** How many problems one check reports. */
export const MAX_PROBLEMS = 1_000;

/** Something that is wrong, before its place in the text is known. */
export interface Finding {
  readonly reason: string;
  readonly field: string;
  readonly stepId?: string | undefined;
  /** What is wrong, and what to do. */
  readonly message: string;
  /** True: it can be run all the same. Default: false. */
  readonly isWarning?: boolean;
}

/** Collects what is wrong with a workflow, up to `MAX_PROBLEMS`. */
export class Problems {
  readonly #found: WorkflowProblem[] = [];
  readonly #place: FindPlace;

  constructor(place: FindPlace = () => undefined) {
    this.#place = place;
  }

  get all(): WorkflowProblem[] {
    return this.#found;
  }

  get isFull(): boolean {
    return this.#found.length >= MAX_PROBLEMS;
  }

  add(finding: Finding): void {
    if (this.isFull) return;
    this.#found.push(toProblem(finding, this.#place(finding.field)));
  }
}

export function toProblem(finding: Finding, place: Place | undefined): WorkflowProblem {
  return create(WorkflowProblemSchema, {
    severity: finding.isWarning ? WorkflowProblemSeverity.WARNING : WorkflowProblemSeverity.ERROR,
    reason: finding.reason,
    field: finding.field,
    stepId: finding.stepId ?? "",
    line: place?.line ?? 0,
    column: place?.column ?? 0,
    message: finding.message,
  });
}
