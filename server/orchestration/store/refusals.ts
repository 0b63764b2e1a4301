import { Code } from "@connectrpc/connect";
import { DomainError, invalidArgument } from "@toolplane/framework";
import { RESOURCE } from "../refusals.ts";

export function queueFull(limit: number): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "RUN_QUEUE_FULL",
    message: `${limit} runs wait for a worker already: try again later, or raise orchestration.max_queued_runs`,
    retryAfterMs: 5_000,
  });
}

export function requestIdReused(): DomainError {
  return invalidArgument([
    {
      field: "request_id",
      reason: "REQUEST_ID_REUSED",
      description: "it was used for another run: a new run needs a new id",
    },
  ]);
}

/** Others change the run so often that nothing could be decided. */
export function runBusy(runId: string): DomainError {
  return new DomainError({
    code: Code.Aborted,
    reason: "RUN_BUSY",
    message: `Run "${runId}" changed again and again meanwhile: try again`,
    retryAfterMs: 200,
    resource: { type: RESOURCE, name: runId },
  });
}

export function tooManyEvents(limit: number): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "EVENT_LIMIT",
    message: `The run has more than ${limit} events: split it, or raise orchestration.max_events_per_run`,
  });
}

export function crashesWorkers(takeovers: number): DomainError {
  return new DomainError({
    code: Code.Internal,
    reason: "RUN_CRASHES_WORKERS",
    message: `${takeovers} workers died with the run, one after the other, and no step ended meanwhile: see what its open steps do, then retry it`,
  });
}

export function cancelled({ by, message }: { readonly by: string; readonly message: string }): DomainError {
  return new DomainError({
    code: Code.Canceled,
    reason: "RUN_CANCELLED",
    message: message || `The run was cancelled by ${by}`,
    metadata: { by },
  });
}

export function approvalResolved(path: string, approved: boolean, by: string): DomainError {
  const who = by === "" ? "by itself, when its time was over" : `by ${by}`;
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "APPROVAL_RESOLVED",
    message: `Step "${path}" was ${approved ? "approved" : "refused"} already, ${who}: this cannot be changed`,
    metadata: { path, approved: String(approved), by },
  });
}

/** @param pending the paths that an answer may be given to */
export function notWaitingForApproval(runId: string, path: string, pending: readonly string[]): DomainError {
  const what = path === "" ? "for no approval" : `for no approval of step "${path}"`;
  const instead = pending.length === 0 ? "there is nothing to answer" : `it waits for ${list(pending)}`;
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "NOT_WAITING_FOR_APPROVAL",
    message: `Run "${runId}" waits ${what}: ${instead}`,
    resource: { type: RESOURCE, name: runId },
  });
}

export function whichApproval(pending: readonly string[]): DomainError {
  return invalidArgument([
    {
      field: "path",
      reason: "APPROVAL_AMBIGUOUS",
      description: `the run waits for several approvals, say for which one: ${list(pending)}`,
    },
  ]);
}

const MAX_LISTED = 20;

function list(paths: readonly string[]): string {
  const rest = paths.length - MAX_LISTED;
  const listed = paths.slice(0, MAX_LISTED).map((path) => `"${path}"`);
  return [...listed, ...(rest > 0 ? [`${rest} more`] : [])].join(", ");
}
