import { randomUUID } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Clock, DomainError } from "@toolplane/framework";
import {
  ProblemSeverity,
  type TestEvent,
  TestEventSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { CoverageTotalsSchema, type FileCoverage } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  TestCountsSchema,
  type TestRun,
  type TestRunContext,
  TestRunEndReason,
  type TestRunOrigin,
  TestRunState,
  type TestSelection,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { sql } from "kysely";
import {
  ClosedStreamError,
  type EventLog,
  PositionGapError,
  UnknownStreamError,
} from "../event-log/event-log.ts";
import { createRunEndWaiter } from "../event-streams/run-end.ts";
import type { Database } from "../storage/database.ts";
import { storable } from "../storage/text.ts";
import { type Announcements, announce } from "./announcements.ts";
import { toRun } from "./messages.ts";
import { findRequested, firstEvents, firstRun, insertRun } from "./new-run.ts";
import { foldChanges, writeChanges } from "./projection.ts";
import { positionGap, runEnded, runNotEnded, unknownRun } from "./refusals.ts";
import { completeEvents, limitEvents, refuseForeignKinds } from "./reported-events.ts";
import { failureKinds, writeCoverage, writeResults } from "./results-store.ts";
import { endedRun, readRow, writeEnd, writeStart } from "./run-rows.ts";
import { countsAtEnd } from "./run-state.ts";
import { type RunIdentity, type RunWriter, readIdentity } from "./run-writer.ts";
import { endOf, isEmpty, NO_TEST_WAS_RUN } from "./verdict.ts";

/** A run to be made. */
export interface NewRun {
  readonly origin: TestRunOrigin;
  readonly project: string;
  readonly environment: string;
  readonly framework: string;
  readonly context?: TestRunContext | undefined;
  readonly selection?: TestSelection | undefined;
  /** The id of the principal. */
  readonly createdBy: string;
  /** How long nothing may be reported before the run counts as lost. Not used for runs of the server. */
  readonly silenceMs?: number | undefined;
  /** What the replica that runs it has to know besides; given back by `claimQueued`. Only for runs of the server. */
  readonly plan?: Uint8Array | undefined;
  /** How many runs of the server may wait on all replicas; one more is refused. Only for runs of the server. */
  readonly maxQueued?: number | undefined;
  /** Repeated requests return the same run; the fingerprint tells apart what only has the same id. */
  readonly request?: { readonly id: string; readonly fingerprint: string } | undefined;
}

/** How a runner or a reporter says that a run ended. */
export interface RunOutcome {
  /** UNSPECIFIED: it ran to its end. */
  readonly reason: TestRunEndReason;
  /** The same for people; may be empty. */
  readonly message: string;
  /** Undefined: none, or unknown. */
  readonly exitCode?: number | undefined;
  /** Empty: none. */
  readonly signal?: string | undefined;
}

export interface AppendResult {
  /** Everything of the reporter up to here is durable. */
  readonly position: number;
  /** True: the run was cancelled, and nothing more is to be reported. */
  readonly cancelled: boolean;
}

/**
 * Test runs on all replicas. Everything that happens to a run is an event in its stream; results, coverage and counts
 * are written in the same transaction.
 */
export interface Runs {
  /** A run of the server waits to be claimed; every other one runs. */
  create(run: NewRun): Promise<TestRun>;
  /** Says that the runner was started. Only for runs of the server; once. */
  start(runId: string, context: TestRunContext | undefined): Promise<void>;
  /**
   * Appends what a reporter tells. Times, ids, project and framework of tests are filled in where they are missing.
   *
   * @param firstPosition of the first event among all of this reporter's, from 1
   */
  append(
    runId: string,
    reporter: string,
    firstPosition: number,
    events: readonly TestEvent[],
  ): Promise<AppendResult>;
  /** Ends a run; one that has ended is returned as it is. */
  finish(runId: string, outcome: RunOutcome): Promise<TestRun>;
  /** Throws OUT_OF_RANGE when the reporter has not got so far. */
  requirePosition(runId: string, reporter: string, position: number): Promise<void>;
  /** Adds coverage to a run that has ended. */
  addCoverage(runId: string, files: readonly FileCoverage[]): Promise<TestRun>;
  /**
   * Cancels a run. One that nobody runs ends at once; else whoever runs it is told (see `Leases.onCancel`) and has to
   * `finish` it. One that has ended is returned as it is.
   */
  cancel(runId: string, message: string): Promise<TestRun>;
  /** What never changes about a run; mostly without asking the database. Throws NOT_FOUND. */
  identify(runId: string): Promise<RunIdentity>;
  /** Throws NOT_FOUND. */
  get(runId: string): Promise<TestRun>;
  /** The run when it has ended, or as it is after `ms`. */
  waitForEnd(runId: string, ms: number, signal: AbortSignal): Promise<TestRun>;
}

export interface RunsOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: EventLog;
  readonly announcements: Announcements;
  readonly writer: RunWriter;
  readonly clock: Clock;
  /** How many events a run may have. */
  readonly maxEventsPerRun: number;
}

/** So many runs are remembered by what never changes about them. */
const MAX_IDENTITIES = 2_000;
/** Somebody has made the same request at the same time. */
class RepeatedRequestError extends Error {}

/** A run of no test passes, as its runner says, and shows nothing. */
function emptyRunWarning(time: Timestamp): TestEvent {
  const value = { severity: ProblemSeverity.WARNING, message: NO_TEST_WAS_RUN };
  return create(TestEventSchema, { time, kind: { case: "problem", value } });
}

export function createRuns(options: RunsOptions): Runs {
  const { database, eventLog, announcements, writer, clock, maxEventsPerRun } = options;
  const { kysely } = database;
  const identities = new Map<string, RunIdentity>();

  async function createRun(run: NewRun): Promise<TestRun> {
    const known = run.request && (await findRequested(kysely, run.createdBy, run.request));
    if (known !== undefined) {
      return known;
    }
    const first = firstRun(run, randomUUID(), clock.now());
    await kysely.transaction().execute((transaction) => eventLog.create(transaction, first.id));
    try {
      await eventLog.append({
        stream: first.id,
        events: firstEvents(first).map((event) => toBinary(TestEventSchema, event)),
        async project(transaction) {
          if (!(await insertRun(transaction, first, run))) {
            throw new RepeatedRequestError();
          }
          if (first.state === TestRunState.QUEUED) {
            await announce(transaction, { kind: "queued", runId: "" });
          }
        },
      });
    } catch (error) {
      return await afterFailedCreation(error, run, first.id);
    }
    return await get(first.id);
  }

  /** The run that there is after all, or the error. Leaves no stream without a run behind where that is certain. */
  async function afterFailedCreation(error: unknown, run: NewRun, id: string): Promise<TestRun> {
    const isRepeated = error instanceof RepeatedRequestError;
    if (isRepeated || (error instanceof DomainError && error.init.reason === "TEST_RUN_QUEUE_FULL")) {
      await kysely.transaction().execute((transaction) => eventLog.remove(transaction, [id]));
    }
    const known =
      isRepeated && run.request ? await findRequested(kysely, run.createdBy, run.request) : undefined;
    if (known === undefined) {
      throw error;
    }
    return known;
  }

  async function get(runId: string): Promise<TestRun> {
    return toRun(await readRow(kysely, runId));
  }

  async function identify(runId: string): Promise<RunIdentity> {
    const known = identities.get(runId);
    if (known !== undefined) {
      return known;
    }
    const identity = await readIdentity(kysely, runId);
    const [oldest] = identities.size >= MAX_IDENTITIES ? identities.keys() : [];
    if (oldest !== undefined) {
      identities.delete(oldest);
    }
    identities.set(runId, identity);
    return identity;
  }

  async function start(runId: string, context: TestRunContext | undefined): Promise<void> {
    const time = timestampFromMs(clock.now());
    const started = create(TestEventSchema, {
      time,
      kind: { case: "started", value: context ? { context } : {} },
    });
    try {
      await writer.write(runId, async ({ number }, state) =>
        state.started
          ? undefined
          : {
              events: [started],
              async project(transaction, fresh) {
                foldChanges(fresh);
                await writeStart(transaction, number, timestampDate(time), context, fresh.state.lastSequence);
              },
            },
      );
    } catch (error) {
      throw error instanceof ClosedStreamError ? runEnded(runId) : error;
    }
  }

  async function append(
    runId: string,
    reporter: string,
    firstPosition: number,
    events: readonly TestEvent[],
  ): Promise<AppendResult> {
    if (events.length === 0) {
      return await keepAlive(runId, reporter, Math.max(firstPosition - 1, 0));
    }
    refuseForeignKinds(events);
    let isCancelled = false;
    try {
      const appended = await writer.write(runId, async (run, state) => {
        completeEvents(events, run, clock.now());
        return {
          events: limitEvents(events, state, maxEventsPerRun),
          writer: { name: storable(reporter), firstPosition },
          yields: true,
          async project(transaction, fresh) {
            const changes = foldChanges(fresh);
            isCancelled = await writeChanges(transaction, run.number, changes, fresh.state);
          },
        };
      });
      return { position: appended?.position ?? 0, cancelled: isCancelled };
    } catch (error) {
      if (error instanceof PositionGapError) {
        throw positionGap(reporter, error.position);
      }
      if (error instanceof ClosedStreamError) {
        return await answerAfterEnd(runId, firstPosition - 1);
      }
      throw error;
    }
  }

  /** A reporter of a run that was cancelled hears of it with its next report. */
  async function answerAfterEnd(runId: string, position: number): Promise<AppendResult> {
    const { state } = await readRow(kysely, runId);
    if (state === TestRunState.CANCELLED) {
      return { position, cancelled: true };
    }
    throw runEnded(runId);
  }

  async function keepAlive(runId: string, reporter: string, claimed: number): Promise<AppendResult> {
    const { number } = await identify(runId);
    const renewed = await kysely
      .updateTable("test_runs")
      .set({ lease_until: sql<Date>`now() + lease_ms * interval '1 ms'` })
      .where("number", "=", String(number))
      .where("end_time", "is", null)
      .returning("cancel_message")
      .executeTakeFirst();
    if (renewed === undefined) {
      return await answerAfterEnd(runId, claimed);
    }
    // What is acknowledged is durable, whatever the reporter takes to be so.
    const { position } = await eventLog.append({
      stream: runId,
      events: [],
      writer: { name: storable(reporter), firstPosition: 1 },
    });
    return { position, cancelled: renewed.cancel_message !== null };
  }

  async function requirePosition(runId: string, reporter: string, position: number): Promise<void> {
    try {
      await eventLog.append({
        stream: runId,
        events: [],
        writer: { name: storable(reporter), firstPosition: position + 1 },
      });
    } catch (error) {
      if (error instanceof PositionGapError) {
        throw positionGap(reporter, error.position);
      }
      throw error instanceof UnknownStreamError ? unknownRun(runId) : error;
    }
  }

  async function finish(runId: string, outcome: RunOutcome): Promise<TestRun> {
    try {
      await writer.write(runId, async (identity, state) => {
        if (state.ended) {
          return undefined;
        }
        const row = await readRow(kysely, runId);
        const end = endOf(state, outcome, await failureKinds(kysely, identity.number));
        const counts = create(TestCountsSchema, countsAtEnd(state));
        const nowMs = clock.now();
        const time = timestampFromMs(nowMs);
        // Reports of coverage alone have no tests.
        const warnings = isEmpty(state, end) && row.coverage === null ? [emptyRunWarning(time)] : [];
        if (warnings.length > 0) {
          end.message ||= NO_TEST_WAS_RUN;
        }
        const run = endedRun(row, { end, counts }, nowMs);
        run.lastSequence = BigInt(state.lastSequence + warnings.length + 1);
        const ended = create(TestEventSchema, {
          time,
          kind: { case: "ended", value: run },
        });
        return {
          events: [...warnings, ended],
          close: true,
          async project(transaction, fresh) {
            const { results } = foldChanges(fresh);
            await writeResults(transaction, identity.number, results);
            await writeEnd(transaction, identity, run);
          },
        };
      });
    } catch (error) {
      // Another replica has ended it first.
      if (!(error instanceof ClosedStreamError)) {
        throw error;
      }
    }
    return await get(runId);
  }

  async function addCoverage(runId: string, files: readonly FileCoverage[]): Promise<TestRun> {
    const { number } = await identify(runId);
    await kysely.transaction().execute(async (transaction) => {
      const row = await transaction
        .selectFrom("test_runs")
        .select("end_time")
        .where("number", "=", String(number))
        .forUpdate()
        .executeTakeFirst();
      if (row?.end_time == null) {
        throw row === undefined ? unknownRun(runId) : runNotEnded(runId);
      }
      const totals = await writeCoverage(transaction, number, files);
      await transaction
        .updateTable("test_runs")
        .set({ coverage: Buffer.from(toBinary(CoverageTotalsSchema, totals)) })
        .where("number", "=", String(number))
        .execute();
    });
    return await get(runId);
  }

  async function cancel(runId: string, message: string): Promise<TestRun> {
    const { number } = await identify(runId);
    const marked = await kysely.transaction().execute(async (transaction) => {
      const row = await transaction
        .updateTable("test_runs")
        .set({ cancel_message: sql<string>`coalesce(cancel_message, ${storable(message)})` })
        .where("number", "=", String(number))
        .where("end_time", "is", null)
        .returning(["owner", "cancel_message"])
        .executeTakeFirst();
      if (row?.owner != null) {
        await announce(transaction, { kind: "cancel", runId });
      }
      return row;
    });
    if (marked === undefined || marked.owner !== null) {
      return await get(runId);
    }
    return await finish(runId, {
      reason: TestRunEndReason.CANCELLED,
      message: marked.cancel_message ?? message,
    });
  }

  const waitForEnd = createRunEndWaiter({ announcements, clock, get });

  return {
    create: createRun,
    start,
    append,
    finish,
    requirePosition,
    addCoverage,
    cancel,
    identify,
    get,
    waitForEnd,
  };
}
