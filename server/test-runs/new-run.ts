import { create, equals, toBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { invalidArgument } from "@toolplane/framework";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  type TestRun,
  TestRunContextSchema,
  TestRunOrigin,
  TestRunSchema,
  TestRunState,
  type TestSelection,
  TestSelectionSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { type Kysely, sql, type Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import { storable, storableLabels } from "../storage/text.ts";
import { OWNER_LEASE_MS } from "./leases.ts";
import { toRun } from "./messages.ts";
import { queueFull } from "./refusals.ts";
import type { NewRun } from "./runs.ts";

/** How long nothing may be reported, where the reporter does not say. */
export const DEFAULT_SILENCE_MS = 60_000;

/** The run as its first event tells it. */
export function firstRun(run: NewRun, id: string, nowMs: number): TestRun {
  const now = timestampFromMs(nowMs);
  const waits = run.origin === TestRunOrigin.SERVER;
  return create(TestRunSchema, {
    id,
    project: run.project,
    environment: run.environment,
    framework: run.framework,
    state: waits ? TestRunState.QUEUED : TestRunState.RUNNING,
    origin: run.origin,
    ...(run.context && { context: run.context }),
    ...(isSet(run.selection) && { selection: run.selection }),
    createdBy: run.createdBy,
    createTime: now,
    ...(!waits && { startTime: now }),
    counts: {},
    lastSequence: waits ? 1n : 2n,
  });
}

function isSet(selection: TestSelection | undefined): selection is TestSelection {
  return selection !== undefined && !equals(TestSelectionSchema, selection, create(TestSelectionSchema));
}

/** A reporter that creates a run has said its first word: the run begins with it. */
export function firstEvents(run: TestRun): TestEvent[] {
  const { createTime, startTime, context } = run;
  const created = create(TestEventSchema, {
    ...(createTime && { time: createTime }),
    kind: { case: "created", value: run },
  });
  const started = create(TestEventSchema, {
    ...(startTime && { time: startTime }),
    kind: { case: "started", value: context ? { context } : {} },
  });
  return startTime === undefined ? [created] : [created, started];
}

/** Writes the row. False: there is a run with the same request id. */
export async function insertRun(
  transaction: Transaction<Tables>,
  run: TestRun,
  { silenceMs = DEFAULT_SILENCE_MS, plan, request, maxQueued }: NewRun,
): Promise<boolean> {
  const waits = run.state === TestRunState.QUEUED;
  if (waits && maxQueued !== undefined) {
    await refuseOverflow(transaction, maxQueued);
  }
  const { context, createTime, startTime } = run;
  const inserted = await transaction
    .insertInto("test_runs")
    .values({
      id: run.id,
      project: storable(run.project),
      environment: storable(run.environment),
      framework: storable(run.framework),
      state: run.state,
      origin: run.origin,
      commit: storable(context?.commit ?? ""),
      branch: storable(context?.branch ?? ""),
      labels: JSON.stringify(storableLabels(context?.labels ?? {})),
      context: context ? Buffer.from(toBinary(TestRunContextSchema, context)) : null,
      selection: run.selection ? Buffer.from(toBinary(TestSelectionSchema, run.selection)) : null,
      created_by: run.createdBy,
      request_id: request?.id ?? null,
      request_fingerprint: request?.fingerprint ?? null,
      create_time: createTime ? timestampDate(createTime) : new Date(0),
      start_time: startTime ? timestampDate(startTime) : null,
      last_sequence: Number(run.lastSequence),
      plan: plan ? Buffer.from(plan) : null,
      lease_ms: waits ? OWNER_LEASE_MS : silenceMs,
      lease_until: waits ? null : sql<Date>`now() + ${silenceMs} * interval '1 ms'`,
    })
    .onConflict((conflict) => conflict.columns(["created_by", "request_id"]).doNothing())
    .returning("number")
    .executeTakeFirst();
  return inserted !== undefined;
}

async function refuseOverflow(transaction: Transaction<Tables>, limit: number): Promise<void> {
  const { waiting } = await transaction
    .selectFrom("test_runs")
    .select(({ fn }) => fn.countAll<string>().as("waiting"))
    .where("end_time", "is", null)
    .where("state", "=", TestRunState.QUEUED)
    .where("owner", "is", null)
    .executeTakeFirstOrThrow();
  if (Number(waiting) >= limit) {
    throw queueFull(limit);
  }
}

/** The run that an earlier request with the same id has made. */
export async function findRequested(
  kysely: Kysely<Tables>,
  createdBy: string,
  request: { readonly id: string; readonly fingerprint: string },
): Promise<TestRun | undefined> {
  const row = await kysely
    .selectFrom("test_runs")
    .selectAll()
    .where("created_by", "=", createdBy)
    .where("request_id", "=", request.id)
    .executeTakeFirst();
  if (row !== undefined && row.request_fingerprint !== request.fingerprint) {
    throw invalidArgument([
      {
        field: "request_id",
        reason: "REQUEST_ID_REUSED",
        description: "it was used for another run: a new run needs a new id",
      },
    ]);
  }
  return row && toRun(row);
}
