import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

export type CtrfStatus = "passed" | "failed" | "skipped" | "pending" | "other";

/** What CTRF calls a status; the name of ours goes into `rawStatus`. */
export function toCtrfStatus(status: TestStatus): CtrfStatus {
  switch (status) {
    case TestStatus.PASSED:
    case TestStatus.EXPECTED_FAILURE:
      return "passed";
    case TestStatus.FAILED:
    case TestStatus.UNEXPECTED_PASS:
    case TestStatus.ERROR:
      return "failed";
    case TestStatus.SKIPPED:
      return "skipped";
    case TestStatus.TODO:
      return "pending";
    case TestStatus.INTERRUPTED:
    case TestStatus.NOT_RUN:
    case TestStatus.UNSPECIFIED:
      return "other";
  }
}

/** Undefined: CTRF has no such status. */
export function fromCtrfStatus(status: string, rawStatus: string): TestStatus | undefined {
  const raw = byName(rawStatus);
  switch (status) {
    case "passed":
      return raw === TestStatus.EXPECTED_FAILURE ? raw : TestStatus.PASSED;
    case "failed":
      return raw === TestStatus.ERROR || raw === TestStatus.UNEXPECTED_PASS ? raw : TestStatus.FAILED;
    case "skipped":
      return raw === TestStatus.TODO ? raw : TestStatus.SKIPPED;
    case "pending":
      return raw ?? TestStatus.SKIPPED;
    case "other":
      return raw ?? TestStatus.ERROR;
    default:
      return undefined;
  }
}

export function rawStatusOf(status: TestStatus): string {
  return TestStatus[status].toLowerCase();
}

function byName(rawStatus: string): TestStatus | undefined {
  const wanted = rawStatus.toUpperCase().replace(/[ -]/g, "_");
  return STATUSES.find((status) => TestStatus[status] === wanted);
}

const STATUSES: readonly TestStatus[] = [
  TestStatus.PASSED,
  TestStatus.FAILED,
  TestStatus.SKIPPED,
  TestStatus.TODO,
  TestStatus.EXPECTED_FAILURE,
  TestStatus.UNEXPECTED_PASS,
  TestStatus.ERROR,
  TestStatus.INTERRUPTED,
  TestStatus.NOT_RUN,
];
