import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  TestCountsSchema,
  type TestRun,
  type TestRunContext,
  TestRunContextSchema,
  TestRunEndReason,
  TestRunEndSchema,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { type Kysely, sql, type Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import { storable } from "../storage/text.ts";
import { announce } from "./announcements.ts";
import { type RunRow, toRun } from "./messages.ts";
import { unknownRun } from "./refusals.ts";
import { recordCases } from "./results-store.ts";
import type { RunIdentity } from "./run-writer.ts";

export async function readRow(kysely: Kysely<Tables>, runId: string): Promise<RunRow> {
  const row = await kysely
    .selectFrom("test_runs")
    .selectAll()
    .where("id", "=", storable(runId))
    .executeTakeFirst();
  if (row === undefined) {
    throw unknownRun(runId);
  }
  return row;
}

/** The runner of a waiting run was started. */
export async function writeStart(
  transaction: Transaction<Tables>,
  run: number,
  time: Date,
  context: TestRunContext | undefined,
  lastSequence: number,
): Promise<void> {
  const { context: stored } = await transaction
    .selectFrom("test_runs")
    .select("context")
    .where("number", "=", String(run))
    .executeTakeFirstOrThrow();
  const known = stored === null ? undefined : fromBinary(TestRunContextSchema, stored);
  const merged = mergeContexts(known, context);
  await transaction
    .updateTable("test_runs")
    .set({
      state: TestRunState.RUNNING,
      start_time: time,
      last_sequence: lastSequence,
      lease_until: sql<Date>`now() + lease_ms * interval '1 ms'`,
      ...(merged && {
        context: Buffer.from(toBinary(TestRunContextSchema, merged)),
        commit: storable(merged.commit),
        branch: storable(merged.branch),
      }),
    })
    .where("number", "=", String(run))
    .execute();
}

/** What is known later fills in, and does not replace labels that were asked for. */
function mergeContexts(
  known: TestRunContext | undefined,
  later: TestRunContext | undefined,
): TestRunContext | undefined {
  if (known === undefined || later === undefined) {
    return later ?? known;
  }
  return create(TestRunContextSchema, {
    commit: later.commit || known.commit,
    branch: later.branch || known.branch,
    dirty: later.dirty || known.dirty,
    platform: later.platform || known.platform,
    runtime: later.runtime || known.runtime,
    frameworkVersion: later.frameworkVersion || known.frameworkVersion,
    host: later.host || known.host,
    buildUrl: later.buildUrl || known.buildUrl,
    labels: { ...later.labels, ...known.labels },
  });
}

/** The row as it will be: what the last event says of the run. */
export function endedRun(row: RunRow, changes: Pick<TestRun, "end" | "counts">, nowMs: number): TestRun {
  const run = toRun(row);
  const { end, counts } = changes;
  return {
    ...toRun({ ...row, end_time: new Date(nowMs) }),
    state: end?.state ?? run.state,
    endTime: timestampFromMs(nowMs),
    ...(end && { end }),
    ...(counts && { counts }),
  };
}

/** Writes the end of a run, of which the event has been written in the same transaction. */
export async function writeEnd(
  transaction: Transaction<Tables>,
  { number, id, project }: RunIdentity,
  run: TestRun,
): Promise<void> {
  const { end, endTime, counts } = run;
  const time = endTime ? timestampDate(endTime) : new Date(0);
  await transaction
    .updateTable("test_runs")
    .set({
      state: run.state,
      end_time: time,
      last_sequence: Number(run.lastSequence),
      counts: Buffer.from(toBinary(TestCountsSchema, counts ?? create(TestCountsSchema))),
      run_end: end ? Buffer.from(toBinary(TestRunEndSchema, end)) : null,
      excluded: isExcluded(run),
      lease_until: null,
      owner: null,
      plan: null,
    })
    .where("number", "=", String(number))
    .execute();
  await recordCases(transaction, number, project, time);
  await announce(transaction, { kind: "ended", runId: id });
}

/** A run has no part in histories when its environment failed, or when it did not end by itself. */
function isExcluded({ end }: TestRun): boolean {
  switch (end?.reason) {
    case undefined:
    case TestRunEndReason.UNSPECIFIED:
    case TestRunEndReason.RUNNER_ERROR:
      return end?.infrastructureFailure ?? false;
    default:
      return true;
  }
}
