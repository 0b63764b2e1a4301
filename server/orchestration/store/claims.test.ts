import { Code } from "@connectrpc/connect";
import { RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { LostRunError } from "../engine/journal.ts";
import { openTestStore } from "./test-support/open-store.ts";
import { asks, entry, failed, finished, newRun, planned, started, succeeded } from "./test-support/runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

test("of many workers that claim a run at once, one has it", async () => {
  const one = await openTestStore(database);
  const other = await openTestStore(database, { jobs: one.jobs });
  const { id } = await one.runs.create(newRun());
  const claims = await Promise.all(
    Array.from({ length: 12 }, (_, index) =>
      (index % 2 === 0 ? one : other).claims.claim(one.jobs.lastOf(id), `worker-${index}`),
    ),
  );
  expect(claims.filter((claim) => claim !== undefined)).toHaveLength(1);
  expect(await one.told(id)).toEqual(["created", "started"]);
  expect(await one.runs.get(id)).toMatchObject({ state: RunState.RUNNING, takeovers: 0 });
});

test("a worker that did not hear that it has a run claims it again", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  const again = await store.claim(run.id);
  expect(again.run.epoch).toBe(2);
  await expect(journal.record([started("a")])).rejects.toBeInstanceOf(LostRunError);
});

test("a run that its worker has let go of goes on, without having waited and without anybody's death", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  await journal.record([planned("a"), started("a")]);
  await journal.release();
  const { run: taken } = await store.claim(run.id, "worker-2", 1);
  expect(taken).toMatchObject({ takeovers: 0 });
  expect(taken.steps.get("a")).toMatchObject({ attempts: 0 });
  expect((await store.events(run.id)).at(-1)?.kind.value).toMatchObject({ takeover: false, resumed: false });
});

test.each(["record", "finish", "park"] as const)(
  "a worker whose run another has taken over can no longer %s",
  async (what) => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    await journal.record([planned("a"), started("a")]);
    const { run: taken } = await store.claim(run.id, "worker-2", 1);
    expect(taken).toMatchObject({ epoch: 2, takeovers: 1, isNew: false });
    const late = {
      record: () => journal.record([succeeded("a")]),
      finish: () => journal.finish({ state: "succeeded", output: null }),
      park: () => journal.park(undefined),
    };
    await expect(late[what]()).rejects.toBeInstanceOf(LostRunError);
    // And has nothing to say from then on.
    await expect(journal.record([failed("a")])).rejects.toBeInstanceOf(LostRunError);
    expect(await store.told(run.id)).toEqual(["created", "started", "planned", "stepStarted", "started"]);
    const [, , , , event] = await store.events(run.id);
    expect(event?.kind.value).toMatchObject({ worker: "worker-2", takeover: true, resumed: false });
    expect(await store.runs.get(run.id)).toMatchObject({ state: RunState.RUNNING, takeovers: 1 });
  },
);

test("whoever takes a run over knows all that was recorded of its steps", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start({ retry: undefined });
  const big = "x".repeat(300_000);
  await journal.record([
    planned("a", "b", "c", "d", "e", "f"),
    started("a"),
    succeeded("a", { big }),
    started("b", 1),
    entry("b", { case: "stepRetrying", value: { attempt: 1, error: { code: 14 } } }, 1_800_000_000_000),
    failed("c", "no answer"),
    finished("d", StepState.SKIPPED),
    finished("e", StepState.SKIPPED, { error: { code: 10 } }),
    started("f"),
    entry("f", { case: "stepProgress", value: { childId: "run-2" } }),
    succeeded("f/turn1", ["hello"]),
  ]);
  const { run: taken } = await store.claim(run.id, "worker-2", 1);
  expect(taken.steps.get("a")).toMatchObject({
    attempts: 1,
    end: { state: "succeeded", output: { big } },
  });
  expect(taken.steps.get("b")).toMatchObject({
    attempts: 1,
    failures: 1,
    end: undefined,
    wakeTime: 1_800_000_000_000,
  });
  expect(taken.steps.get("c")?.end).toMatchObject({
    state: "failed",
    error: { code: Code.Unavailable, message: "no answer" },
  });
  expect(taken.steps.get("d")?.end).toEqual({ state: "skipped", cause: "condition" });
  expect(taken.steps.get("e")?.end).toEqual({ state: "skipped", cause: "failure" });
  expect(taken.steps.get("f")).toMatchObject({ attempts: 1, end: undefined });
  expect(taken.steps.get("f/turn1")?.end).toMatchObject({ state: "succeeded", output: ["hello"] });
  expect([...taken.steps.keys()]).toEqual(["a", "b", "c", "d", "e", "f", "f/turn1"]);
});

test("a run that takes its workers down with it fails in the end, unless its steps get on", async () => {
  const store = await openTestStore(database);
  const { id } = await store.runs.create(newRun());
  for (let retry = 0; retry <= 49; retry++) {
    await store.claim(id, `worker-${retry}`, retry);
  }
  // A step that ends is a reason to go on.
  const { journal } = await store.claim(id, "worker-50", 50);
  await journal.record([started("a"), succeeded("a")]);
  for (let retry = 51; retry <= 100; retry++) {
    const { journal: later } = await store.claim(id, `worker-${retry}`, retry);
    await later.record([started("b", retry)]);
  }
  expect(await store.claims.claim(store.jobs.lastOf(id, 101), "worker-101")).toBeUndefined();
  const over = await store.runs.get(id);
  expect(over).toMatchObject({
    state: RunState.FAILED,
    takeovers: 101,
    steps: { total: 2, succeeded: 1, cancelled: 1, running: 0 },
  });
  expect(over.error?.message).toContain("51 workers died with the run");
  expect((await store.told(id)).slice(-2)).toEqual(["stepFinished", "finished"]);
});

describe("a job", () => {
  test("of a run that has ended has nothing to do", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    const job = store.jobs.lastOf(run.id, 1);
    await journal.finish({ state: "succeeded", output: 1 });
    expect(await store.claims.claim(job, "worker-2")).toBeUndefined();
  });

  test("of a run that is not there has nothing to do", async () => {
    const { claims } = await openTestStore(database);
    const job = { id: crypto.randomUUID(), runId: "nowhere", retryCount: 0 };
    expect(await claims.claim(job, "worker-1")).toBeUndefined();
  });

  test("that another one has replaced has nothing to do", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    const old = store.jobs.lastOf(run.id, 1);
    await journal.record([started("ok"), asks("ok")]);
    const until = Date.now() + 60_000;
    expect(await journal.park(until)).toBe(true);
    expect(store.jobs.sent.at(-1)).toMatchObject({ runId: run.id, startAfter: until });
    expect(await store.claims.claim(old, "worker-2")).toBeUndefined();

    const { run: resumed } = await store.claim(run.id, "worker-2");
    expect(resumed).toMatchObject({ epoch: 2, takeovers: 0 });
    const events = await store.events(run.id);
    expect(events.at(-1)?.kind.value).toMatchObject({ takeover: false, resumed: true });
  });
});
