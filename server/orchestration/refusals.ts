import { Code } from "@connectrpc/connect";
import { DomainError, notFound } from "@toolplane/framework";

/** What the reason `RUN_NOT_FOUND` is made of. */
export const RESOURCE = "run";

export function unknownRun(id: string): DomainError {
  return notFound(RESOURCE, id, "it may have been deleted because of its age; list the runs that there are");
}

/** A run was to be retried that has succeeded, or has not ended. */
export function notRetryable(id: string, state: string): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "RUN_NOT_RETRYABLE",
    message: `Run "${id}" is ${state}: only runs that failed or were cancelled can be retried; start another one`,
    resource: { type: RESOURCE, name: id },
  });
}

/** A run of a run of a run. */
export function runTooDeep(maxDepth: number): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "RUN_TOO_DEEP",
    message: `Runs start runs ${maxDepth} deep already: this looks endless; if it is not, raise orchestration.max_depth`,
  });
}
