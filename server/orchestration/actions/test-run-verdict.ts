import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import {
  type TestRun,
  TestRunEndReason,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";

export function hasEnded({ state }: TestRun): boolean {
  switch (state) {
    case TestRunState.PASSED:
    case TestRunState.FAILED:
    case TestRunState.CANCELLED:
    case TestRunState.ERROR:
      return true;
    default:
      return false;
  }
}

/** Whether the server that ran it went away. */
export function wasLost({ end }: TestRun): boolean {
  return end?.reason === TestRunEndReason.SERVER_LOST;
}

/** Why a step fails with a test run that has ended; undefined: it succeeds. */
export function failureOf(run: TestRun, allowFailures: boolean): DomainError | undefined {
  const { id, project, end } = run;
  const resource = { type: "test run", name: id };
  const metadata = { test_run_id: id, project };
  const why = end?.message ? `: ${end.message}` : "";
  switch (run.state) {
    case TestRunState.PASSED:
      return undefined;
    case TestRunState.FAILED:
      return allowFailures
        ? undefined
        : new DomainError({
            code: Code.FailedPrecondition,
            reason: "TESTS_FAILED",
            message: `${failuresOf(run)} of project "${project}" failed in test run ${id}`,
            metadata,
            resource,
          });
    case TestRunState.CANCELLED:
      return new DomainError({
        code: Code.FailedPrecondition,
        reason: "TEST_RUN_CANCELLED",
        message: `test run ${id} of project "${project}" was cancelled${why}`,
        metadata,
        resource,
      });
    default:
      return new DomainError({
        code: codeOfReason(end?.reason ?? TestRunEndReason.UNSPECIFIED),
        reason: "TEST_RUN_WITHOUT_VERDICT",
        message: `test run ${id} of project "${project}" did not run to its end${why}`,
        metadata,
        resource,
      });
  }
}

function failuresOf({ counts }: TestRun): string {
  const failed = (counts?.failed ?? 0) + (counts?.errors ?? 0);
  return failed === 1 ? "1 test" : `${failed} tests`;
}

/** Another run may go well when this one was stopped by what is around it, and not by what it is. */
function codeOfReason(reason: TestRunEndReason): Code {
  switch (reason) {
    case TestRunEndReason.TIMEOUT:
      return Code.DeadlineExceeded;
    case TestRunEndReason.CRASHED:
    case TestRunEndReason.SILENT:
    case TestRunEndReason.SERVER_LOST:
      return Code.Unavailable;
    case TestRunEndReason.UNSPECIFIED:
    case TestRunEndReason.CANCELLED:
    case TestRunEndReason.NOT_STARTED:
    case TestRunEndReason.RUNNER_ERROR:
    case TestRunEndReason.INCOMPLETE:
      return Code.FailedPrecondition;
  }
}
