import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";

/** What a test did in one run, as far as statistics need it. */
export interface Observation {
  readonly runId: string;
  /** When the run began, in milliseconds since 1970. */
  readonly timeMs: number;
  readonly commit: string;
  /** True when the run had changes that its commit does not name. */
  readonly dirty: boolean;
  readonly branch: string;
  readonly environment: string;
  readonly status: TestStatus;
  /** Undefined: unknown. */
  readonly durationMs: number | undefined;
  /** At least 1. */
  readonly attempts: number;
  /** True when the run's environment failed, or it did not end by itself: it has no part in statistics. */
  readonly excluded: boolean;
}

/** Whether the test ran, in a run that counts. */
export function counts({ status, excluded }: Observation): boolean {
  return !excluded && (isGood(status) || isBad(status));
}

export function isGood(status: TestStatus): boolean {
  return status === TestStatus.PASSED || status === TestStatus.EXPECTED_FAILURE;
}

function isBad(status: TestStatus): boolean {
  return status === TestStatus.FAILED || status === TestStatus.ERROR || status === TestStatus.UNEXPECTED_PASS;
}
