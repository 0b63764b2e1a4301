import {
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from "vitest";
import { createFakeClock, type FakeClock } from "../../framework/test-support/fake-clock.ts";
import type { Database } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { startReaper } from "./reaper.ts";
import { startRetention } from "./retention.ts";
import { allEvents, ended, found, reported, started } from "./test-support/events.ts";
import { openReplica, type Replica } from "./test-support/open-replica.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

beforeEach(async () => {
  await sql`TRUNCATE test_runs, test_results, test_coverage, test_cases`.execute(database.kysely);
});

afterAll(() => database.close());

/** Moves the database's time on, as far as leases are concerned. */
async function passLeases(seconds: number): Promise<void> {
  await sql`UPDATE test_runs SET lease_until = lease_until - ${seconds} * interval '1 s'`.execute(
    database.kysely,
  );
}

function openReaper(replica: Pick<Replica, "runs">, clock: FakeClock) {
  const reaper = startReaper({ database, runs: replica.runs, clock, logger: silentLogger });
  onTestFinished(() => reaper.close());
  return reaper;
}

/** Looks every 2 s, as it does by itself. */
async function lookFor(reaper: { look(): Promise<number> }, clock: FakeClock, seconds: number) {
  let ended = 0;
  for (let passed = 0; passed < seconds; passed += 2) {
    clock.advance(2_000);
    ended += await reaper.look();
  }
  return ended;
}

test("a run whose reporter says nothing any more ends, with what it was doing", async () => {
  const clock = createFakeClock();
  const replica = await openReplica(database);
  const { id } = await replica.runs.create(reported({ silenceMs: 30_000 }));
  await replica.runs.append(id, "", 1, [found("a", "b"), started("a")]);
  const reaper = openReaper(replica, clock);
  expect(await lookFor(reaper, clock, 60)).toBe(0);
  await passLeases(31);
  expect(await reaper.look()).toBe(1);
  expect(await replica.runs.get(id)).toMatchObject({
    state: TestRunState.ERROR,
    counts: { interrupted: 1, notRun: 1 },
    end: { reason: TestRunEndReason.SILENT, message: "Nothing was reported for 30 s" },
  });
});

test("every report, an empty one too, keeps a run alive", async () => {
  const clock = createFakeClock();
  const replica = await openReplica(database);
  const { id } = await replica.runs.create(reported({ silenceMs: 30_000 }));
  const reaper = openReaper(replica, clock);
  await lookFor(reaper, clock, 60);
  await passLeases(31);
  await replica.runs.append(id, "", 1, []);
  expect(await reaper.look()).toBe(0);
  await passLeases(31);
  await replica.runs.append(id, "", 1, [ended("a")]);
  expect(await reaper.look()).toBe(0);
});

test("after a start, or when it was held up, a server gives reporters the time to come back", async () => {
  const clock = createFakeClock();
  const replica = await openReplica(database);
  const { id } = await replica.runs.create(reported({ silenceMs: 30_000 }));
  await passLeases(3_600);
  const reaper = openReaper(replica, clock);
  expect(await lookFor(reaper, clock, 26)).toBe(0);
  // Its own next look comes in time, before it is held up.
  clock.advance(20_000);
  expect(await reaper.look()).toBe(0);
  expect(await lookFor(reaper, clock, 28)).toBe(0);
  expect((await replica.runs.get(id)).end).toBeUndefined();
  // It looks by itself too, and may come first.
  await lookFor(reaper, clock, 4);
  expect((await replica.runs.get(id)).end?.reason).toBe(TestRunEndReason.SILENT);
});

test("many replicas end a lost run once", async () => {
  const clock = createFakeClock();
  const replicas = await Promise.all(Array.from({ length: 3 }, () => openReplica(database)));
  const [first] = replicas;
  const made = await Promise.all(
    Array.from({ length: 5 }, () => first?.runs.create(reported({ silenceMs: 1 }))),
  );
  const reapers = replicas.map((replica) => openReaper(replica, clock));
  clock.advance(2_000);
  await passLeases(1);
  await Promise.all(reapers.map((reaper) => reaper.look()));
  for (const run of made) {
    const events = (first && run && (await allEvents(first.eventLog, run.id))) ?? [];
    expect(events.map(({ kind }) => kind.case)).toEqual(["created", "started", "ended"]);
  }
});

test("a run whose server is gone ends as such, and as cancelled if that was wished", async () => {
  const clock = createFakeClock();
  const replica = await openReplica(database);
  const queued = { ...reported(), origin: TestRunOrigin.SERVER };
  const [lost, cancelled] = [await replica.runs.create(queued), await replica.runs.create(queued)];
  const claimed = await replica.leases.claimQueued([{ project: "shop", maxConcurrent: 2 }], 2);
  expect(claimed.map(({ run }) => run.id)).toEqual([lost.id, cancelled.id]);
  await replica.runs.start(lost.id, undefined);
  await replica.runs.cancel(cancelled.id, "enough");
  const reaper = openReaper(replica, clock);
  await lookFor(reaper, clock, 20);
  await passLeases(16);
  expect(await reaper.look()).toBe(2);
  expect((await replica.runs.get(lost.id)).end).toMatchObject({
    reason: TestRunEndReason.SERVER_LOST,
    infrastructureFailure: true,
  });
  expect((await replica.runs.get(cancelled.id)).end).toMatchObject({
    state: TestRunState.CANCELLED,
    message: "enough",
  });
});

test("a run that waits for a server for a day ends", async () => {
  const clock = createFakeClock();
  const replica = await openReplica(database);
  const { id } = await replica.runs.create({ ...reported(), origin: TestRunOrigin.SERVER });
  const reaper = openReaper(replica, clock);
  expect(await lookFor(reaper, clock, 20)).toBe(0);
  await sql`UPDATE test_runs SET create_time = now() - interval '25 hours'`.execute(database.kysely);
  expect(await reaper.look()).toBe(1);
  expect((await replica.runs.get(id)).end?.reason).toBe(TestRunEndReason.NOT_STARTED);
});

test("old runs are deleted with everything that belongs to them, and so are those that are too many", async () => {
  const clock = createFakeClock();
  const replica = await openReplica(database);
  const make = async (project: string) => {
    const { id } = await replica.runs.create(reported({ project }));
    await replica.runs.append(id, "", 1, [ended(`of ${project}`)]);
    await replica.runs.finish(id, { reason: TestRunEndReason.UNSPECIFIED, message: "" });
    return id;
  };
  const old = await make("old");
  await sql`UPDATE test_runs SET end_time = end_time - interval '2 days'`.execute(database.kysely);
  const many = [await make("shop"), await make("shop"), await make("shop")];
  const open = await replica.runs.create(reported({ project: "old" }));
  const retention = startRetention({
    database,
    eventLog: replica.eventLog,
    clock,
    logger: silentLogger,
    retentionMs: 86_400_000,
    maxRunsPerProject: 2,
  });
  onTestFinished(() => retention.close());
  expect(await retention.look()).toBe(2);
  const left = await database.kysely.selectFrom("test_runs").select("id").orderBy("number").execute();
  expect(left.map(({ id }) => id)).toEqual([...many.slice(1), open.id]);
  for (const id of [old, many[0] ?? ""]) {
    await expect(replica.eventLog.read(id, 0, 1)).rejects.toThrow();
  }
  expect(await database.kysely.selectFrom("test_results").select("run").execute()).toHaveLength(2);
  expect(await database.kysely.selectFrom("test_cases").select("project").execute()).toEqual([
    { project: "shop" },
  ]);
});
