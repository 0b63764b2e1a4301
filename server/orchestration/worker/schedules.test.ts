import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, type Principal } from "@toolplane/framework";
import {
  type ScheduleSchema,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { sql } from "kysely";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createFakeClock, type FakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import {
  deleteSchedules,
  nextTimes,
  putSchedules,
  type ScheduledStart,
  type Schedules,
  startSchedules,
} from "./schedules.ts";

type ScheduleInit = MessageInitShape<typeof ScheduleSchema>;

const ada: Principal = { id: "user:ada", role: "operator" };
const open: { close(): Promise<void> }[] = [];
let database: Database;
let clock: FakeClock;
let starts: ScheduledStart[];

beforeEach(async () => {
  database = await openTestDatabase();
  open.push(database);
  startAt("2026-06-01T11:59:00Z");
});

afterEach(async () => {
  for (const part of open.splice(0).reverse()) {
    await part.close();
  }
});

function startAt(time: string): void {
  clock = createFakeClock(Date.parse(time));
  starts = [];
}

function put(schedules: readonly ScheduleInit[], name = "nightly", version = 1): Promise<void> {
  const workflow = create(WorkflowSchema, { name, version, schedules: [...schedules] });
  return database.kysely
    .transaction()
    .execute((transaction) => putSchedules(transaction, workflow, ada, clock.now()));
}

/** A replica that looks only when the test says so. */
function replica(startRun?: (start: ScheduledStart) => Promise<unknown>): Schedules {
  const schedules = startSchedules({
    database,
    clock: { ...clock, after: () => () => undefined },
    logger: silentLogger,
    startRun: startRun ?? (async (start) => starts.push(start)),
  });
  open.push(schedules);
  return schedules;
}

const times = () => starts.map(({ time }) => new Date(time).toISOString().replace(":00.000Z", "Z"));

async function next(name = "nightly"): Promise<Record<number, string>> {
  const found = await nextTimes(database.kysely, name);
  return Object.fromEntries([...found].map(([position, time]) => [position, new Date(time).toISOString()]));
}

describe("schedules of workflows", () => {
  it("start a run at their time, with what it needs", async () => {
    await put([{ cron: "0 12 * * *", input: { size: 3 } }], "nightly", 7);
    const { look } = replica();
    expect(await look()).toBe(0);
    clock.advance(60_000);
    expect(await look()).toBe(1);
    expect(starts).toEqual([
      {
        workflow: "nightly",
        version: 7,
        input: { size: 3 },
        principal: ada,
        requestId: expect.stringMatching(
          /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
        ),
        time: Date.UTC(2026, 5, 1, 12),
      },
    ]);
    expect(await look()).toBe(0);
    expect(await next()).toEqual({ 0: "2026-06-02T12:00:00.000Z" });
  });

  it("are looked after by themselves, to the second", async () => {
    await put([{ cron: "*/2 * * * * *" }]);
    const schedules = startSchedules({
      database,
      clock,
      logger: silentLogger,
      startRun: async (start) => starts.push(start),
    });
    open.push(schedules);
    for (let second = 1; second <= 6; second++) {
      await expect.poll(() => clock.pending).toBe(1);
      clock.advance(1_000);
      await expect.poll(() => starts.length).toBe(Math.floor(second / 2));
    }
    expect(starts.map(({ time }) => time % 60_000)).toEqual([2_000, 4_000, 6_000]);
  });

  it("are in their time zone, on days when clocks change too", async () => {
    startAt("2026-03-28T00:00:00Z");
    await put([{ cron: "30 2 * * *", timeZone: "Europe/Berlin" }]);
    const { look } = replica();
    for (let hour = 0; hour < 72; hour++) {
      clock.advance(3_600_000 / 2);
      await look();
      clock.advance(3_600_000 / 2);
      await look();
    }
    expect(times()).toEqual(["2026-03-28T01:30Z", "2026-03-29T01:30Z", "2026-03-30T00:30Z"]);

    startAt("2026-10-24T00:00:00Z");
    await put([{ cron: "30 2 * * *", timeZone: "Europe/Berlin" }]);
    const autumn = replica();
    for (let half = 0; half < 144; half++) {
      clock.advance(3_600_000 / 2);
      await autumn.look();
    }
    expect(times()).toEqual(["2026-10-24T00:30Z", "2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
  });

  it("start each run once, however many replicas look at once", async () => {
    const workflows = Array.from({ length: 5 }, (_, index) => `nightly-${index}`);
    for (const name of workflows) {
      await put([{ cron: "0 12 * * *" }, { cron: "0 12 1 * *" }], name);
    }
    const replicas = Array.from({ length: 4 }, () => replica());
    clock.advance(60_000);
    const counts = await Promise.all(replicas.map(({ look }) => look()));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(10);
    expect(starts).toHaveLength(10);
    expect(new Set(starts.map(({ requestId }) => requestId)).size).toBe(10);
  });

  it("start the same run again when a replica dies before it has noted that", async () => {
    await put([{ cron: "0 12 * * *" }]);
    clock.advance(60_000);
    const died = replica(async (start) => {
      starts.push(start);
      // The transaction that would note it is lost with its connection.
      await sql`
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'
      `.execute(database.kysely);
    });
    await expect(died.look()).rejects.toMatchObject({ init: { code: Code.Unavailable } });
    expect(await replica().look()).toBe(1);
    expect(starts).toHaveLength(2);
    expect(starts[1]).toEqual(starts[0]);
  });

  it("make up for the last occurrence that was missed, within an hour", async () => {
    await put([{ cron: "0 12 * * *" }, { cron: "*/10 * * * *" }, { cron: "5 13 * * *" }]);
    clock.advance(86 * 60_000);
    const { look } = replica();
    await look();
    expect(times().toSorted()).toEqual(["2026-06-01T13:05Z", "2026-06-01T13:20Z"]);
    expect(await next()).toEqual({
      0: "2026-06-02T12:00:00.000Z",
      1: "2026-06-01T13:30:00.000Z",
      2: "2026-06-02T13:05:00.000Z",
    });
  });

  it("go on when a start fails", async () => {
    await put([{ cron: "0 12 * * *" }], "broken");
    await put([{ cron: "0 12 * * *" }], "sound");
    clock.advance(60_000);
    const { look } = replica(async (start) => {
      if (start.workflow === "broken") {
        throw new DomainError({
          code: Code.InvalidArgument,
          reason: "NO",
          message: "the input does not fit",
        });
      }
      starts.push(start);
    });
    expect(await look()).toBe(1);
    expect(starts.map(({ workflow }) => workflow)).toEqual(["sound"]);
    expect(await next("broken")).toEqual({ 0: "2026-06-02T12:00:00.000Z" });
  });

  it("try again when there is no room now, without holding up others", async () => {
    await put([{ cron: "0 12 * * *" }], "crowded");
    await put([{ cron: "0 12 * * *" }], "sound");
    clock.advance(60_000);
    let isFull = true;
    const { look } = replica(async (start) => {
      if (isFull && start.workflow === "crowded") {
        throw new DomainError({ code: Code.ResourceExhausted, reason: "RUN_QUEUE_FULL", message: "full" });
      }
      starts.push(start);
    });
    expect(await look()).toBe(1);
    isFull = false;
    clock.advance(5_000);
    expect(await look()).toBe(1);
    expect(starts.map(({ workflow, time }) => [workflow, time])).toEqual([
      ["sound", Date.UTC(2026, 5, 1, 12)],
      ["crowded", Date.UTC(2026, 5, 1, 12)],
    ]);
  });

  it("start nothing while they are paused, and nothing for that later", async () => {
    await put([{ cron: "0 12 * * *", paused: true }]);
    expect(await next()).toEqual({});
    clock.advance(120_000);
    const { look } = replica();
    expect(await look()).toBe(0);
    await put([{ cron: "0 12 * * *" }]);
    expect(await look()).toBe(0);
    expect(await next()).toEqual({ 0: "2026-06-02T12:00:00.000Z" });
  });

  it("are replaced and deleted with their workflow", async () => {
    await put([{ cron: "0 12 * * *" }, { cron: "0 13 * * *" }]);
    await put([{ cron: "0 14 * * *" }]);
    expect(await next()).toEqual({ 0: "2026-06-01T14:00:00.000Z" });
    await put([]);
    expect(await next()).toEqual({});
    await put([{ cron: "0 14 * * *" }]);
    await database.kysely.transaction().execute((transaction) => deleteSchedules(transaction, "nightly"));
    expect(await next()).toEqual({});
  });

  it("lose nothing that is due when their workflow is changed just then", async () => {
    await put([{ cron: "0 12 * * *" }]);
    clock.advance(60_500);
    await put([{ cron: "0 12 * * *" }], "nightly", 2);
    await replica().look();
    expect(starts).toMatchObject([{ version: 2, time: Date.UTC(2026, 5, 1, 12) }]);
  });
});
