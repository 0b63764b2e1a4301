import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/** What a status means for whoever asks whether the code is well. */
export type Outcome = "absent" | "good" | "bad" | "left-out" | "lost";

export function outcomeOf(status: TestStatus): Outcome {
  switch (status) {
    case TestStatus.UNSPECIFIED:
      return "absent";
    case TestStatus.PASSED:
    case TestStatus.EXPECTED_FAILURE:
      return "good";
    case TestStatus.FAILED:
    case TestStatus.ERROR:
    case TestStatus.UNEXPECTED_PASS:
      return "bad";
    case TestStatus.SKIPPED:
    case TestStatus.TODO:
      return "left-out";
    case TestStatus.INTERRUPTED:
    case TestStatus.NOT_RUN:
      return "lost";
  }
}

const words: Readonly<Record<TestStatus, string>> = {
  [TestStatus.UNSPECIFIED]: "absent",
  [TestStatus.PASSED]: "passed",
  [TestStatus.FAILED]: "failed",
  [TestStatus.SKIPPED]: "skipped",
  [TestStatus.TODO]: "todo",
  [TestStatus.EXPECTED_FAILURE]: "failed as expected",
  [TestStatus.UNEXPECTED_PASS]: "passed unexpectedly",
  [TestStatus.ERROR]: "error",
  [TestStatus.INTERRUPTED]: "interrupted",
  [TestStatus.NOT_RUN]: "not run",
};

/** A status for people. */
export function statusWords(status: TestStatus): string {
  return words[status];
}
