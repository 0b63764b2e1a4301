import { fromBinary } from "@bufbuild/protobuf";
import {
  type FileCoverage,
  FileCoverageSchema,
  TestFailureSchema,
  TestIdentitySchema,
  type TestResult,
  TestStatus,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type {
  TestResultFilter,
  TestRunFilter,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { type Expression, type SqlBool, sql } from "kysely";
import type { Database } from "../storage/database.ts";
import { storable } from "../storage/text.ts";
import { type RunRow, toRun } from "./messages.ts";
import { readResult } from "./results-store.ts";
import type { ResultSummary, RunResults } from "./run-results.ts";
import { readRow } from "./run-rows.ts";
import { readIdentity } from "./run-writer.ts";

/** A page holds no more bytes than this and one thing more, so that it fits into a message. */
const MAX_PAGE_BYTES = 2 * 1024 * 1024;

export interface Page<T, P> {
  readonly items: readonly T[];
  /** The last thing on the page; undefined when nothing follows. */
  readonly next: P | undefined;
}

/** Where a page of results ends. */
export interface ResultPosition {
  readonly rank: number;
  readonly file: string;
  readonly name: string;
  readonly testId: string;
}

/** Whoever asks about test runs. */
export interface TestRunQueries {
  /** The newest first. `before`: the number of the last run of the page before. */
  listRuns(
    filter: TestRunFilter | undefined,
    limit: number,
    before: number | undefined,
  ): Promise<Page<TestRun, number>>;
  /** Those that failed first, then by file and name. */
  listResults(
    runId: string,
    filter: TestResultFilter | undefined,
    limit: number,
    after: ResultPosition | undefined,
  ): Promise<Page<TestResult, ResultPosition>>;
  listCoverage(
    runId: string,
    filePrefix: string,
    limit: number,
    after: string | undefined,
  ): Promise<Page<FileCoverage, string>>;
  /** Projects with runs, by name. */
  listProjects(): Promise<readonly ProjectRuns[]>;
  /** Everything that comparison needs of a run. */
  loadRunResults(runId: string): Promise<RunResults>;
}

export interface ProjectRuns {
  readonly name: string;
  readonly latestRun: TestRun;
  readonly runCount: number;
}

export function createQueries({ kysely }: Pick<Database, "kysely">): TestRunQueries {
  return {
    async listRuns(filter, limit, before) {
      const rows = await kysely
        .selectFrom("test_runs")
        .selectAll()
        .$if(before !== undefined, (query) => query.where("number", "<", String(before)))
        .where(matches(runConditions(filter)))
        .orderBy("number", "desc")
        .limit(limit + 1)
        .execute();
      const page = rows.slice(0, limit);
      const last = page.at(-1);
      return {
        items: page.map(toRun),
        next: rows.length > limit && last !== undefined ? Number(last.number) : undefined,
      };
    },

    async listResults(runId, filter, limit, after) {
      const { number } = await readIdentity(kysely, runId);
      const { rows } = await sql<{
        test_id: string;
        rank: number;
        file: string;
        name: string;
        identity: Buffer;
        detail: Buffer;
        found: string;
      }>`
        SELECT * FROM (
          SELECT test_id, ${rank} AS rank, file, name, identity, detail,
            sum(octet_length(detail)) OVER (ORDER BY ${rank}, file, name, test_id) - octet_length(detail) AS before,
            count(*) OVER () AS found
          FROM test_results
          WHERE run = ${number} AND ${matches(resultConditions(filter))} AND ${
            after === undefined
              ? sql<boolean>`true`
              : sql<boolean>`(${rank}, file, name, test_id)
                  > (${after.rank}::integer, ${after.file}, ${after.name}, ${after.testId}::uuid)`
          }
          ORDER BY ${rank}, file, name, test_id LIMIT ${limit}
        ) AS result
        WHERE before <= ${MAX_PAGE_BYTES} ORDER BY rank, file, name, test_id
      `.execute(kysely);
      return toPage(rows, readResult, ({ test_id, ...place }) => ({ ...place, testId: test_id }));
    },

    async listCoverage(runId, filePrefix, limit, after) {
      const { number } = await readIdentity(kysely, runId);
      const { rows } = await sql<{ file: string; detail: Buffer; found: string }>`
        SELECT * FROM (
          SELECT file, detail, sum(octet_length(detail)) OVER (ORDER BY file) - octet_length(detail) AS before,
            count(*) OVER () AS found
          FROM test_coverage
          WHERE run = ${number} AND starts_with(file, ${storable(filePrefix)}) AND file > ${after ?? ""}
          ORDER BY file LIMIT ${limit}
        ) AS covered
        WHERE before <= ${MAX_PAGE_BYTES} ORDER BY file
      `.execute(kysely);
      return toPage(rows, readCoverage, ({ file }) => file);
    },

    async listProjects() {
      const { rows } = await sql<RunRow & { run_count: string }>`
        SELECT run.*, counted.run_count
        FROM (SELECT project, count(*) AS run_count, max(number) AS number FROM test_runs GROUP BY project) AS counted
        JOIN test_runs AS run USING (number) ORDER BY run.project
      `.execute(kysely);
      return rows.map((row) => ({
        name: row.project,
        latestRun: toRun(row),
        runCount: Number(row.run_count),
      }));
    },

    async loadRunResults(runId) {
      const row = await readRow(kysely, runId);
      const results = await kysely
        .selectFrom("test_results")
        .select(["test_id", "identity", "status", "duration_us", "attempts", "failure"])
        .where("run", "=", row.number)
        .execute();
      const coverage =
        row.coverage === null
          ? undefined
          : await kysely
              .selectFrom("test_coverage")
              .select(["file", "detail"])
              .where("run", "=", row.number)
              .execute();
      return {
        run: toRun(row),
        results: results.map(toSummary),
        coverage: coverage && new Map(coverage.map((file) => [file.file, readCoverage(file)])),
      };
    },
  };
}

/** What failed comes first, then what was lost. */
const rank = sql<number>`CASE
  WHEN status IN (${TestStatus.FAILED}, ${TestStatus.UNEXPECTED_PASS}, ${TestStatus.ERROR}) THEN 0
  WHEN status = ${TestStatus.INTERRUPTED} THEN 1
  WHEN status = ${TestStatus.NOT_RUN} THEN 2
  ELSE 3 END`;

function matches(conditions: readonly Expression<SqlBool>[]): Expression<SqlBool> {
  return conditions.length === 0 ? sql<SqlBool>`true` : sql<SqlBool>`(${sql.join(conditions, sql` AND `)})`;
}

/** The conditions of a filter on `test_runs`. */
export function runConditions(filter: TestRunFilter | undefined): Expression<SqlBool>[] {
  if (filter === undefined) {
    return [];
  }
  const conditions: Expression<SqlBool>[] = [];
  for (const column of ["project", "environment", "branch", "commit"] as const) {
    if (filter[column] !== "") {
      conditions.push(sql<SqlBool>`${sql.ref(column)} = ${storable(filter[column])}`);
    }
  }
  if (filter.states.length > 0) {
    conditions.push(sql<SqlBool>`state = ANY (${filter.states}::smallint[])`);
  }
  if (Object.keys(filter.labels).length > 0) {
    const labels = Object.fromEntries(
      Object.entries(filter.labels).map(([name, value]) => [storable(name), storable(value)]),
    );
    conditions.push(sql<SqlBool>`labels @> ${JSON.stringify(labels)}::jsonb`);
  }
  return conditions;
}

function resultConditions(filter: TestResultFilter | undefined): Expression<SqlBool>[] {
  const conditions: Expression<SqlBool>[] = [];
  if (filter === undefined) {
    return conditions;
  }
  if (filter.statuses.length > 0) {
    conditions.push(sql<SqlBool>`status = ANY (${filter.statuses}::smallint[])`);
  }
  if (filter.filePrefix !== "") {
    conditions.push(sql<SqlBool>`starts_with(file, ${storable(filter.filePrefix)})`);
  }
  if (filter.nameContains !== "") {
    conditions.push(sql<SqlBool>`position(lower(${storable(filter.nameContains)}) IN lower(name)) > 0`);
  }
  if (filter.testIds.length > 0) {
    conditions.push(sql<SqlBool>`test_id = ANY (${filter.testIds}::uuid[])`);
  }
  return conditions;
}

/** Each row says how many there are from the first of the page on. */
function toPage<Row extends { readonly found: string }, T, P>(
  rows: readonly Row[],
  read: (row: Row) => T,
  positionOf: (row: Row) => P,
): Page<T, P> {
  const last = rows.at(-1);
  const isMore = last !== undefined && Number(last.found) > rows.length;
  return { items: rows.map(read), next: isMore ? positionOf(last) : undefined };
}

function readCoverage({ file, detail }: { file: string; detail: Buffer }): FileCoverage {
  const coverage = fromBinary(FileCoverageSchema, detail);
  coverage.file = file;
  return coverage;
}

function toSummary(row: {
  test_id: string;
  identity: Buffer;
  status: number;
  duration_us: string | null;
  attempts: number;
  failure: Buffer | null;
}): ResultSummary {
  return {
    testId: row.test_id.replaceAll("-", ""),
    test: fromBinary(TestIdentitySchema, row.identity),
    status: row.status,
    durationMs: row.duration_us === null ? undefined : Number(row.duration_us) / 1e3,
    attempts: row.attempts,
    failure: row.failure === null ? undefined : fromBinary(TestFailureSchema, row.failure),
  };
}
