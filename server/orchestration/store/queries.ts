import { fromBinary } from "@bufbuild/protobuf";
import type { Principal } from "@toolplane/framework";
import { AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type ListRunStepsRequest,
  ListRunStepsRequestSchema,
  type RunFilter,
  RunFilterSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import {
  type Run,
  RunSchema,
  type RunSource,
  RunSourceSchema,
  type RunStep,
  RunStepSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { type Expression, type SqlBool, sql } from "kysely";
import { invalidPageToken, pageTokens } from "../../page-token.ts";
import type { Database } from "../../storage/database.ts";
import { storable, storableLabels } from "../../storage/text.ts";
import { unknownRun } from "../refusals.ts";
import type { NewRun, Page, PageRequest } from "../runs.ts";
import type { Redactor } from "./redact.ts";
import { RUN_COLUMNS, type RunRow, readAsked, readRun, readSteps, toRun, toStep } from "./rows.ts";

/** A page holds no more bytes than this and one thing more, so that it fits into a message. */
const MAX_PAGE_BYTES = 2 * 1024 * 1024;
const DEFAULT_RUNS = 50;
const DEFAULT_STEPS = 100;

/** Whoever asks about runs. What is told of them has no secrets; what is pinned is to be run again. */
export interface RunQueries {
  /** Throws NOT_FOUND, as the others do. */
  get(runId: string): Promise<Run>;
  source(runId: string): Promise<RunSource>;
  pinned(runId: string): Promise<Pick<NewRun, "source" | "agents">>;
  origin(runId: string): Promise<{ readonly principal: Principal; readonly depth: number }>;
  list(filter: RunFilter | undefined, page: PageRequest): Promise<Page<Run>>;
  listSteps(request: ListRunStepsRequest): Promise<Page<RunStep>>;
}

export function createRunQueries({ kysely }: Pick<Database, "kysely">, redactor: Redactor): RunQueries {
  async function tell(rows: readonly RunRow[]): Promise<Run[]> {
    const asked = await readAsked(
      kysely,
      rows.filter(({ end_time }) => end_time === null).map(({ number }) => number),
    );
    return rows.map((row) => redactor.message(RunSchema, toRun(row, asked.get(row.number))));
  }

  async function made(runId: string) {
    const row = await kysely
      .selectFrom("runs")
      .select(["source", "agents", "principal", "depth"])
      .where("id", "=", storable(runId))
      .executeTakeFirst();
    if (row === undefined) {
      throw unknownRun(runId);
    }
    return row;
  }

  return {
    async get(runId) {
      const [run] = await tell([await readRun(kysely, runId)]);
      if (run === undefined) {
        throw unknownRun(runId);
      }
      return run;
    },

    source: async (runId) =>
      redactor.message(RunSourceSchema, fromBinary(RunSourceSchema, (await made(runId)).source)),

    async pinned(runId) {
      const { source, agents } = await made(runId);
      return {
        source: fromBinary(RunSourceSchema, source),
        agents: agents.map((agent) => fromBinary(AgentSchema, agent)),
      };
    },

    async origin(runId) {
      const { principal, depth } = await made(runId);
      return { principal, depth };
    },

    async list(filter, { pageSize, pageToken }) {
      const tokens = pageTokens("runs", 1, RunFilterSchema, filter);
      const before = numberOf(tokens.read(pageToken));
      const limit = pageSize || DEFAULT_RUNS;
      const { rows } = await sql<RunRow & { found: string }>`
        WITH wanted AS (
          SELECT number, sum(size) OVER (ORDER BY number DESC) - size AS bytes_before, count(*) OVER () AS found FROM (
            SELECT number, coalesce(octet_length(input), 0) + coalesce(octet_length(error), 0) AS size FROM runs
            WHERE ${matches(filter, before)} ORDER BY number DESC LIMIT ${limit + 1}
          ) AS next
        )
        SELECT ${sql.join(RUN_COLUMNS.map(listed))}, found FROM wanted JOIN runs USING (number)
        WHERE bytes_before <= ${MAX_PAGE_BYTES} ORDER BY number DESC LIMIT ${limit}
      `.execute(kysely);
      const last = rows.at(-1);
      const isMore = last !== undefined && Number(last.found) > rows.length;
      return { items: await tell(rows), nextPageToken: isMore ? tokens.write([last.number]) : "" };
    },

    async listSteps(request) {
      const { runId, paths, states, pageSize, pageToken, withoutOutput } = request;
      const question = { ...request, pageSize: 0, pageToken: "" };
      const tokens = pageTokens("run-steps", 1, ListRunStepsRequestSchema, question);
      const after = numberOf(tokens.read(pageToken));
      const { number } = await readRun(kysely, runId);
      const { steps, next } = await readSteps(kysely, {
        run: number,
        after: after ?? 0,
        limit: pageSize || DEFAULT_STEPS,
        maxBytes: MAX_PAGE_BYTES,
        paths,
        states,
        withoutOutput,
      });
      return {
        items: steps.map((row) => redactor.message(RunStepSchema, toStep(row))),
        nextPageToken: next === undefined ? "" : tokens.write([String(next)]),
      };
    },
  };
}

/** Outputs are left out of lists. */
function listed(name: (typeof RUN_COLUMNS)[number]) {
  return name === "output" ? sql`NULL::bytea AS output` : sql.ref(`runs.${name}`);
}

function matches(filter: RunFilter | undefined, before: number | undefined): Expression<SqlBool> {
  const conditions: Expression<SqlBool>[] = [sql<SqlBool>`true`];
  if (before !== undefined) {
    conditions.push(sql<SqlBool>`number < ${before}`);
  }
  if (filter !== undefined) {
    const { states, kinds, name, labels, parentRunId } = filter;
    if (states.length > 0) {
      conditions.push(sql<SqlBool>`state = ANY (${states}::smallint[])`);
    }
    if (kinds.length > 0) {
      conditions.push(sql<SqlBool>`kind = ANY (${kinds}::smallint[])`);
    }
    if (name !== "") {
      conditions.push(sql<SqlBool>`names @> ARRAY[${storable(name)}]::text[] COLLATE "C"`);
    }
    if (Object.keys(labels).length > 0) {
      conditions.push(sql<SqlBool>`labels @> ${JSON.stringify(storableLabels(labels))}::jsonb`);
    }
    if (parentRunId !== "") {
      conditions.push(sql<SqlBool>`parent_run_id = ${storable(parentRunId)} AND parent_run_id <> ''`);
    }
  }
  return sql<SqlBool>`${sql.join(conditions, sql` AND `)}`;
}

/** Undefined: the first page. */
function numberOf(position: readonly string[] | undefined): number | undefined {
  if (position === undefined) {
    return undefined;
  }
  const number = Number(position[0]);
  if (!Number.isSafeInteger(number)) {
    throw invalidPageToken();
  }
  return number;
}
