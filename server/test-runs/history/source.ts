import { fromBinary } from "@bufbuild/protobuf";
import {
  TestFailureSchema,
  type TestIdentity,
  TestIdentitySchema,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { type SqlBool, sql } from "kysely";
import type { Database } from "../../storage/database.ts";
import { storable } from "../../storage/text.ts";
import { toRun } from "../messages.ts";

/** Which runs a history looks at. */
export interface HistoryQuery {
  readonly project: string;
  /** Empty: all. */
  readonly environment: string;
  /** Empty: all. */
  readonly branch: string;
  readonly maxRuns: number;
}

/** A run in a history. */
export interface HistoryRun {
  /** Grows with time. */
  readonly number: number;
  readonly run: TestRun;
  /** True when it has no part in statistics. */
  readonly excluded: boolean;
}

/** A test that a project has, or had. */
export interface KnownTest {
  readonly testId: string;
  readonly file: string;
  readonly name: string;
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
}

/** What a test did in a run. */
export interface HistoryResult {
  readonly runNumber: number;
  readonly testId: string;
  readonly status: TestStatus;
  readonly durationMs: number | undefined;
  readonly attempts: number;
  /** What the failure says; empty: it did not fail. */
  readonly message: string;
}

/** Where histories come from. */
export interface HistorySource {
  /** Runs that ended, the newest first. */
  runs(query: HistoryQuery): Promise<readonly HistoryRun[]>;
  /** Those of these tests that the project has, or had, in no order. */
  tests(project: string, testIds: readonly string[]): Promise<readonly KnownTest[]>;
  /** Tests whose full name is the text, or has it as a part, in any case; equal names first, then those seen last. */
  testsNamed(project: string, part: string, limit: number): Promise<readonly KnownTest[]>;
  /** Tests of the project, those seen last first. */
  recentTests(project: string, limit: number): Promise<readonly KnownTest[]>;
  /** Of these runs, tests that had both outcomes or needed retries, those that did so most often first. */
  unsteadyTests(runs: readonly number[], limit: number): Promise<readonly string[]>;
  results(runs: readonly number[], testIds: readonly string[]): Promise<readonly HistoryResult[]>;
  /** The latest known identities. */
  identities(testIds: readonly string[]): Promise<ReadonlyMap<string, TestIdentity>>;
}

const GOOD = [TestStatus.PASSED, TestStatus.EXPECTED_FAILURE];
const BAD = [TestStatus.FAILED, TestStatus.ERROR, TestStatus.UNEXPECTED_PASS];

/** The histories that are kept in the database. */
export function storedHistory({ kysely }: Pick<Database, "kysely">): HistorySource {
  const cases = (project: string) =>
    kysely
      .selectFrom("test_cases")
      .select(["test_id", "file", "name", "first_seen", "last_seen"])
      .where("project", "=", storable(project));

  return {
    async runs({ project, environment, branch, maxRuns }) {
      const rows = await kysely
        .selectFrom("test_runs")
        .selectAll()
        .where("project", "=", storable(project))
        .where("end_time", "is not", null)
        .$if(environment !== "", (query) => query.where("environment", "=", storable(environment)))
        .$if(branch !== "", (query) => query.where("branch", "=", storable(branch)))
        .orderBy("number", "desc")
        .limit(maxRuns)
        .execute();
      return rows.map((row) => ({ number: Number(row.number), run: toRun(row), excluded: row.excluded }));
    },

    async tests(project, testIds) {
      const rows = await cases(project).where(sql<SqlBool>`test_id = ANY (${testIds}::uuid[])`).execute();
      return rows.map(toKnownTest);
    },

    async testsNamed(project, part, limit) {
      const text = storable(part);
      const rows = await cases(project)
        .where(sql<SqlBool>`position(lower(${text}) IN lower(name)) > 0`)
        .orderBy(sql`name = ${text}`, "desc")
        .orderBy("last_seen", "desc")
        .orderBy("test_id")
        .limit(limit)
        .execute();
      return rows.map(toKnownTest);
    },

    async recentTests(project, limit) {
      const rows = await cases(project)
        .orderBy("last_seen", "desc")
        .orderBy("test_id")
        .limit(limit)
        .execute();
      return rows.map(toKnownTest);
    },

    async unsteadyTests(runs, limit) {
      const { rows } = await sql<{ test_id: string }>`
        SELECT test_id FROM (
          SELECT test_id,
            count(*) FILTER (WHERE status = ANY (${BAD}::smallint[])) AS bad,
            count(*) FILTER (WHERE status = ANY (${GOOD}::smallint[])) AS good,
            count(*) FILTER (WHERE status = ANY (${GOOD}::smallint[]) AND attempts > 1) AS retried
          FROM test_results WHERE run = ANY (${runs}::bigint[]) GROUP BY test_id
        ) AS counted
        WHERE retried > 0 OR (bad > 0 AND good > 0)
        ORDER BY retried + least(bad, good) DESC, test_id LIMIT ${limit}
      `.execute(kysely);
      return rows.map(({ test_id }) => plainId(test_id));
    },

    async results(runs, testIds) {
      const { rows } = await sql<{
        run: string;
        test_id: string;
        status: number;
        duration_us: string | null;
        attempts: number;
        failure: Buffer | null;
      }>`
        SELECT run, test_id, status, duration_us, attempts, failure FROM test_results
        WHERE test_id = ANY (${testIds}::uuid[]) AND run = ANY (${runs}::bigint[]) ORDER BY run DESC
      `.execute(kysely);
      return rows.map((row) => ({
        runNumber: Number(row.run),
        testId: plainId(row.test_id),
        status: row.status,
        durationMs: row.duration_us === null ? undefined : Number(row.duration_us) / 1e3,
        attempts: row.attempts,
        message: row.failure === null ? "" : fromBinary(TestFailureSchema, row.failure).message,
      }));
    },

    async identities(testIds) {
      const { rows } = await sql<{ test_id: string; identity: Buffer }>`
        SELECT DISTINCT ON (test_id) test_id, identity FROM test_results
        WHERE test_id = ANY (${testIds}::uuid[]) ORDER BY test_id, run DESC
      `.execute(kysely);
      return new Map(
        rows.map(({ test_id, identity }) => [plainId(test_id), fromBinary(TestIdentitySchema, identity)]),
      );
    },
  };
}

function toKnownTest(row: {
  test_id: string;
  file: string;
  name: string;
  first_seen: Date;
  last_seen: Date;
}): KnownTest {
  return {
    testId: plainId(row.test_id),
    file: row.file,
    name: row.name,
    firstSeenMs: row.first_seen.getTime(),
    lastSeenMs: row.last_seen.getTime(),
  };
}

/** Identifiers of tests go without hyphens. */
function plainId(uuid: string): string {
  return uuid.replaceAll("-", "");
}
