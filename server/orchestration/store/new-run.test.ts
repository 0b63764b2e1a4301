import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  RunKind,
  RunSourceSchema,
  RunState,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openTestStore, type TestStore } from "./test-support/open-store.ts";
import {
  failed,
  finished,
  newRun,
  planned,
  started,
  stepsOf,
  succeeded,
  workflowSource,
} from "./test-support/runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const streams = () => database.kysely.selectFrom("event_streams").select("name").execute();

describe("a request", () => {
  test("that is repeated, at once or later, returns the same run", async () => {
    const store = await openTestStore(database);
    const other = await openTestStore(database, { jobs: store.jobs });
    const request = { id: crypto.randomUUID(), fingerprint: "one" };
    const before = await streams();
    const made = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        (index % 2 === 0 ? store : other).runs.create(newRun({ request })),
      ),
    );
    const again = await store.runs.create(newRun({ request }));
    expect(new Set([...made, again].map(({ id }) => id)).size).toBe(1);
    expect(await streams()).toHaveLength(before.length + 1);
  });

  test("whose id was used for something else is refused", async () => {
    const { runs } = await openTestStore(database);
    const id = crypto.randomUUID();
    await runs.create(newRun({ request: { id, fingerprint: "one" } }));
    await expect(runs.create(newRun({ request: { id, fingerprint: "two" } }))).rejects.toMatchObject({
      init: { code: Code.InvalidArgument, fields: [{ field: "request_id", reason: "REQUEST_ID_REUSED" }] },
    });
    // Ids are each caller's own.
    const principal = { id: "user:bob", role: "caller" } as const;
    await runs.create(newRun({ principal, request: { id, fingerprint: "two" } }));
  });
});

test("a full queue refuses runs and leaves nothing behind", async () => {
  const full = await openTestDatabase();
  try {
    const store = await openTestStore(full, { maxQueuedRuns: 2 });
    const { id } = await store.runs.create(newRun());
    await store.runs.create(newRun());
    await expect(store.runs.create(newRun())).rejects.toMatchObject({
      init: { code: Code.ResourceExhausted, reason: "RUN_QUEUE_FULL" },
    });
    expect(await full.kysely.selectFrom("event_streams").select("name").execute()).toHaveLength(2);
    // One that a worker has is none that waits.
    await store.claim(id);
    await store.runs.create(newRun());
    await store.close();
    await store.eventLog.close();
  } finally {
    await full.close();
  }
});

test("what a run was started with is given back, and to its worker", async () => {
  const store = await openTestStore(database);
  const agents = create(RunSourceSchema, {
    kind: { case: "agentTasks", value: { tasks: [{ agent: "writer", task: "write" }] } },
  });
  const { id, kind } = await store.runs.create(
    newRun({
      source: agents,
      agents: [create(AgentSchema, { name: "writer", prompt: "Write!" })],
      title: "writer\0\ud800",
      parent: { runId: "above", depth: 2 },
      schedule: "nightly",
    }),
  );
  expect(kind).toBe(RunKind.AGENT_TASKS);
  expect(await store.runs.source(id)).toEqual(agents);
  expect((await store.runs.origin(id)).principal.id).toBe("user:ada");
  expect(await store.runs.get(id)).toMatchObject({
    title: "writer\ufffd\ufffd",
    parentRunId: "above",
    schedule: "nightly",
  });
  const { run } = await store.claim(id);
  expect(run).toMatchObject({ depth: 2, source: agents, agents: [{ name: "writer", prompt: "Write!" }] });
  for (const ask of [store.runs.get, store.runs.source, store.runs.origin]) {
    await expect(ask("nowhere")).rejects.toMatchObject({ init: { reason: "RUN_NOT_FOUND" } });
  }
});

describe("a retry", () => {
  async function failedRun(store: TestStore): Promise<string> {
    const { run, journal } = await store.start();
    await journal.record([
      ...[started("a"), succeeded("a", { from: "a" })],
      ...[started("list"), succeeded("list[0]", 0), failed("list[1]"), failed("list")],
      ...[started("done"), succeeded("done/turn1"), failed("done/turn1/call1"), succeeded("done")],
      ...[started("review"), succeeded("review/turn1"), succeeded("review/turn1/call1", 1)],
      ...[failed("review/turn1/call2"), finished("review/turn1/call3", StepState.CANCELLED)],
      ...[failed("review/turn2"), succeeded("review/turn2/call1"), failed("review")],
      finished("after", StepState.SKIPPED, { error: { code: 10 } }),
    ]);
    await journal.finish({ state: "failed", error: new Error("no") });
    return run.id;
  }

  test("takes over what had succeeded, and what that consists of", async () => {
    const store = await openTestStore(database);
    const of = await failedRun(store);
    const made = await store.runs.create(newRun({ retry: { of, anew: new Set() } }));
    expect(made).toMatchObject({
      retryOf: of,
      state: RunState.QUEUED,
      steps: { total: 8, succeeded: 6, failed: 2 },
    });
    const { run, journal } = await store.claim(made.id);
    expect([...run.steps.keys()]).toEqual([
      "a",
      "list[0]",
      "done",
      "done/turn1",
      "done/turn1/call1",
      "review/turn1",
      "review/turn1/call1",
      "review/turn1/call2",
    ]);
    expect(run).toMatchObject({ isNew: true, retryOf: of, takeovers: 0 });
    expect(run.steps.get("a")?.end).toMatchObject({
      state: "succeeded",
      output: { from: "a" },
      reused: true,
    });
    await journal.record([planned("a", "list", "done", "review")]);
    await journal.record([started("list"), succeeded("list[1]"), succeeded("list")]);
    // Whoever watches sees what was taken over.
    const [, , plan, a, item] = await store.events(made.id);
    expect(plan?.kind.case).toBe("planned");
    expect([a, item].map((event) => event?.kind.value)).toMatchObject([
      { step: { path: "a", reused: true, state: StepState.SUCCEEDED, outputBytes: 12n } },
      { step: { path: "list[0]", reused: true } },
    ]);
    expect(await store.told(made.id)).toHaveLength(3 + 8 + 3);
    const { items } = await store.runs.listSteps(stepsOf(made.id, { paths: ["list"] }));
    expect(items.map(({ path, reused }) => [path, reused])).toEqual([
      ["list[0]", true],
      ["list", false],
      ["list[1]", false],
    ]);
    expect((await store.runs.get(made.id)).steps).toMatchObject({ total: 11, succeeded: 8 });
  });

  test("does again what it is told to, with all that is below", async () => {
    const store = await openTestStore(database);
    const of = await failedRun(store);
    const { id } = await store.runs.create(
      newRun({ retry: { of, anew: new Set(["done", "list", "review"]) } }),
    );
    const { run } = await store.claim(id);
    expect([...run.steps.keys()]).toEqual(["a"]);
  });

  test("of a run that succeeded, goes on or is not there is refused", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    const retry = (of: string) => store.runs.create(newRun({ retry: { of, anew: new Set() } }));
    await expect(retry(run.id)).rejects.toMatchObject({ init: { reason: "RUN_NOT_RETRYABLE" } });
    await journal.finish({ state: "succeeded", output: null });
    await expect(retry(run.id)).rejects.toMatchObject({ init: { reason: "RUN_NOT_RETRYABLE" } });
    await expect(retry("nowhere")).rejects.toMatchObject({ init: { reason: "RUN_NOT_FOUND" } });
  });
});

test("whoever waits for a run's end is told of it on any replica", async () => {
  const store = await openTestStore(database);
  const other = await openTestStore(database, { jobs: store.jobs });
  const { run, journal } = await store.start(newRun({ source: workflowSource("w") }));
  const never = new AbortController();
  const waiting = other.runs.waitForEnd(run.id, 60_000, never.signal);
  await journal.finish({ state: "succeeded", output: 1 });
  expect((await waiting).state).toBe(RunState.SUCCEEDED);

  const { run: long } = await store.start();
  const left = other.runs.waitForEnd(long.id, 60_000, never.signal);
  never.abort();
  expect((await left).state).toBe(RunState.RUNNING);
});
