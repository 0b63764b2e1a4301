import { create, fromBinary } from "@bufbuild/protobuf";
import type { Clock, Logger } from "@toolplane/framework";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { AgentSchema, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { RunStartedSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { RunSourceSchema, RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { type Kysely, type Selectable, sql } from "kysely";
import { ClosedStreamError, type EventLog, UnknownStreamError } from "../../event-log/event-log.ts";
import type { Database } from "../../storage/database.ts";
import type { Tables } from "../../storage/tables.ts";
import type { Claim, ClaimableJob, ClaimedRun, Claims, RecordedStep } from "../engine/journal.ts";
import type { StepEnd } from "../engine/step.ts";
import type { RunJobs } from "../jobs.ts";
import type { RunsTable } from "../tables.ts";
import type { RunAnnouncements } from "./announcements.ts";
import { freshAnswer } from "./approvals.ts";
import { cancelOrphans } from "./cancel.ts";
import type { EventEncoder } from "./events.ts";
import { createJournal, type JournalOptions } from "./journal.ts";
import { crashesWorkers, runBusy } from "./refusals.ts";
import { parseJson, readSteps, type StepRow, toStep } from "./rows.ts";
import { createStepImages, imageOf } from "./step-images.ts";
import { type Cancellation, StaleRunError } from "./write.ts";

/** How many workers in a row a run may take down with it without a step ending. */
const MAX_BARREN_TAKEOVERS = 50;
/** How often others may change the run while it is being claimed. */
const MAX_TRIES = 20;
/** What is read at once of a run's steps. */
const PAGE_STEPS = 2_000;
const PAGE_BYTES = 8 * 1024 * 1024;

export interface ClaimsOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: Pick<EventLog, "append">;
  readonly jobs: Pick<RunJobs, "send">;
  readonly announcements: RunAnnouncements;
  readonly encoder: EventEncoder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly maxEventsPerRun: number;
}

type ClaimableRow = Selectable<RunsTable>;

export function createClaims(options: ClaimsOptions): Claims {
  const { database, eventLog, announcements, encoder, clock, logger } = options;
  const { kysely } = database;
  const cancelListeners = new Set<(runId: string, by: string, message: string) => void>();
  /** The epochs of the runs that this process has. */
  const held = new Map<string, number>();

  function tellCancelled(runId: string, { by, message }: Cancellation): void {
    for (const listener of [...cancelListeners]) {
      listener(runId, by, message);
    }
  }

  /** Tells of the runs of this process that are to be cancelled. */
  async function lookForCancelled(): Promise<void> {
    const rows = await kysely
      .selectFrom("runs")
      .select(["id", "epoch", "cancel_by", "cancel_message"])
      .where(sql<boolean>`id = ANY (${[...held.keys()]}::text[])`)
      .where("end_time", "is", null)
      .where("cancel_by", "is not", null)
      .execute();
    for (const { id, epoch, cancel_by, cancel_message } of rows) {
      if (held.get(id) === epoch) {
        tellCancelled(id, { by: cancel_by ?? "", message: cancel_message ?? "" });
      }
    }
  }

  announcements.subscribe((news) => {
    const concerns = news === undefined ? held.size > 0 : news.kind === "cancel" && held.has(news.runId);
    if (concerns) {
      // The run is told of it also with the next thing that it records.
      lookForCancelled().catch((error: unknown) =>
        logger.warn({ err: error }, "could not look which runs were cancelled"),
      );
    }
  });

  function journalOptions(runId: string, epoch: number, createdBy: string): JournalOptions {
    return {
      ...options,
      logger: logger.child({ runId }),
      onCancel: (cancellation) => tellCancelled(runId, cancellation),
      onOrphans: (runIds, end) => void cancelOrphans(options, { id: runId, createdBy }, runIds, end),
      onLeft() {
        if (held.get(runId) === epoch) {
          held.delete(runId);
        }
      },
    };
  }

  /** Undefined: there is nothing to claim with this job. */
  async function take(job: ClaimableJob, worker: string): Promise<TakenRun | undefined> {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const row = await kysely.selectFrom("runs").selectAll().where("id", "=", job.runId).executeTakeFirst();
      if (row === undefined || !isClaimable(row, job, worker)) {
        return undefined;
      }
      try {
        return await tryToTake(row, job, worker);
      } catch (error) {
        if (error instanceof ClosedStreamError || error instanceof UnknownStreamError) {
          return undefined;
        }
        if (!(error instanceof StaleRunError)) {
          throw error;
        }
      }
    }
    throw runBusy(job.runId);
  }

  async function tryToTake(row: ClaimableRow, job: ClaimableJob, worker: string): Promise<TakenRun> {
    const takeover = job.retryCount > 0 && row.worker !== null && row.worker !== worker;
    const nowMs = clock.now();
    const epoch = row.epoch + 1;
    const value = create(RunStartedSchema, {
      worker,
      takeover,
      // A job that nobody had yet: the run's first one, or one by which it goes on after it has waited.
      resumed: !takeover && row.start_time !== null && row.job_retry === null,
    });
    let taken = row;
    const { lastSequence } = await eventLog.append({
      stream: row.id,
      events: [encoder.event({ case: "started", value }, nowMs)],
      async project(transaction, { first }) {
        const updated = await transaction
          .updateTable("runs")
          .set({
            epoch,
            worker,
            state: RunState.RUNNING,
            start_time: row.start_time ?? new Date(nowMs),
            job_retry: job.retryCount,
            last_sequence: first,
            ...(takeover && {
              takeovers: row.takeovers + 1,
              barren_takeovers: row.barren_takeovers + 1,
            }),
          })
          .where("number", "=", row.number)
          .where("epoch", "=", row.epoch)
          .where("job_id", "=", job.id)
          .where("end_time", "is", null)
          .returningAll()
          .executeTakeFirst();
        if (updated === undefined) {
          throw new StaleRunError("somebody else has the run, or it has ended");
        }
        taken = updated;
      },
    });
    return { row: taken, lastSequence, isTakeover: takeover };
  }

  return {
    async claim(job, worker) {
      const taken = await take(job, worker);
      if (taken === undefined) {
        return undefined;
      }
      const { row } = taken;
      held.set(row.id, row.epoch);
      const claimed = await open(kysely, journalOptions(row.id, row.epoch, row.created_by), taken);
      if (row.barren_takeovers > MAX_BARREN_TAKEOVERS) {
        await claimed.journal.finish({ state: "failed", error: crashesWorkers(row.barren_takeovers) });
        return undefined;
      }
      return claimed;
    },

    onCancel(callback) {
      const own = (runId: string, by: string, message: string) => callback(runId, by, message);
      cancelListeners.add(own);
      return () => cancelListeners.delete(own);
    },

    onAnswer: (callback) =>
      announcements.subscribe((news) => {
        if (news === undefined || news.kind === "answer") {
          callback(news?.runId);
        }
      }),
  };
}

interface TakenRun {
  readonly row: ClaimableRow;
  readonly lastSequence: number;
  readonly isTakeover: boolean;
}

/** Whoever had the run with an earlier fetch of its job has died or let go of it. */
function isClaimable(row: ClaimableRow, job: ClaimableJob, worker: string): boolean {
  const isAnothers =
    row.worker !== null && row.worker !== worker && row.job_retry !== null && job.retryCount <= row.job_retry;
  return row.end_time === null && row.job_id === job.id && !isAnothers;
}

async function open(
  kysely: Kysely<Tables>,
  options: JournalOptions,
  { row, lastSequence, isTakeover }: TakenRun,
): Promise<Claim> {
  const rows = await readAllSteps(kysely, row.number);
  const usage = fromBinary(UsageSchema, row.usage);
  // What only claiming needs is not kept in mind.
  const { source, agents, ...rest } = row;
  const journal = createJournal(options, {
    row: rest,
    steps: createStepImages(rows.map(imageOf)),
    usage,
    lastSequence,
    taken: row.planned || row.retry_of === "" ? [] : rows.filter(({ end_time }) => end_time).map(toStep),
  });
  const run: ClaimedRun = {
    id: row.id,
    title: row.title,
    principal: row.principal,
    depth: row.depth,
    deadline: row.deadline.getTime(),
    number: Number(row.number),
    epoch: row.epoch,
    source: fromBinary(RunSourceSchema, source),
    agents: agents.map((agent) => fromBinary(AgentSchema, agent)),
    createTime: row.create_time.getTime(),
    startTime: (row.start_time ?? row.create_time).getTime(),
    takeovers: row.takeovers,
    isNew: !row.planned,
    cancelled: row.cancel_by === null ? undefined : { by: row.cancel_by, message: row.cancel_message ?? "" },
    steps: new Map(rows.map((step) => [step.path, toRecordedStep(step)])),
    usage,
    retryOf: row.retry_of,
  };
  return { run, journal, isTakeover };
}

async function readAllSteps(kysely: Kysely<Tables>, run: string): Promise<readonly StepRow[]> {
  const found: StepRow[] = [];
  for (let after: number | undefined = 0; after !== undefined; ) {
    const page = await readSteps(kysely, { run, after, limit: PAGE_STEPS, maxBytes: PAGE_BYTES });
    found.push(...page.steps);
    after = page.next;
  }
  return found;
}

function toRecordedStep(row: StepRow): RecordedStep {
  return {
    path: row.path,
    attempts: row.attempts,
    failures: row.failures,
    startTime: row.start_time?.getTime(),
    end: row.end_time === null ? undefined : toEnd(row),
    wakeTime: row.wake_time?.getTime(),
    approval: freshAnswer(row),
  };
}

function toEnd(row: StepRow): StepEnd | undefined {
  const usage = row.usage === null ? undefined : fromBinary(UsageSchema, row.usage);
  const state: StepState = row.state;
  switch (state) {
    case StepState.SUCCEEDED:
      return {
        state: "succeeded",
        output: row.output === null ? null : parseJson(row.output),
        fallback: row.fallback,
        reused: row.reused,
        usage,
        ...(row.child_id !== "" && { childId: row.child_id }),
      };
    case StepState.FAILED:
      return {
        state: "failed",
        error: row.error === null ? create(StatusSchema) : fromBinary(StatusSchema, row.error),
        usage,
      };
    case StepState.SKIPPED:
      return { state: "skipped", cause: row.error === null ? "condition" : "failure" };
    case StepState.CANCELLED:
      return { state: "cancelled" };
    case StepState.PENDING:
    case StepState.RUNNING:
    case StepState.WAITING:
    case StepState.UNSPECIFIED:
      return undefined;
  }
}
