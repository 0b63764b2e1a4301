import { Code } from "@connectrpc/connect";
import { DomainError, notFound } from "@toolplane/framework";

/** What the reason `TEST_RUN_NOT_FOUND` is made of. */
export const RESOURCE = "test run";

export function unknownRun(id: string): DomainError {
  return notFound(RESOURCE, id, "it may have been deleted because of its age; list the runs that there are");
}

/** Something was to be added to a run that has ended. */
export function runEnded(id: string): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "TEST_RUN_ENDED",
    message: `Test run "${id}" has ended, nothing can be added: create another one`,
    resource: { type: RESOURCE, name: id },
  });
}

/** Coverage was to be added to a run that still goes on. */
export function runNotEnded(id: string): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "TEST_RUN_IN_PROGRESS",
    message: `Test run "${id}" still goes on: wait for its end`,
    resource: { type: RESOURCE, name: id },
  });
}

/** Events are missing between what was taken and what was sent. */
export function positionGap(reporter: string, position: number): DomainError {
  const who = reporter === "" ? "the reporter" : `reporter "${reporter}"`;
  return new DomainError({
    code: Code.OutOfRange,
    reason: "POSITION_GAP",
    message: `Events are missing: of ${who} everything up to position ${position} is here, go on with ${position + 1}`,
    metadata: { acknowledged_position: String(position), next_position: String(position + 1) },
  });
}

export function tooManyEvents(limit: number): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_EVENTS",
    message: `The run has ${limit} events, more are not taken: finish it, and split the suite or raise testing.max_events_per_run`,
  });
}

export function tooMuchOpen(): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_OPEN_TESTS",
    message:
      "The run has announced more tests and files that have not ended than can be kept in mind: report their ends first, or split the suite",
  });
}

export function queueFull(limit: number): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "TEST_RUN_QUEUE_FULL",
    message: `${limit} test runs wait already: try again when some have ended`,
    retryAfterMs: 10_000,
  });
}

/** Others write to the same run all the time, so that this write never found it as it had expected. */
export function runBusy(id: string): DomainError {
  return new DomainError({
    code: Code.Aborted,
    reason: "TEST_RUN_BUSY",
    message: `Test run "${id}" is written to by too many at once: try again`,
    retryAfterMs: 100,
  });
}
