import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type Run,
  RunKind,
  RunSchema,
  type RunSource,
  RunSourceSchema,
  RunState,
  StepCountsSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { type Kysely, sql, type Transaction } from "kysely";
import type { Tables } from "../../storage/tables.ts";
import { storable, storableLabels } from "../../storage/text.ts";
import type { NewRun } from "../runs.ts";
import { queueFull, requestIdReused } from "./refusals.ts";
import { encodeJson, RUN_COLUMNS, type RunRow } from "./rows.ts";
import { copySteps, type TakenSteps } from "./taken-steps.ts";

/** The run as its first event tells it. */
export function firstRun(run: NewRun, id: string, nowMs: number, taken: TakenSteps | undefined): Run {
  const input = inputOf(run.source);
  return create(RunSchema, {
    id,
    kind: kindOf(run.source),
    title: run.title,
    workflowVersion: run.workflowVersion,
    state: RunState.QUEUED,
    ...(input && { input }),
    labels: { ...run.labels },
    createdBy: run.principal.id,
    createTime: timestampFromMs(nowMs),
    steps: taken?.counts ?? {},
    usage: {},
    lastSequence: 1n,
    retryOf: run.retry?.of ?? "",
    parentRunId: run.parent?.runId ?? "",
    schedule: run.schedule ?? "",
  });
}

function kindOf({ kind }: RunSource): RunKind {
  switch (kind.case) {
    case "toolBatch":
      return RunKind.TOOL_BATCH;
    case "workflow":
      return RunKind.WORKFLOW;
    case "requirement":
      return RunKind.REQUIREMENT;
    case "agentTasks":
      return RunKind.AGENT_TASKS;
    case undefined:
      return RunKind.UNSPECIFIED;
  }
}

function inputOf({ kind }: RunSource): JsonObject | undefined {
  return kind.case === "workflow" ? kind.value.input : undefined;
}

/** The workflow or the agents, for those who look for their runs. */
function namesOf({ source: { kind }, title }: NewRun): string[] {
  switch (kind.case) {
    case "workflow": {
      const { workflow } = kind.value;
      switch (workflow.case) {
        case "name":
          return [workflow.value];
        case "inline":
          return [workflow.value.name];
        default:
          return [title];
      }
    }
    case "agentTasks":
      return [...new Set(kind.value.tasks.map(({ agent }) => agent))];
    default:
      return [];
  }
}

export interface Insertion {
  readonly run: NewRun;
  readonly first: Run;
  readonly jobId: string;
  readonly maxQueuedRuns: number;
  /** Steps of the run that this one retries. */
  readonly taken: TakenSteps | undefined;
}

/** Writes the row, and those of steps that are taken over. False: there is a run with the same request id. */
export async function insertRun(
  transaction: Transaction<Tables>,
  { run, first, jobId, maxQueuedRuns, taken }: Insertion,
): Promise<boolean> {
  await refuseOverflow(transaction, maxQueuedRuns);
  const createTime = first.createTime ? timestampDate(first.createTime) : new Date(0);
  const inserted = await transaction
    .insertInto("runs")
    .values({
      id: first.id,
      kind: first.kind,
      title: storable(first.title),
      names: namesOf(run).map(storable),
      workflow_version: first.workflowVersion,
      state: first.state,
      source: Buffer.from(toBinary(RunSourceSchema, run.source)),
      agents: run.agents.map((agent) => Buffer.from(toBinary(AgentSchema, agent))),
      input: first.input ? encodeJson(first.input) : null,
      labels: JSON.stringify(storableLabels(run.labels)),
      created_by: storable(run.principal.id),
      principal: JSON.stringify({ id: storable(run.principal.id), role: run.principal.role }),
      request_id: run.request?.id ?? null,
      request_fingerprint: run.request?.fingerprint ?? null,
      retry_of: storable(first.retryOf),
      parent_run_id: storable(first.parentRunId),
      depth: run.parent?.depth ?? 0,
      schedule: storable(first.schedule),
      deadline: new Date(createTime.getTime() + run.timeoutMs),
      create_time: createTime,
      job_id: jobId,
      counts: Buffer.from(toBinary(StepCountsSchema, first.steps ?? create(StepCountsSchema))),
      last_sequence: 1,
    })
    .onConflict((conflict) => conflict.columns(["created_by", "request_id"]).doNothing())
    .returning("number")
    .executeTakeFirst();
  if (inserted !== undefined && taken !== undefined) {
    await copySteps(transaction, inserted.number, taken);
  }
  return inserted !== undefined;
}

async function refuseOverflow(transaction: Transaction<Tables>, limit: number): Promise<void> {
  const { waiting } = await transaction
    .selectFrom("runs")
    .select(({ fn }) => fn.countAll<string>().as("waiting"))
    .where("state", "=", sql<number>`${sql.lit(RunState.QUEUED)}`)
    .executeTakeFirstOrThrow();
  if (Number(waiting) >= limit) {
    throw queueFull(limit);
  }
}

/** The run that an earlier request with the same id has made. */
export async function findRequested(
  kysely: Kysely<Tables>,
  { principal, request }: Pick<NewRun, "principal" | "request">,
): Promise<RunRow | undefined> {
  if (request === undefined) {
    return undefined;
  }
  const row = await kysely
    .selectFrom("runs")
    .select(RUN_COLUMNS)
    .where("created_by", "=", storable(principal.id))
    .where("request_id", "=", request.id)
    .executeTakeFirst();
  if (row !== undefined && row.request_fingerprint !== request.fingerprint) {
    throw requestIdReused();
  }
  return row;
}
