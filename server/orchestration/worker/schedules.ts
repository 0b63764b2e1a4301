import type { JsonObject } from "@bufbuild/protobuf";
import type { Clock, Principal } from "@toolplane/framework";
import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { type Kysely, type Selectable, sql, type Transaction } from "kysely";
import type { Logger } from "pino";
import type { Database } from "../../storage/database.ts";
import type { Tables } from "../../storage/tables.ts";
import { isTransientDatabaseError } from "../../storage/transient.ts";
import { idempotencyKey } from "../idempotency-key.ts";
import type { WorkflowSchedulesTable } from "../tables.ts";
import { nextOccurrence, takeDue } from "./cron.ts";

export { checkSchedule } from "./cron.ts";

/** Other replicas may have put schedules, and start what is due here when this one is late. */
const LOOK_INTERVAL_MS = 1_000;
/** What is left then is for the next look. */
const MAX_STARTS_AT_ONCE = 100;

/** A run that a schedule wants. */
export interface ScheduledStart {
  readonly workflow: string;
  readonly version: number;
  readonly input: JsonObject | undefined;
  /** On whose behalf. */
  readonly principal: Principal;
  /** A UUID: the same for an occurrence, whoever starts it and how often. */
  readonly requestId: string;
  /** The occurrence, in milliseconds since 1970. */
  readonly time: number;
}

export interface SchedulesOptions {
  readonly database: Pick<Database, "kysely">;
  /** Has to return the run that there is when it is called again with the same request id. */
  readonly startRun: (start: ScheduledStart) => Promise<unknown>;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface Schedules {
  /** Starts what is due. Returns how many runs. */
  look(): Promise<number>;
  close(): Promise<void>;
}

/** Replaces the schedules of a workflow; what was due of one that stays as it is, is still started. */
export async function putSchedules(
  transaction: Transaction<Tables>,
  workflow: Workflow,
  principal: Principal,
  now: number,
): Promise<void> {
  const before = await transaction
    .deleteFrom("workflow_schedules")
    .where("workflow", "=", workflow.name)
    .returning(["position", "cron", "time_zone", "next_time"])
    .execute();
  if (workflow.schedules.length === 0) {
    return;
  }
  const rows = workflow.schedules.map(({ cron, timeZone, input, paused }, position) => {
    const due = before.find(
      (row) => row.position === position && row.cron === cron && row.time_zone === timeZone,
    )?.next_time;
    const next =
      due !== undefined && due !== null && due.getTime() <= now
        ? due.getTime()
        : nextOccurrence({ cron, timeZone }, now);
    return {
      workflow: workflow.name,
      position,
      workflow_version: workflow.version,
      cron,
      time_zone: timeZone,
      input: input === undefined ? null : Buffer.from(JSON.stringify(input)),
      next_time: paused || next === undefined ? null : new Date(next),
      principal: JSON.stringify(principal),
    };
  });
  await transaction.insertInto("workflow_schedules").values(rows).execute();
}

/** Ends the schedules of a workflow. */
export async function deleteSchedules(transaction: Transaction<Tables>, workflow: string): Promise<void> {
  await transaction.deleteFrom("workflow_schedules").where("workflow", "=", workflow).execute();
}

/** When each of a workflow's schedules starts the next run, in milliseconds since 1970, by its position. */
export async function nextTimes(
  kysely: Kysely<Tables>,
  workflow: string,
): Promise<ReadonlyMap<number, number>> {
  const rows = await kysely
    .selectFrom("workflow_schedules")
    .select(["position", "next_time"])
    .where("workflow", "=", workflow)
    .execute();
  return new Map(
    rows.flatMap(({ position, next_time }) => (next_time === null ? [] : [[position, next_time.getTime()]])),
  );
}

/** Starts workflows by their schedules: each occurrence once, on whichever replica is first. */
export function startSchedules({ database, startRun, clock, logger }: SchedulesOptions): Schedules {
  const { kysely } = database;
  let closed = false;
  let cancel = () => {};
  let looking: Promise<unknown> = Promise.resolve();
  /** The last occurrence of each schedule of which it was told that it has to wait. */
  const delayed = new Map<string, number>();

  async function look(): Promise<number> {
    let started = 0;
    /** Those that are not to be tried again in this look. */
    const tried: string[] = [];
    for (let count = 0; count < MAX_STARTS_AT_ONCE && !closed; count++) {
      const outcome = await startOne(tried);
      if (outcome === "none") {
        break;
      }
      started += outcome === "started" ? 1 : 0;
    }
    return started;
  }

  /** Starts what has been due for longest, holding its row, so that no other replica does. */
  function startOne(tried: string[]): Promise<"started" | "not started" | "none"> {
    return kysely.transaction().execute(async (transaction) => {
      const now = clock.now();
      const row = await transaction
        .selectFrom("workflow_schedules")
        .selectAll()
        .where("next_time", "<=", new Date(now))
        .where(sql<boolean>`workflow || ' ' || position <> ALL (${tried}::text[])`)
        .orderBy("next_time")
        .limit(1)
        .forUpdate()
        .skipLocked()
        .executeTakeFirst();
      if (row === undefined || row.next_time === null) {
        return "none";
      }
      const key = `${row.workflow} ${row.position}`;
      const schedule = { cron: row.cron, timeZone: row.time_zone };
      const { start, next } = takeDue(schedule, row.next_time.getTime(), now);
      const outcome = start === undefined ? "not started" : await tryStart(row, start);
      if (outcome === "later") {
        tried.push(key);
        return "not started";
      }
      delayed.delete(key);
      await transaction
        .updateTable("workflow_schedules")
        .set({ next_time: next === undefined ? null : new Date(next) })
        .where("workflow", "=", row.workflow)
        .where("position", "=", row.position)
        .execute();
      return outcome;
    });
  }

  async function tryStart(
    row: Selectable<WorkflowSchedulesTable>,
    time: number,
  ): Promise<"started" | "not started" | "later"> {
    const occurrence = { workflow: row.workflow, schedule: row.position, time: new Date(time).toISOString() };
    const requestId = idempotencyKey(`schedule ${row.workflow}`, `${row.position}/${occurrence.time}`);
    try {
      await startRun({
        workflow: row.workflow,
        version: row.workflow_version,
        // It was written from an object.
        input: row.input === null ? undefined : (JSON.parse(row.input.toString()) as JsonObject),
        principal: row.principal,
        requestId,
        time,
      });
    } catch (error) {
      if (isTransientDatabaseError(error)) {
        // Told once, although it is tried every second.
        const key = `${row.workflow} ${row.position}`;
        if (delayed.get(key) !== time) {
          delayed.set(key, time);
          logger.warn({ err: error, ...occurrence }, "a workflow cannot be started by its schedule now");
        }
        return "later";
      }
      logger.error({ err: error, ...occurrence }, "a workflow could not be started by its schedule");
      return "not started";
    }
    return "started";
  }

  /** How long there is nothing to do, as far as this replica knows. */
  async function idleMs(): Promise<number> {
    const row = await kysely
      .selectFrom("workflow_schedules")
      .select(({ fn }) => fn.min("next_time").as("next"))
      .where("next_time", ">", new Date(clock.now()))
      .executeTakeFirst();
    const next = row?.next;
    return next === undefined || next === null
      ? LOOK_INTERVAL_MS
      : Math.min(Math.max(next.getTime() - clock.now(), 0), LOOK_INTERVAL_MS);
  }

  async function lookAndRest(): Promise<number> {
    try {
      await look();
      return await idleMs();
    } catch (error) {
      logger.warn({ err: error }, "could not look for workflows to start by their schedules");
      return LOOK_INTERVAL_MS;
    }
  }

  function schedule(ms: number): void {
    if (!closed) {
      cancel = clock.after(ms, () => {
        looking = lookAndRest().then(schedule);
      });
    }
  }
  schedule(0);

  return {
    look,
    async close() {
      closed = true;
      cancel();
      await looking;
    },
  };
}
