import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { mergeCoverage } from "@toolplane/client/formats";
import {
  type CoverageTotals,
  CoverageTotalsSchema,
  type FileCoverage,
  FileCoverageSchema,
  type TestFailure,
  TestFailureSchema,
  type TestIdentity,
  TestIdentitySchema,
  type TestResult,
  TestResultSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { type Kysely, sql, type Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import { storable } from "../storage/text.ts";
import { failureKind } from "./failure-kind.ts";
import { fullName } from "./test-id.ts";

/** Rows in one statement: their bytes together stay far below what one message to the database may have. */
const ROWS_AT_ONCE = 2_000;

/** What a test came to, with all its attempts. */
export interface StoredResult {
  readonly testId: string;
  readonly test: TestIdentity;
  readonly result: TestResult;
}

/** Writes results, each test once; one that is there is replaced. */
export async function writeResults(
  transaction: Transaction<Tables>,
  run: number,
  results: readonly StoredResult[],
): Promise<void> {
  for (let start = 0; start < results.length; start += ROWS_AT_ONCE) {
    const rows = results.slice(start, start + ROWS_AT_ONCE).map(toRow);
    await sql`
      INSERT INTO test_results
        (run, test_id, status, duration_us, attempts, file, name, identity, failure, failure_kind, detail)
      SELECT ${run}::bigint, * FROM unnest(
        ${rows.map(({ testId }) => testId)}::uuid[],
        ${rows.map(({ status }) => status)}::smallint[],
        ${rows.map(({ durationUs }) => durationUs)}::bigint[],
        ${rows.map(({ attempts }) => attempts)}::integer[],
        ${rows.map(({ file }) => file)}::text[],
        ${rows.map(({ name }) => name)}::text[],
        ${rows.map(({ identity }) => identity)}::bytea[],
        ${rows.map(({ failure }) => failure)}::bytea[],
        ${rows.map(({ kind }) => kind)}::integer[],
        ${rows.map(({ detail }) => detail)}::bytea[]
      )
      ON CONFLICT (run, test_id) DO UPDATE SET
        status = excluded.status, duration_us = excluded.duration_us, attempts = excluded.attempts,
        failure = excluded.failure, failure_kind = excluded.failure_kind, detail = excluded.detail
    `.execute(transaction);
  }
}

function toRow({ testId, test, result }: StoredResult) {
  const failure = tellingFailure(result);
  return {
    testId,
    status: result.status,
    durationUs: result.duration ? Math.round(durationMs(result.duration) * 1e3) : null,
    attempts: Math.max(result.attempts.length, 1),
    file: storable(test.file),
    name: storable(fullName(test)),
    identity: Buffer.from(toBinary(TestIdentitySchema, test)),
    failure: failure === undefined ? null : Buffer.from(toBinary(TestFailureSchema, failure)),
    kind: failure === undefined ? null : failureKind(failure.message),
    detail: Buffer.from(toBinary(TestResultSchema, withoutIdentity(result))),
  };
}

/** The first failure of the last attempt that has one. */
function tellingFailure({ attempts }: TestResult): TestFailure | undefined {
  return attempts.findLast(({ failures }) => failures.length > 0)?.failures[0];
}

function withoutIdentity(result: TestResult): TestResult {
  const stored: TestResult = { ...result, testId: "" };
  delete stored.test;
  return stored;
}

/** The result as it was written. */
export function readResult(row: { test_id: string; identity: Buffer; detail: Buffer }): TestResult {
  const result = fromBinary(TestResultSchema, row.detail);
  result.test = fromBinary(TestIdentitySchema, row.identity);
  result.testId = row.test_id.replaceAll("-", "");
  return result;
}

/** Writes what files are covered, merged with what is known of them already. Returns what the run comes to. */
export async function writeCoverage(
  transaction: Transaction<Tables>,
  run: number,
  measured: Iterable<FileCoverage>,
): Promise<CoverageTotals> {
  const files = new Map<string, FileCoverage>();
  for (const file of measured) {
    const name = storable(file.file);
    const known = files.get(name);
    files.set(name, known === undefined ? file : mergeCoverage(known, file));
  }
  const stored = await transaction
    .selectFrom("test_coverage")
    .select(["file", "detail"])
    .where("run", "=", String(run))
    .where(sql<boolean>`file = ANY (${[...files.keys()]}::text[])`)
    .execute();
  for (const { file, detail } of stored) {
    const known = files.get(file);
    if (known !== undefined) {
      files.set(file, mergeCoverage(fromBinary(FileCoverageSchema, detail), known));
    }
  }
  const rows = [...files].map(([name, file]) => ({ name, ...coverageRow(file) }));
  for (let start = 0; start < rows.length; start += ROWS_AT_ONCE) {
    await insertCoverage(transaction, run, rows.slice(start, start + ROWS_AT_ONCE));
  }
  return await sumCoverage(transaction, run);
}

type CoverageRow = ReturnType<typeof coverageRow> & { readonly name: string };

function coverageRow(file: FileCoverage) {
  return {
    lines: file.lines.length,
    linesCovered: file.lines.reduce((sum, { hits }) => sum + (hits > 0 ? 1 : 0), 0),
    branches: file.branchesTotal,
    branchesCovered: file.branchesCovered,
    functions: file.functionsTotal,
    functionsCovered: file.functionsCovered,
    detail: Buffer.from(toBinary(FileCoverageSchema, create(FileCoverageSchema, { ...file, file: "" }))),
  };
}

async function insertCoverage(
  transaction: Transaction<Tables>,
  run: number,
  rows: readonly CoverageRow[],
): Promise<void> {
  await sql`
    INSERT INTO test_coverage (run, file, lines_total, lines_covered, branches_total, branches_covered,
      functions_total, functions_covered, detail)
    SELECT ${run}::bigint, * FROM unnest(
      ${rows.map(({ name }) => name)}::text[],
      ${rows.map(({ lines }) => lines)}::integer[],
      ${rows.map(({ linesCovered }) => linesCovered)}::integer[],
      ${rows.map(({ branches }) => branches)}::bigint[],
      ${rows.map(({ branchesCovered }) => branchesCovered)}::bigint[],
      ${rows.map((row) => row.functions)}::bigint[],
      ${rows.map(({ functionsCovered }) => functionsCovered)}::bigint[],
      ${rows.map(({ detail }) => detail)}::bytea[]
    )
    ON CONFLICT (run, file) DO UPDATE SET
      lines_total = excluded.lines_total, lines_covered = excluded.lines_covered,
      branches_total = excluded.branches_total, branches_covered = excluded.branches_covered,
      functions_total = excluded.functions_total, functions_covered = excluded.functions_covered,
      detail = excluded.detail
  `.execute(transaction);
}

async function sumCoverage(kysely: Kysely<Tables>, run: number): Promise<CoverageTotals> {
  const { rows } = await sql<Record<keyof typeof sums, string>>`
    SELECT count(*) AS files, coalesce(sum(lines_total), 0) AS lines_total,
      coalesce(sum(lines_covered), 0) AS lines_covered, coalesce(sum(branches_total), 0) AS branches_total,
      coalesce(sum(branches_covered), 0) AS branches_covered, coalesce(sum(functions_total), 0) AS functions_total,
      coalesce(sum(functions_covered), 0) AS functions_covered
    FROM test_coverage WHERE run = ${run}
  `.execute(kysely);
  const row = rows[0] ?? sums;
  return create(CoverageTotalsSchema, {
    files: Number(row.files),
    linesTotal: BigInt(row.lines_total),
    linesCovered: BigInt(row.lines_covered),
    branchesTotal: BigInt(row.branches_total),
    branchesCovered: BigInt(row.branches_covered),
    functionsTotal: BigInt(row.functions_total),
    functionsCovered: BigInt(row.functions_covered),
  });
}

const sums = {
  files: "0",
  lines_total: "0",
  lines_covered: "0",
  branches_total: "0",
  branches_covered: "0",
  functions_total: "0",
  functions_covered: "0",
};

/** Of the failures of a run, how many there are, and how many the most frequent kind has. */
export async function failureKinds(
  kysely: Kysely<Tables>,
  run: number,
): Promise<{ readonly failures: number; readonly alike: number }> {
  const { rows } = await sql<{ failures: string; alike: string }>`
    SELECT coalesce(sum(number), 0) AS failures, coalesce(max(number) FILTER (WHERE failure_kind IS NOT NULL), 0) AS alike
    FROM (
      SELECT failure_kind, count(*) AS number FROM test_results
      WHERE run = ${run} AND failure_kind IS NOT NULL GROUP BY failure_kind
    ) AS kinds
  `.execute(kysely);
  return { failures: Number(rows[0]?.failures ?? 0), alike: Number(rows[0]?.alike ?? 0) };
}

/** Remembers which tests the project has, once a run has ended. Locks them in the order of their ids. */
export async function recordCases(
  transaction: Transaction<Tables>,
  run: number,
  project: string,
  time: Date,
): Promise<void> {
  await sql`
    INSERT INTO test_cases AS known (project, test_id, file, name, first_seen, last_seen)
    SELECT ${project}, test_id, file, name, ${time}::timestamptz, ${time}::timestamptz FROM test_results
    WHERE run = ${run} ORDER BY test_id
    ON CONFLICT (project, test_id) DO UPDATE SET
      first_seen = least(known.first_seen, excluded.first_seen),
      last_seen = greatest(known.last_seen, excluded.last_seen)
  `.execute(transaction);
}
