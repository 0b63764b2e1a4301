import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { CoverageTotalsSchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  TestCountsSchema,
  type TestRun,
  TestRunContextSchema,
  TestRunEndSchema,
  TestRunSchema,
  TestSelectionSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { Selectable } from "kysely";
import { toDuration } from "../config/durations.ts";
import type { TestRunsTable } from "./tables.ts";

export type RunRow = Selectable<TestRunsTable>;

/** A run as callers see it. */
export function toRun(row: RunRow): TestRun {
  return create(TestRunSchema, {
    id: row.id,
    project: row.project,
    environment: row.environment,
    framework: row.framework,
    state: row.state,
    origin: row.origin,
    ...(row.context && { context: fromBinary(TestRunContextSchema, row.context) }),
    ...(row.selection && { selection: fromBinary(TestSelectionSchema, row.selection) }),
    createdBy: row.created_by,
    createTime: timestampFromDate(row.create_time),
    ...(row.start_time && { startTime: timestampFromDate(row.start_time) }),
    ...(row.end_time && { endTime: timestampFromDate(row.end_time) }),
    ...(row.start_time &&
      row.end_time && {
        duration: toDuration(Math.max(row.end_time.getTime() - row.start_time.getTime(), 0)),
      }),
    counts: fromBinary(TestCountsSchema, row.counts),
    ...(row.run_end && { end: fromBinary(TestRunEndSchema, row.run_end) }),
    ...(row.coverage && { coverage: fromBinary(CoverageTotalsSchema, row.coverage) }),
    lastSequence: BigInt(row.last_sequence),
    testTime: toDuration(Number(row.test_time_us) / 1e3),
  });
}
