import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openTestStore } from "./test-support/open-store.ts";
import { asks, entry, finished, planned, started, succeeded } from "./test-support/runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const yes = { approved: true, comment: "looks good", by: "user:bob" };
const no = { approved: false, comment: "", by: "user:eve" };

test("a run that nobody has goes on with the answer to what it waits for", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  await journal.record([planned("ok"), started("ok"), asks("ok", "Deploy to Bern?")]);
  expect(await journal.park(undefined)).toBe(true);
  expect(await store.runs.get(run.id)).toMatchObject({
    state: RunState.WAITING,
    steps: { running: 1 },
    pendingApprovals: [{ path: "ok", message: "Deploy to Bern?", requestTime: expect.anything() }],
  });
  expect((await store.events(run.id)).at(-1)?.kind).toMatchObject({ case: "waiting" });
  expect(store.jobs.sent.filter(({ runId }) => runId === run.id)).toHaveLength(1);

  expect(await store.runs.resolveApproval(run.id, "", yes)).toMatchObject({
    state: RunState.QUEUED,
    pendingApprovals: [],
  });
  const resumed = await store.claim(run.id, "worker-2");
  expect(resumed.run.steps.get("ok")).toMatchObject({ end: undefined, approval: yes });
  expect(await resumed.journal.answers()).toEqual(new Map([["ok", yes]]));
  // It would be let go of with an answer that nobody takes note of.
  expect(await resumed.journal.park(undefined)).toBe(false);
  await resumed.journal.record([entry("ok", { case: "approvalResolved", value: yes }), succeeded("ok", yes)]);
  expect(await resumed.journal.answers()).toEqual(new Map());
  await resumed.journal.finish({ state: "succeeded", output: null });
});

test("the worker of a run is told of an answer", async () => {
  const store = await openTestStore(database);
  const other = await openTestStore(database, { jobs: store.jobs });
  const told: (string | undefined)[] = [];
  store.claims.onAnswer((runId) => told.push(runId));
  const { run, journal } = await store.start();
  await journal.record([started("ok"), asks("ok")]);
  await other.runs.resolveApproval(run.id, "ok", yes);
  await expect.poll(() => told, { timeout: 20_000 }).toEqual([run.id]);
  expect(await journal.answers()).toEqual(new Map([["ok", yes]]));
  expect(store.jobs.sent.filter(({ runId }) => runId === run.id)).toHaveLength(1);
});

test("a step that has asked keeps its answer when it is begun once more", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  await journal.record([started("ok"), asks("ok")]);
  await store.runs.resolveApproval(run.id, "ok", yes);
  const taken = await store.claim(run.id, "worker-2", 1);
  await taken.journal.record([started("ok", 2), asks("ok")]);
  expect(await taken.journal.answers()).toEqual(new Map([["ok", yes]]));
  expect(await taken.journal.park(undefined)).toBe(false);
});

describe("an answer", () => {
  test("may be given again, but not changed", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    await journal.record([started("ok"), asks("ok")]);
    await store.runs.resolveApproval(run.id, "", yes);
    await store.runs.resolveApproval(run.id, "", { ...yes, by: "user:eve" });
    await store.runs.resolveApproval(run.id, "ok", yes);
    await expect(store.runs.resolveApproval(run.id, "ok", no)).rejects.toMatchObject({
      init: { code: Code.FailedPrecondition, reason: "APPROVAL_RESOLVED" },
      message: expect.stringContaining("by user:bob"),
    });
    await journal.record([entry("ok", { case: "approvalResolved", value: yes }), succeeded("ok")]);
    await journal.finish({ state: "succeeded", output: null });
    await store.runs.resolveApproval(run.id, "ok", yes);
    await expect(store.runs.resolveApproval(run.id, "", no)).rejects.toMatchObject({
      init: { reason: "APPROVAL_RESOLVED" },
    });
  });

  test("to what was not asked is refused with what was", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    await journal.record([planned("a", "ok[0]", "ok[1]"), started("a")]);
    await expect(store.runs.resolveApproval(run.id, "", yes)).rejects.toMatchObject({
      init: { code: Code.FailedPrecondition, reason: "NOT_WAITING_FOR_APPROVAL" },
      message: expect.stringContaining("nothing to answer"),
    });
    await journal.record([started("ok[0]"), asks("ok[0]"), started("ok[1]"), asks("ok[1]")]);
    await expect(store.runs.resolveApproval(run.id, "a", yes)).rejects.toMatchObject({
      message: expect.stringContaining('it waits for "ok[0]", "ok[1]"'),
    });
    await expect(store.runs.resolveApproval(run.id, "", yes)).rejects.toMatchObject({
      init: { code: Code.InvalidArgument },
      message: expect.stringContaining('"ok[0]", "ok[1]"'),
    });
    await store.runs.resolveApproval(run.id, "ok[1]", no);
    await store.runs.resolveApproval(run.id, "", yes);
    expect([...(await journal.answers()).keys()]).toEqual(["ok[0]", "ok[1]"]);
  });

  test("that comes after the deadline is refused, and so is one after the default", async () => {
    const clock = createFakeClock();
    const store = await openTestStore(database, { clock });
    const { run, journal } = await store.start();
    const deadline = timestampFromMs(clock.now() + 1_000);
    const ask = entry("ok", { case: "approvalRequested", value: { path: "ok", message: "?", deadline } });
    await journal.record([started("ok"), ask]);
    expect((await store.runs.get(run.id)).pendingApprovals).toMatchObject([{ deadline }]);
    clock.advance(1_000);
    await expect(store.runs.resolveApproval(run.id, "ok", yes)).rejects.toMatchObject({
      init: { reason: "NOT_WAITING_FOR_APPROVAL" },
    });
    const none = { approved: false, comment: "", by: "" };
    await journal.record([entry("ok", { case: "approvalResolved", value: none }), finished("ok", 5)]);
    await expect(store.runs.resolveApproval(run.id, "ok", yes)).rejects.toMatchObject({
      init: { reason: "APPROVAL_RESOLVED" },
    });
    await store.runs.resolveApproval(run.id, "ok", no);
  });

  test("to a run that is not there is refused", async () => {
    const { runs } = await openTestStore(database);
    await expect(runs.resolveApproval("nowhere", "", yes)).rejects.toMatchObject({
      init: { code: Code.NotFound, reason: "RUN_NOT_FOUND" },
    });
  });

  test("is never lost when the run is let go of at the same time", async () => {
    const store = await openTestStore(database);
    const other = await openTestStore(database, { jobs: store.jobs });
    const seen = { parked: 0, kept: 0 };
    for (let round = 0; round < 120; round++) {
      const { run, journal } = await store.start();
      await journal.record([started("ok"), asks("ok")]);
      const resolve = () => other.runs.resolveApproval(run.id, "", yes);
      const park = () => journal.park(round % 4 < 2 ? undefined : Date.now() + 3_600_000);
      // One after the other at first, so that there is each outcome; then at once.
      const isOrdered = round < 4;
      let isParked: boolean;
      if (round % 2 === 0) {
        const parking = park();
        if (isOrdered) {
          await parking;
        }
        await resolve();
        isParked = await parking;
      } else {
        const resolving = resolve();
        if (isOrdered) {
          await resolving;
        }
        isParked = await park();
        await resolving;
      }
      if (isParked) {
        seen.parked += 1;
        const resumed = await other.claim(run.id, "worker-2");
        expect(resumed.run.steps.get("ok")?.approval).toEqual(yes);
        expect(store.jobs.lastOf(run.id)).not.toHaveProperty("startAfter");
      } else {
        seen.kept += 1;
        expect(await journal.answers()).toEqual(new Map([["ok", yes]]));
      }
    }
    expect(seen.parked).toBeGreaterThan(0);
    expect(seen.kept).toBeGreaterThan(0);
  });
});
