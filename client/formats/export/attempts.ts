import { create } from "@bufbuild/protobuf";
import {
  type TestAttempt,
  TestAttemptSchema,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/** Every execution of a test, at least one, of which the last one is how it ended. */
export function attemptsOf(
  result: TestResult,
): readonly [earlier: readonly TestAttempt[], last: TestAttempt] {
  const last = result.attempts.at(-1) ?? create(TestAttemptSchema, { status: result.status });
  return [result.attempts.slice(0, -1), last];
}

/** Whether reports call it failed. */
export function isFailing(status: TestStatus): boolean {
  switch (status) {
    case TestStatus.FAILED:
    case TestStatus.UNEXPECTED_PASS:
    case TestStatus.ERROR:
    case TestStatus.INTERRUPTED:
      return true;
    case TestStatus.UNSPECIFIED:
    case TestStatus.PASSED:
    case TestStatus.SKIPPED:
    case TestStatus.TODO:
    case TestStatus.EXPECTED_FAILURE:
    case TestStatus.NOT_RUN:
      return false;
  }
}
