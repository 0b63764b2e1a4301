import type { ColumnType, Generated } from "kysely";

/** `bigint` is read as text; numbers of runs and events stay far below 2^53. */
type BigInteger = ColumnType<string, number, number>;
type Time = ColumnType<Date, Date, Date>;
type OptionalTime = ColumnType<Date | null, Date | null | undefined, Date | null>;
/** Compared with the database's clock only. */
type LeaseTime = ColumnType<Date | null, Date | null | undefined, Date | null>;

export interface TestRunsTable {
  /** Counts runs in the order in which they were made. */
  number: ColumnType<string, never, never>;
  id: string;
  project: string;
  environment: string;
  framework: string;
  /** A toolplane.testing.v1.TestRunState. */
  state: number;
  /** A toolplane.testing.v1.TestRunOrigin. */
  origin: number;
  commit: string;
  branch: string;
  labels: ColumnType<Record<string, string>, string, string>;
  /** A toolplane.testing.v1.TestRunContext. */
  context: Buffer | null;
  /** A toolplane.testing.v1.TestSelection. */
  selection: Buffer | null;
  created_by: string;
  request_id: string | null;
  request_fingerprint: string | null;
  create_time: Time;
  start_time: OptionalTime;
  end_time: OptionalTime;
  /** A toolplane.testing.v1.TestCounts. */
  counts: Generated<Buffer>;
  test_time_us: ColumnType<string, number | undefined, number>;
  last_sequence: BigInteger;
  /** A toolplane.testing.v1.TestRunEnd. */
  run_end: ColumnType<Buffer | null, Buffer | null | undefined, Buffer | null>;
  /** True when the run has no part in histories. */
  excluded: Generated<boolean>;
  /** A toolplane.testing.v1.CoverageTotals. */
  coverage: ColumnType<Buffer | null, Buffer | null | undefined, Buffer | null>;
  /** What the replica that runs it has to know besides. */
  plan: ColumnType<Buffer | null, Buffer | null | undefined, Buffer | null>;
  /** The replica that runs it. */
  owner: ColumnType<string | null, string | null | undefined, string | null>;
  lease_ms: number;
  lease_until: LeaseTime;
  cancel_message: ColumnType<string | null, string | null | undefined, string | null>;
}

export interface TestResultsTable {
  run: BigInteger;
  /** Read with hyphens, written with or without. */
  test_id: string;
  /** A toolplane.testing.v1.TestStatus. */
  status: number;
  duration_us: ColumnType<string | null, number | null, number | null>;
  attempts: number;
  file: string;
  /** The full name. */
  name: string;
  /** A toolplane.testing.v1.TestIdentity. */
  identity: Buffer;
  /** The toolplane.testing.v1.TestFailure that tells most. */
  failure: Buffer | null;
  /** The same for failures that differ in numbers and names only. */
  failure_kind: number | null;
  /** A toolplane.testing.v1.TestResult without `test` and `test_id`. */
  detail: Buffer;
}

export interface TestCasesTable {
  project: string;
  test_id: string;
  file: string;
  name: string;
  first_seen: Time;
  last_seen: Time;
}

export interface TestCoverageTable {
  run: BigInteger;
  file: string;
  lines_total: number;
  lines_covered: number;
  branches_total: number;
  branches_covered: number;
  functions_total: number;
  functions_covered: number;
  /** A toolplane.testing.v1.FileCoverage without `file`. */
  detail: Buffer;
}

/** The tables of test runs. Their events are in the event log. */
export interface TestRunTables {
  test_runs: TestRunsTable;
  test_results: TestResultsTable;
  test_cases: TestCasesTable;
  test_coverage: TestCoverageTable;
}
