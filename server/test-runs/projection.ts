import { create, toBinary } from "@bufbuild/protobuf";
import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import {
  CoverageTotalsSchema,
  type FileCoverage,
  type TestAttempt,
  TestAttemptSchema,
  type TestResult,
  TestResultSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestCountsSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { sql, type Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import { type StoredResult, writeCoverage, writeResults } from "./results-store.ts";
import { attemptsOf, lostTests, type RunState } from "./run-state.ts";
import type { FreshEvents } from "./run-writer.ts";
import { testIdOf } from "./test-id.ts";

/** What a batch of events changes in the tables. */
export interface Changes {
  readonly results: readonly StoredResult[];
  readonly coverage: readonly FileCoverage[];
}

/** Folds events into the state and collects what they change: of a test that ended twice, the last result. */
export function foldChanges({ events, state, fold }: FreshEvents): Changes {
  const results = new Map<string, StoredResult>();
  const coverage: FileCoverage[] = [];
  for (const event of events) {
    for (const result of resultsOf(event, state)) {
      results.set(result.testId, result);
    }
    if (event.kind.case === "coverage") {
      coverage.push(...event.kind.value.files);
    }
    fold(event);
  }
  return { results: [...results.values()], coverage };
}

/** The results that an event makes, given what was before it. */
function* resultsOf({ kind }: TestEvent, state: RunState): Generator<StoredResult, void, undefined> {
  if (kind.case === "testEnded") {
    const { test } = kind.value;
    if (test !== undefined) {
      const testId = kind.value.testId || testIdOf(test);
      yield { testId, test, result: withAttempts(kind.value, state.attempts.get(testId)) };
    }
  } else if (kind.case === "ended") {
    for (const { id, test, status } of lostTests(state)) {
      const result = create(TestResultSchema, { status });
      yield { testId: id, test, result: withAttempts(result, state.attempts.get(id)) };
    }
  }
}

/** The result with every attempt that was reported before it. */
function withAttempts(result: TestResult, before: readonly TestAttempt[] | undefined): TestResult {
  if (before === undefined) {
    return result;
  }
  const attempts = attemptsOf(result, before).map((attempt) =>
    attempt === "last" ? lastAttempt(result) : attempt,
  );
  return create(TestResultSchema, { ...result, attempts });
}

function lastAttempt({ status, startTime, duration }: TestResult): TestAttempt {
  return create(TestAttemptSchema, {
    status,
    ...(startTime && { startTime }),
    ...(duration && { duration }),
  });
}

/** Writes what a batch has changed. True: the run is to be cancelled. */
export async function writeChanges(
  transaction: Transaction<Tables>,
  run: number,
  { results, coverage }: Changes,
  state: RunState,
): Promise<boolean> {
  if (results.length > 0) {
    await writeResults(transaction, run, results);
  }
  const totals = coverage.length > 0 ? await writeCoverage(transaction, run, coverage) : undefined;
  const { cancel_message } = await transaction
    .updateTable("test_runs")
    .set({
      counts: Buffer.from(toBinary(TestCountsSchema, create(TestCountsSchema, state.counts))),
      test_time_us: Math.min(state.testTimeUs, Number.MAX_SAFE_INTEGER),
      last_sequence: state.lastSequence,
      lease_until: sql<Date>`now() + lease_ms * interval '1 ms'`,
      ...(totals && { coverage: Buffer.from(toBinary(CoverageTotalsSchema, totals)) }),
    })
    .where("number", "=", String(run))
    .returning("cancel_message")
    .executeTakeFirstOrThrow();
  return cancel_message !== null;
}
