import type {
  FileCoverage,
  TestFailure,
  TestIdentity,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";

/** What became of a test in one run, as far as comparison and history need it. */
export interface ResultSummary {
  readonly testId: string;
  readonly test: TestIdentity;
  readonly status: TestStatus;
  /** Undefined: unknown. */
  readonly durationMs: number | undefined;
  /** At least 1. */
  readonly attempts: number;
  /** The first failure of the last attempt that has one. */
  readonly failure: TestFailure | undefined;
}

/** A run with all its results. */
export interface RunResults {
  readonly run: TestRun;
  /** One a test, in no order. */
  readonly results: readonly ResultSummary[];
  /** By file. Undefined: not measured. */
  readonly coverage: ReadonlyMap<string, FileCoverage> | undefined;
}
