import { create, toJson } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import {
  TestRunEndReason,
  TestRunOrigin,
  TestRunState,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { OUTPUT_DROPPED_PLACE } from "./run-state.ts";
import { allEvents, ended, event, found, reported, started, wrote } from "./test-support/events.ts";
import { openReplica } from "./test-support/open-replica.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const ranToItsEnd = { reason: TestRunEndReason.UNSPECIFIED, message: "" };

test("a run that is reported from its first word to its verdict", async () => {
  const { runs, eventLog } = await openReplica(database);
  const run = await runs.create(reported());
  expect(run).toMatchObject({ state: TestRunState.RUNNING, origin: TestRunOrigin.REPORT, lastSequence: 2n });
  await runs.append(run.id, "", 1, [found("adds", "removes"), started("adds")]);
  expect((await runs.get(run.id)).counts).toMatchObject({ total: 2, passed: 0 });
  await runs.append(run.id, "", 3, [ended("adds"), ended("removes", TestStatus.FAILED)]);

  const over = await runs.finish(run.id, { ...ranToItsEnd, exitCode: 1 });
  expect(over).toMatchObject({
    state: TestRunState.FAILED,
    counts: { total: 2, passed: 1, failed: 1 },
    end: { state: TestRunState.FAILED, exitCode: 1, message: "" },
    lastSequence: 7n,
    testTime: { nanos: 10_000_000 },
  });
  const events = await allEvents(eventLog, run.id);
  expect(events.map(({ kind }) => kind.case)).toEqual([
    "created",
    "started",
    "testsFound",
    "testStarted",
    "testEnded",
    "testEnded",
    "ended",
  ]);
  expect(events.at(-1)?.kind.value).toEqual(over);
  expect(events.every(({ time }) => time !== undefined)).toBe(true);
});

test("ending a run again returns it as it ended", async () => {
  const { runs, eventLog } = await openReplica(database);
  const { id } = await runs.create(reported());
  const first = await runs.finish(id, ranToItsEnd);
  const again = await runs.finish(id, { reason: TestRunEndReason.CANCELLED, message: "too late" });
  expect(again).toEqual(first);
  expect(first.state).toBe(TestRunState.PASSED);
  expect(await allEvents(eventLog, id)).toHaveLength(4);
});

describe("batches", () => {
  test("that are repeated, whole or in part, add nothing twice", async () => {
    const { runs, eventLog } = await openReplica(database);
    const { id } = await runs.create(reported());
    const batch = () => [started("a"), ended("a"), started("b")];
    expect(await runs.append(id, "", 1, batch())).toEqual({ position: 3, cancelled: false });
    expect(await runs.append(id, "", 1, batch())).toEqual({ position: 3, cancelled: false });
    expect(await runs.append(id, "", 3, [started("b"), ended("b")])).toEqual({
      position: 4,
      cancelled: false,
    });
    expect(await allEvents(eventLog, id)).toHaveLength(2 + 4);
    expect((await runs.get(id)).counts).toMatchObject({ total: 2, passed: 2 });
  });

  test("that leave a gap are refused with the place to go on from", async () => {
    const { runs } = await openReplica(database);
    const { id } = await runs.create(reported());
    await runs.append(id, "shard-1", 1, [started("a")]);
    const gap = { code: Code.OutOfRange, reason: "POSITION_GAP", metadata: { next_position: "2" } };
    await expect(runs.append(id, "shard-1", 5, [ended("a")])).rejects.toMatchObject({ init: gap });
    await expect(runs.requirePosition(id, "shard-1", 2)).rejects.toMatchObject({ init: gap });
    await runs.requirePosition(id, "shard-1", 1);
    // The run is not confused by what was refused.
    expect(await runs.append(id, "shard-1", 2, [ended("a")])).toMatchObject({ position: 2 });
  });

  test("of several reporters are counted each for itself", async () => {
    const { runs } = await openReplica(database);
    const { id } = await runs.create(reported());
    const shards = ["a", "b", "c", "d"];
    await Promise.all(
      shards.flatMap((name) => [
        runs.append(id, name, 1, [started(name), ended(name)]),
        runs.append(id, name, 1, [started(name), ended(name)]),
      ]),
    );
    expect(await runs.get(id)).toMatchObject({ counts: { total: 4, passed: 4 }, lastSequence: 10n });
  });

  test("of two replicas end up in one order, with counts that are right on both", async () => {
    const [one, other] = [await openReplica(database), await openReplica(database)];
    const { id } = await one.runs.create(reported());
    await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const { runs } = index % 2 === 0 ? one : other;
        await runs.append(id, `r${index}`, 1, [started(`t${index}`), ended(`t${index}`)]);
        await runs.append(id, `r${index}`, 3, [ended(`t${index}`, TestStatus.FAILED)]);
      }),
    );
    const [first, second] = await Promise.all([
      one.runs.finish(id, ranToItsEnd),
      other.runs.finish(id, { reason: TestRunEndReason.TIMEOUT, message: "" }),
    ]);
    expect(first).toEqual(second);
    expect(first.counts).toMatchObject({ total: 20, passed: 0, failed: 20 });
    const events = await allEvents(other.eventLog, id);
    expect(events.filter(({ kind }) => kind.case === "ended")).toHaveLength(1);
    expect(events).toHaveLength(2 + 60 + 1);
  });

  test("cannot hold what only the server says", async () => {
    const { runs } = await openReplica(database);
    const { id } = await runs.create(reported());
    await expect(
      runs.append(id, "", 1, [started("a"), event({ case: "ended", value: {} })]),
    ).rejects.toMatchObject({ init: { code: Code.InvalidArgument, fields: [{ field: "events[1].ended" }] } });
  });

  test("are refused once the run has ended, unless all of it was taken before", async () => {
    const { runs } = await openReplica(database);
    const { id } = await runs.create(reported());
    await runs.append(id, "", 1, [ended("a")]);
    await runs.finish(id, ranToItsEnd);
    expect(await runs.append(id, "", 1, [ended("a")])).toMatchObject({ position: 1 });
    const refusal = { init: { code: Code.FailedPrecondition, reason: "TEST_RUN_ENDED" } };
    await expect(runs.append(id, "", 2, [ended("b")])).rejects.toMatchObject(refusal);
    await expect(runs.append(id, "", 2, [])).rejects.toMatchObject(refusal);
  });

  test("for runs that do not exist are refused", async () => {
    const { runs } = await openReplica(database);
    await expect(runs.append("none", "", 1, [ended("b")])).rejects.toMatchObject({
      init: { code: Code.NotFound, reason: "TEST_RUN_NOT_FOUND" },
    });
  });
});

test("who is killed leaves behind what was running and what was never reported", async () => {
  const { runs, eventLog } = await openReplica(database);
  const { id } = await runs.create(reported());
  await runs.append(id, "", 1, [
    found("a", "b", "c"),
    event({ case: "fileStarted", value: { file: "b.test.ts" } }),
    ended("a"),
    started("b"),
  ]);
  const run = await runs.finish(id, { reason: TestRunEndReason.UNSPECIFIED, message: "", signal: "SIGKILL" });
  expect(run).toMatchObject({
    state: TestRunState.ERROR,
    counts: { total: 3, passed: 1, interrupted: 1, notRun: 1 },
    end: {
      reason: TestRunEndReason.CRASHED,
      signal: "SIGKILL",
      runningTests: [{ name: "b" }],
      runningFiles: ["b.test.ts"],
      notRun: 1,
      message: "The runner was ended by SIGKILL before all its tests had",
    },
  });
  const rows = await database.kysely
    .selectFrom("test_results")
    .innerJoin("test_runs", "test_runs.number", "test_results.run")
    .select(["name", "status"])
    .where("test_runs.id", "=", id)
    .orderBy("name")
    .execute();
  expect(rows.map(({ name, status }) => [name, TestStatus[status]])).toEqual([
    ["cart > a", "PASSED"],
    ["cart > b", "INTERRUPTED"],
    ["cart > c", "NOT_RUN"],
  ]);
  expect((await allEvents(eventLog, id)).at(-1)?.kind.value).toEqual(run);
});

test("repeated requests make one run, and an id is not used for two", async () => {
  const { runs } = await openReplica(database);
  const request = { id: "6e0c2d0e-6a1f-4c6b-9d55-1c1f2d3e4f50", fingerprint: "one" };
  const made = await Promise.all(Array.from({ length: 5 }, () => runs.create(reported({ request }))));
  expect(new Set(made.map(({ id }) => id)).size).toBe(1);
  expect((await runs.create(reported({ request, createdBy: "user:bob" }))).id).not.toBe(made[0]?.id);
  await expect(
    runs.create(reported({ request: { ...request, fingerprint: "other" } })),
  ).rejects.toMatchObject({ init: { fields: [{ field: "request_id", reason: "REQUEST_ID_REUSED" }] } });
  const { rows } = { rows: await database.kysely.selectFrom("event_streams").select("name").execute() };
  const known = await database.kysely.selectFrom("test_runs").select("id").execute();
  expect(rows).toHaveLength(known.length);
});

test("a run of no test passes, and says so", async () => {
  const { runs, eventLog } = await openReplica(database);
  const { id } = await runs.create(reported());
  const over = await runs.finish(id, { ...ranToItsEnd, exitCode: 0 });
  expect(over).toMatchObject({
    state: TestRunState.PASSED,
    end: { message: expect.stringContaining("No test was run") },
    lastSequence: 4n,
  });
  const events = await allEvents(eventLog, id);
  expect(events.map(({ kind }) => kind.case)).toEqual(["created", "started", "problem", "ended"]);
  expect(events.at(-1)?.kind.value).toEqual(over);

  const coverage = await runs.create(reported());
  const measured = { files: [{ file: "a.ts", lines: [{ line: 1, hits: 1 }] }] };
  await runs.append(coverage.id, "", 1, [event({ case: "coverage", value: measured })]);
  expect((await runs.finish(coverage.id, ranToItsEnd)).end?.message).toBe("");
});

test("the end of a run names no more than fits into a list of runs", async () => {
  const { runs } = await openReplica(database);
  const { id } = await runs.create(reported());
  const tests = Array.from({ length: 40 }, (_, index) => {
    const huge = started(`${index}`);
    if (huge.kind.case === "testStarted" && huge.kind.value.test) {
      huge.kind.value.test.suitePath = Array.from({ length: 64 }, () => "x".repeat(1_024));
    }
    return huge;
  });
  await runs.append(id, "", 1, tests);
  const { end, counts } = await runs.finish(id, { ...ranToItsEnd, signal: "SIGKILL" });
  expect(counts).toMatchObject({ total: 40, interrupted: 40 });
  expect(end?.runningTests.map(({ name }) => name)).toEqual(["0"]);
});

test("a sign of life is answered with what is durable, not with what the reporter takes to be", async () => {
  const { runs } = await openReplica(database);
  const { id } = await runs.create(reported());
  await runs.append(id, "a", 1, [started("a")]);
  expect(await runs.append(id, "a", 1_000, [])).toEqual({ position: 1, cancelled: false });
  expect(await runs.append(id, "b", 1_000, [])).toEqual({ position: 0, cancelled: false });
});

test("a reporter whose run is cancelled hears of it with its next report", async () => {
  const { runs } = await openReplica(database);
  const { id } = await runs.create(reported());
  await runs.append(id, "", 1, [started("a")]);
  expect(await runs.cancel(id, "no longer needed")).toMatchObject({
    state: TestRunState.CANCELLED,
    end: { reason: TestRunEndReason.CANCELLED, message: "no longer needed" },
    counts: { interrupted: 1 },
  });
  expect(await runs.append(id, "", 2, [ended("a")])).toEqual({ position: 1, cancelled: true });
  expect(await runs.append(id, "", 2, [])).toEqual({ position: 1, cancelled: true });
  expect((await runs.cancel(id, "again")).end?.message).toBe("no longer needed");
});

test("beyond the limit output is left out, once with a word about it; far beyond it nothing more is taken", async () => {
  const { runs, eventLog } = await openReplica(database, { maxEventsPerRun: 10 });
  const { id } = await runs.create(reported());
  const output = Array.from({ length: 30 }, (_, index) => wrote(`line ${index}`));
  expect(await runs.append(id, "", 1, output.slice(0, 8))).toMatchObject({ position: 8 });
  expect(await runs.append(id, "", 9, output.slice(8))).toMatchObject({ position: 30 });
  expect(await runs.append(id, "", 31, [ended("a"), wrote("more")])).toMatchObject({ position: 32 });
  const events = await allEvents(eventLog, id);
  expect(events.filter(({ kind }) => kind.case === "output" && kind.value.text !== "").length).toBe(8);
  expect(
    events.filter(({ kind }) => kind.case === "problem" && kind.value.place === OUTPUT_DROPPED_PLACE),
  ).toHaveLength(1);
  for (let position = 33; position < 42; position++) {
    await runs.append(id, "", position, [ended(`t${position}`)]).catch(() => undefined);
  }
  await expect(runs.append(id, "", 41, [ended("z")])).rejects.toMatchObject({
    init: { code: Code.ResourceExhausted, reason: "TOO_MANY_EVENTS" },
  });
  expect(await runs.finish(id, ranToItsEnd)).toMatchObject({ state: TestRunState.PASSED });
});

test("coverage of a file that comes again is merged, also when the run has ended", async () => {
  const { runs } = await openReplica(database);
  const { id } = await runs.create(reported());
  const measured = (lines: Record<number, number>) => ({
    file: "cart.ts",
    lines: Object.entries(lines).map(([line, hits]) => ({ line: Number(line), hits })),
  });
  const coverage = (...files: ReturnType<typeof measured>[]) => event({ case: "coverage", value: { files } });
  await runs.append(id, "", 1, [coverage(measured({ 1: 1, 2: 0 }), measured({ 2: 0, 3: 0 }))]);
  await runs.append(id, "", 2, [coverage(measured({ 2: 5 }))]);
  const run = await runs.finish(id, ranToItsEnd);
  expect(run.coverage).toMatchObject({ files: 1, linesTotal: 3n, linesCovered: 2n });
  const again = event({ case: "coverage", value: { files: [measured({ 3: 1 })] } });
  const files = again.kind.case === "coverage" ? again.kind.value.files : [];
  expect((await runs.addCoverage(id, files)).coverage).toMatchObject({ linesTotal: 3n, linesCovered: 3n });
});

test("times that no calendar has are left out, so that everyone can read the run", async () => {
  const { runs, eventLog } = await openReplica(database);
  const { id } = await runs.create(reported());
  const bad = ended("a");
  bad.time = create(TimestampSchema, { seconds: 10n ** 15n });
  if (bad.kind.case === "testEnded") {
    bad.kind.value.duration = create(DurationSchema, { seconds: -5n, nanos: 3 });
    bad.kind.value.startTime = create(TimestampSchema, { nanos: -1 });
  }
  await runs.append(id, "", 1, [bad]);
  const [, , stored] = await allEvents(eventLog, id);
  expect(toJson(TestEventSchema, stored ?? bad)).toMatchObject({ testEnded: { test: { name: "a" } } });
  expect((await runs.get(id)).testTime).toMatchObject({ seconds: 0n, nanos: 0 });
});
