import { create, fromBinary, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { timestampFromDate, ValueSchema } from "@bufbuild/protobuf/wkt";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type Approval,
  ApprovalSchema,
  type Run,
  RunSchema,
  type RunStep,
  RunStepSchema,
  StepCountsSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { type Kysely, type Selectable, sql } from "kysely";
import type { Tables } from "../../storage/tables.ts";
import { storable } from "../../storage/text.ts";
import { unknownRun } from "../refusals.ts";
import type { RunStepsTable, RunsTable } from "../tables.ts";

/** A run without what only its workers need. */
export type RunRow = Omit<Selectable<RunsTable>, "source" | "agents">;
export type StepRow = Selectable<RunStepsTable>;

export const RUN_COLUMNS = [
  "number",
  "id",
  "kind",
  "title",
  "names",
  "workflow_version",
  "state",
  "input",
  "output",
  "error",
  "labels",
  "created_by",
  "principal",
  "request_id",
  "request_fingerprint",
  "retry_of",
  "parent_run_id",
  "depth",
  "schedule",
  "deadline",
  "create_time",
  "start_time",
  "end_time",
  "epoch",
  "worker",
  "job_id",
  "job_retry",
  "takeovers",
  "barren_takeovers",
  "planned",
  "cancel_by",
  "cancel_message",
  "counts",
  "usage",
  "last_sequence",
] as const satisfies readonly (keyof RunRow)[];

/** Throws NOT_FOUND. */
export async function readRun(kysely: Kysely<Tables>, runId: string): Promise<RunRow> {
  const row = await kysely
    .selectFrom("runs")
    .select(RUN_COLUMNS)
    .where("id", "=", storable(runId))
    .executeTakeFirst();
  if (row === undefined) {
    throw unknownRun(runId);
  }
  return row;
}

/** The approvals that each of the runs waits for, by the run's number. */
export async function readAsked(
  kysely: Kysely<Tables>,
  runs: readonly string[],
): Promise<ReadonlyMap<string, Approval[]>> {
  const found = new Map<string, Approval[]>();
  if (runs.length > 0) {
    const rows = await kysely
      .selectFrom("run_steps")
      .select(["run", "path", "approval_message", "approval_time", "approval_deadline"])
      .where(sql<boolean>`run = ANY (${runs}::bigint[])`)
      .where("approval_message", "is not", null)
      .where("answer_time", "is", null)
      .where("end_time", "is", null)
      .orderBy("run")
      .orderBy("position")
      .execute();
    for (const row of rows) {
      const approval = create(ApprovalSchema, {
        path: row.path,
        message: row.approval_message ?? "",
        ...(row.approval_time && { requestTime: timestampFromDate(row.approval_time) }),
        ...(row.approval_deadline && { deadline: timestampFromDate(row.approval_deadline) }),
      });
      found.set(row.run, [...(found.get(row.run) ?? []), approval]);
    }
  }
  return found;
}

/** A run as it is, with all secrets that are in it. */
export function toRun(row: RunRow, pendingApprovals: readonly Approval[] = []): Run {
  return create(RunSchema, {
    id: row.id,
    kind: row.kind,
    title: row.title,
    workflowVersion: row.workflow_version,
    state: row.state,
    // It was an object when it was written.
    ...(row.input && { input: parseJson(row.input) as JsonObject }),
    ...(row.output && { output: fromJson(ValueSchema, parseJson(row.output)) }),
    ...(row.error && { error: fromBinary(StatusSchema, row.error) }),
    labels: row.labels,
    createdBy: row.created_by,
    createTime: timestampFromDate(row.create_time),
    ...(row.start_time && { startTime: timestampFromDate(row.start_time) }),
    ...(row.end_time && { endTime: timestampFromDate(row.end_time) }),
    steps: fromBinary(StepCountsSchema, row.counts),
    usage: fromBinary(UsageSchema, row.usage),
    lastSequence: BigInt(row.last_sequence),
    takeovers: row.takeovers,
    retryOf: row.retry_of,
    parentRunId: row.parent_run_id,
    schedule: row.schedule,
    pendingApprovals: [...pendingApprovals],
  });
}

/** A step as it is, with all secrets that are in it. */
export function toStep(row: StepRow): RunStep {
  return create(RunStepSchema, {
    path: row.path,
    kind: row.kind,
    target: row.target,
    state: row.state,
    attempts: row.attempts,
    ...(row.start_time && { startTime: timestampFromDate(row.start_time) }),
    ...(row.end_time && { endTime: timestampFromDate(row.end_time) }),
    ...(row.output && { output: fromJson(ValueSchema, parseJson(row.output)) }),
    outputBytes: BigInt(row.output_bytes),
    ...(row.error && { error: fromBinary(StatusSchema, row.error) }),
    fallback: row.fallback,
    reused: row.reused,
    ...(row.usage && { usage: fromBinary(UsageSchema, row.usage) }),
    childId: row.child_id,
  });
}

export function parseJson(text: Uint8Array): JsonValue {
  return JSON.parse(Buffer.from(text).toString("utf8"));
}

export function encodeJson(value: JsonValue): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** Steps in the order in which they were first known. */
export interface StepPage {
  readonly steps: readonly StepRow[];
  /** The position of the last one; undefined when nothing follows. */
  readonly next: number | undefined;
}

/** Which steps of a run are read. A page holds no more bytes than `maxBytes` and one step more. */
export interface StepQuery {
  readonly run: string;
  readonly after: number;
  readonly limit: number;
  readonly maxBytes: number;
  /** At or below one of these. Empty: all. */
  readonly paths?: readonly string[];
  /** Empty: any. */
  readonly states?: readonly number[];
  readonly withoutOutput?: boolean;
}

export async function readSteps(kysely: Kysely<Tables>, query: StepQuery): Promise<StepPage> {
  const { run, after, limit, maxBytes, paths = [], states = [], withoutOutput = false } = query;
  const size = withoutOutput
    ? sql<number>`coalesce(octet_length(error), 0)`
    : sql<number>`coalesce(octet_length(output), 0) + coalesce(octet_length(error), 0)`;
  const { rows } = await sql<StepRow & { found: string }>`
    WITH wanted AS (
      SELECT position, sum(${size}) OVER (ORDER BY position) - ${size} AS bytes_before, count(*) OVER () AS found
      FROM (
        SELECT position, output, error FROM run_steps
        WHERE run = ${run} AND position > ${after} AND ${isAtOrBelow(paths)}
          AND (${states.length === 0} OR state = ANY (${states}::smallint[]))
        ORDER BY position LIMIT ${limit + 1}
      ) AS next
    )
    SELECT step.*, wanted.found FROM wanted JOIN run_steps AS step ON step.run = ${run} AND step.position = wanted.position
    WHERE bytes_before <= ${maxBytes} ORDER BY step.position LIMIT ${limit}
  `.execute(kysely);
  const steps = withoutOutput ? rows.map((row) => ({ ...row, output: null })) : rows;
  const last = rows.at(-1);
  return { steps, next: last && Number(last.found) > rows.length ? last.position : undefined };
}

function isAtOrBelow(paths: readonly string[]) {
  return paths.length === 0
    ? sql<boolean>`true`
    : sql<boolean>`EXISTS (
        SELECT FROM unnest(${paths.map(storable)}::text[]) AS top
        WHERE path = top OR starts_with(path, top || '/') OR starts_with(path, top || '[')
      )`;
}
