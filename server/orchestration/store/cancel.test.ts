import { Code } from "@connectrpc/connect";
import { RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { LostRunError } from "../engine/journal.ts";
import { openTestStore } from "./test-support/open-store.ts";
import { asks, entry, newRun, planned, started, stepsOf, succeeded } from "./test-support/runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

test("a run that waits for a worker ends at once", async () => {
  const store = await openTestStore(database);
  const { id } = await store.runs.create(newRun());
  const over = await store.runs.cancel(id, "user:bob", "not needed");
  expect(over).toMatchObject({
    state: RunState.CANCELLED,
    error: { code: Code.Canceled, message: "not needed" },
    lastSequence: 3n,
  });
  expect(await store.told(id)).toEqual(["created", "cancelRequested", "finished"]);
  expect((await store.events(id)).at(-1)?.kind.value).toEqual(over);
  expect(await store.claims.claim(store.jobs.lastOf(id), "worker-1")).toBeUndefined();
  expect(await store.runs.cancel(id, "user:eve", "once more")).toEqual(over);
});

test("a run that waits for a person ends at once, with its open steps", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  await journal.record([planned("a", "ok", "z"), started("a"), succeeded("a"), started("ok"), asks("ok")]);
  await journal.park(undefined);
  const over = await store.runs.cancel(run.id, "user:bob", "");
  expect(over).toMatchObject({
    state: RunState.CANCELLED,
    error: { message: "The run was cancelled by user:bob" },
    steps: { total: 3, succeeded: 1, cancelled: 2, running: 0 },
    pendingApprovals: [],
  });
  const { items } = await store.runs.listSteps(stepsOf(run.id, { states: [StepState.CANCELLED] }));
  expect(items.map(({ path }) => path)).toEqual(["ok", "z"]);
  expect((await store.told(run.id)).slice(-4)).toEqual([
    "cancelRequested",
    "stepFinished",
    "stepFinished",
    "finished",
  ]);
});

test("the worker of a run is told once that it is to stop, on whichever replica", async () => {
  const store = await openTestStore(database);
  const other = await openTestStore(database, { jobs: store.jobs });
  const told: string[] = [];
  store.claims.onCancel((...news) => told.push(news.join(" ")));
  other.claims.onCancel(() => told.push("not mine"));
  const { run, journal } = await store.start();

  const running = await other.runs.cancel(run.id, "user:bob", "stop it");
  expect(running.state).toBe(RunState.RUNNING);
  await other.runs.cancel(run.id, "user:eve", "stop it now");
  await expect.poll(() => told, { timeout: 20_000 }).toContain(`${run.id} user:bob stop it`);
  expect(new Set(told)).toEqual(new Set([`${run.id} user:bob stop it`]));

  await journal.finish({ state: "cancelled", by: "user:bob", message: "stop it" });
  expect(await store.told(run.id)).toEqual(["created", "started", "cancelRequested", "finished"]);
  expect(await store.runs.get(run.id)).toMatchObject({ state: RunState.CANCELLED, lastSequence: 4n });
});

test("a worker that missed the news hears of it with the next thing that it records", async () => {
  const store = await openTestStore(database);
  const deaf = { ...database, listen: async () => ({ close: async () => undefined }) };
  const worker = await openTestStore(deaf, { jobs: store.jobs });
  const told: string[] = [];
  worker.claims.onCancel((runId, by) => told.push(`${runId} ${by}`));
  const { run, journal } = await worker.start();
  await store.runs.cancel(run.id, "user:bob", "");
  expect(told).toEqual([]);
  await journal.record([started("a")]);
  expect(told).toEqual([`${run.id} user:bob`]);
  // A run that is to be cancelled is not let go of.
  expect(await journal.park(undefined)).toBe(false);
  expect(told).toHaveLength(2);
});

test("whoever takes a run over knows that it is to be cancelled", async () => {
  const store = await openTestStore(database);
  const { run } = await store.start();
  await store.runs.cancel(run.id, "user:bob", "stop it");
  const { run: taken } = await store.claim(run.id, "worker-2", 1);
  expect(taken.cancelled).toEqual({ by: "user:bob", message: "stop it" });
});

test("a run ends once, however its cancelling, ending, parking and claiming fall together", async () => {
  const store = await openTestStore(database);
  const other = await openTestStore(database, { jobs: store.jobs });
  const ends = new Map<number, number>();
  for (let round = 0; round < 120; round++) {
    const { id } = await store.runs.create(newRun());
    const isClaimedFirst = round % 3 !== 0;
    const first = isClaimedFirst ? await store.claim(id) : undefined;
    await first?.journal.record([planned("a"), started("a")]);
    const work = async () => {
      const claimed = first ?? (await store.claims.claim(store.jobs.lastOf(id), "worker-1"));
      if (round % 2 === 0 && (await claimed?.journal.park(undefined)) === true) {
        return;
      }
      await claimed?.journal.finish({ state: "succeeded", output: null });
    };
    const results = await Promise.allSettled([
      work(),
      other.runs.cancel(id, "user:bob", ""),
      store.runs.cancel(id, "user:eve", ""),
    ]);
    for (const result of results) {
      expect(result.status === "fulfilled" || result.reason instanceof LostRunError).toBe(true);
    }
    // Whoever had cancelled a run that was let go of only then has ended it.
    const { state, lastSequence } = await store.runs.get(id);
    const told = await store.told(id);
    expect(told.filter((kind) => kind === "finished")).toHaveLength(1);
    expect(told.filter((kind) => kind === "cancelRequested").length).toBeLessThanOrEqual(1);
    expect(told.at(-1)).toBe("finished");
    expect(told).toHaveLength(Number(lastSequence));
    ends.set(state, (ends.get(state) ?? 0) + 1);
  }
  expect([...ends.keys()].toSorted()).toEqual([RunState.SUCCEEDED, RunState.CANCELLED]);
});

test.each(["that no worker has", "that another worker has taken over"])(
  "a run %s is cancelled with the runs that it has started",
  async (which) => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    const child = await store.runs.create(newRun({ parent: { runId: run.id, depth: 1 } }));
    await journal.record([
      planned("a"),
      entry("a", { case: "stepStarted", value: { kind: "workflow", target: "deploy", attempt: 1 } }),
      entry("a", { case: "stepProgress", value: { childId: child.id } }),
    ]);
    if (which === "that no worker has") {
      await journal.release();
      await store.runs.cancel(run.id, "user:bob", "enough");
    } else {
      await store.runs.cancel(run.id, "user:bob", "enough");
      const taken = await store.claim(run.id, "worker-2", 1);
      await taken.journal.finish({ state: "cancelled", by: "user:bob", message: "enough" });
    }
    expect(await store.runs.get(run.id)).toMatchObject({ state: RunState.CANCELLED });
    await expect.poll(() => store.runs.get(child.id)).toMatchObject({ state: RunState.CANCELLED });
    expect(await store.events(child.id)).toContainEqual(
      expect.objectContaining({
        kind: expect.objectContaining({ value: expect.objectContaining({ by: "user:bob" }) }),
      }),
    );
  },
);
