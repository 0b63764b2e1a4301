import { create, fromBinary } from "@bufbuild/protobuf";
import type { Clock, Logger } from "@toolplane/framework";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { CancelRequestedSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { ClosedStreamError, type EventLog, UnknownStreamError } from "../../event-log/event-log.ts";
import type { Database } from "../../storage/database.ts";
import { storable } from "../../storage/text.ts";
import { LostRunError, type RunEnd } from "../engine/journal.ts";
import type { RunJobs } from "../jobs.ts";
import { announce } from "./announcements.ts";
import type { EventEncoder } from "./events.ts";
import { cancelUnowned } from "./journal.ts";
import { runBusy } from "./refusals.ts";
import { type RunRow, readRun } from "./rows.ts";
import { createStepImages, IMAGE_COLUMNS, imageOf } from "./step-images.ts";
import { type Cancellation, StaleRunError } from "./write.ts";

/** How often others may change the run meanwhile. */
const MAX_TRIES = 20;

export interface CancelOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: Pick<EventLog, "append">;
  readonly jobs: Pick<RunJobs, "send">;
  readonly encoder: EventEncoder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly maxEventsPerRun: number;
}

/** Ends a run that no worker has, and tells the worker otherwise. The first who cancels a run is whom it is told by. */
export async function cancelRun(
  options: CancelOptions,
  runId: string,
  cancellation: Cancellation,
): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const row = await readRun(options.database.kysely, runId);
    if (row.end_time !== null) {
      return;
    }
    try {
      return row.worker === null
        ? await endRun(options, row, cancellation)
        : await tellWorker(options, row, cancellation);
    } catch (error) {
      const hasChanged =
        error instanceof StaleRunError ||
        error instanceof LostRunError ||
        error instanceof ClosedStreamError ||
        error instanceof UnknownStreamError;
      if (!hasChanged) {
        throw error;
      }
    }
  }
  throw runBusy(runId);
}

/**
 * Cancels runs whose parent has ended before them: its worker does so itself where it knows of them, but one that takes a
 * cancelled run over, or whoever ends one that no worker has, does not.
 */
export async function cancelOrphans(
  options: CancelOptions,
  parent: { readonly id: string; readonly createdBy: string },
  runIds: readonly string[],
  end: RunEnd,
): Promise<void> {
  const by = end.state === "cancelled" ? end.by : parent.createdBy;
  const message = `the run ${parent.id} that started it was stopped`;
  for (const runId of runIds) {
    try {
      await cancelRun(options, runId, { by, message });
    } catch (error) {
      // It ends by its own timeout.
      options.logger.warn({ err: error, runId }, "could not cancel a run whose parent has ended");
    }
  }
}

async function endRun(options: CancelOptions, row: RunRow, cancellation: Cancellation): Promise<void> {
  const steps = await options.database.kysely
    .selectFrom("run_steps")
    .select(IMAGE_COLUMNS)
    .where("run", "=", row.number)
    .execute();
  let orphaned: Promise<void> | undefined;
  await cancelUnowned(
    {
      ...options,
      onCancel: () => undefined,
      onLeft: () => undefined,
      onOrphans(runIds, end) {
        orphaned = cancelOrphans(options, { id: row.id, createdBy: row.created_by }, runIds, end);
      },
    },
    {
      row,
      steps: createStepImages(steps.map(imageOf)),
      usage: fromBinary(UsageSchema, row.usage),
      lastSequence: Number(row.last_sequence),
    },
    row.cancel_by === null ? cancellation : { by: row.cancel_by, message: row.cancel_message ?? "" },
  );
  await orphaned;
}

async function tellWorker(
  { database, eventLog, encoder, clock }: CancelOptions,
  row: RunRow,
  { by, message }: Cancellation,
): Promise<void> {
  if (row.cancel_by !== null) {
    // The worker may have missed it.
    await announce(database.kysely, { kind: "cancel", runId: row.id });
    return;
  }
  const value = create(CancelRequestedSchema, { by, message });
  await eventLog.append({
    stream: row.id,
    events: [encoder.event({ case: "cancelRequested", value }, clock.now())],
    async project(transaction, { first }) {
      const updated = await transaction
        .updateTable("runs")
        .set({ cancel_by: storable(by), cancel_message: storable(message), last_sequence: first })
        .where("number", "=", row.number)
        .where("epoch", "=", row.epoch)
        .where("worker", "is not", null)
        .where("cancel_by", "is", null)
        .where("end_time", "is", null)
        .returning("number")
        .executeTakeFirst();
      if (updated === undefined) {
        throw new StaleRunError("the run has changed meanwhile");
      }
      await announce(transaction, { kind: "cancel", runId: row.id });
    },
  });
}
