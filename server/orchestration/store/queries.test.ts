import { create } from "@bufbuild/protobuf";
import { RunFilterSchema } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import {
  RunKind,
  RunState,
  type RunStep,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openTestStore, type TestStore } from "./test-support/open-store.ts";
import {
  asks,
  entry,
  failed,
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

describe("lists of runs", () => {
  async function idsOf(store: TestStore, filter: Parameters<typeof create<typeof RunFilterSchema>>[1]) {
    const ids: string[] = [];
    let pageToken = "";
    do {
      const page = await store.runs.list(create(RunFilterSchema, filter), { pageSize: 3, pageToken });
      ids.push(...page.items.map(({ id }) => id));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return ids;
  }

  test("are in pages, the newest first, and of those that are asked for", async () => {
    const store = await openTestStore(database);
    const made: string[] = [];
    for (let index = 0; index < 8; index++) {
      const labels = { suite: "list", parity: index % 2 === 0 ? "even" : "odd" };
      const source = workflowSource(index < 4 ? "first" : "second");
      const parent = index === 7 ? { runId: made[0] ?? "", depth: 1 } : undefined;
      made.push((await store.runs.create(newRun({ labels, source, parent }))).id);
    }
    const newest = made.toReversed();
    expect(await idsOf(store, { labels: { suite: "list" } })).toEqual(newest);
    expect(await idsOf(store, { labels: { suite: "list", parity: "odd" } })).toEqual(
      newest.filter((_, index) => index % 2 === 0),
    );
    expect(await idsOf(store, { name: "first", labels: { suite: "list" } })).toEqual(newest.slice(4));
    expect(await idsOf(store, { parentRunId: made[0] ?? "" })).toEqual(newest.slice(0, 1));
    expect(await idsOf(store, { kinds: [RunKind.REQUIREMENT] })).toEqual([]);
    await store.claim(made[2] ?? "");
    expect(await idsOf(store, { states: [RunState.RUNNING], labels: { suite: "list" } })).toEqual([made[2]]);
  });

  test("leave outputs out, and have the approvals that runs wait for", async () => {
    const store = await openTestStore(database);
    const done = await store.start(newRun({ labels: { suite: "outputs" } }));
    await done.journal.finish({ state: "succeeded", output: "much" });
    const asking = await store.start(newRun({ labels: { suite: "outputs" } }));
    await asking.journal.record([started("ok"), asks("ok"), started("b"), asks("b")]);
    const { items } = await store.runs.list(create(RunFilterSchema, { labels: { suite: "outputs" } }), {
      pageSize: 0,
      pageToken: "",
    });
    expect(items).toMatchObject([
      { id: asking.run.id, pendingApprovals: [{ path: "ok" }, { path: "b" }] },
      { id: done.run.id, pendingApprovals: [] },
    ]);
    expect(items[1]?.output).toBeUndefined();
  });

  test("refuse the page of another list", async () => {
    const store = await openTestStore(database);
    await store.runs.create(newRun({ labels: { suite: "token" } }));
    await store.runs.create(newRun({ labels: { suite: "token" } }));
    const filter = create(RunFilterSchema, { labels: { suite: "token" } });
    const { nextPageToken } = await store.runs.list(filter, { pageSize: 1, pageToken: "" });
    await expect(store.runs.list(undefined, { pageSize: 1, pageToken: nextPageToken })).rejects.toMatchObject(
      {
        init: { fields: [{ reason: "INVALID_PAGE_TOKEN" }] },
      },
    );
  });
});

describe("lists of steps", () => {
  async function pages(store: TestStore, runId: string, request: Parameters<typeof stepsOf>[1] = {}) {
    const found: RunStep[][] = [];
    let pageToken = "";
    do {
      const page = await store.runs.listSteps(stepsOf(runId, { ...request, pageToken }));
      found.push([...page.items]);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return found;
  }
  const pathsIn = (found: RunStep[][]) => found.map((page) => page.map(({ path }) => path));

  test("are in pages in the order in which they were first known", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    await journal.record([
      planned("z", "a", "m"),
      started("a"),
      started("a/turn1"),
      started("m[0]"),
      succeeded("z"),
    ]);
    expect(pathsIn(await pages(store, run.id, { pageSize: 2 }))).toEqual([
      ["z", "a"],
      ["m", "a/turn1"],
      ["m[0]"],
    ]);
  });

  test("are of those at or below paths, and in states", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    const paths = ["a", "a/turn1", "a/turn1/call1", "ab", "a[1]", "a[1]/turn1", "a_b", "b"];
    await journal.record(paths.map((path) => started(path)));
    await journal.record([succeeded("a/turn1"), failed("b")]);
    const asked = async (request: Parameters<typeof stepsOf>[1]) =>
      pathsIn(await pages(store, run.id, request)).flat();
    expect(await asked({ paths: ["a"] })).toEqual(["a", "a/turn1", "a/turn1/call1", "a[1]", "a[1]/turn1"]);
    expect(await asked({ paths: ["a/turn1", "b"] })).toEqual(["a/turn1", "a/turn1/call1", "b"]);
    expect(await asked({ states: [StepState.SUCCEEDED, StepState.FAILED] })).toEqual(["a/turn1", "b"]);
    expect(await asked({ states: [StepState.RUNNING], paths: ["b"] })).toEqual([]);
  });

  test("are cut where outputs are large", async () => {
    const store = await openTestStore(database);
    const { run, journal } = await store.start();
    const output = "x".repeat(900_000);
    for (const path of ["a", "b", "c", "d"]) {
      await journal.record([succeeded(path, output)]);
    }
    expect(pathsIn(await pages(store, run.id))).toEqual([["a", "b", "c"], ["d"]]);
    const [whole] = await pages(store, run.id, { withoutOutput: true });
    expect(whole).toHaveLength(4);
    expect(whole?.[0]).toMatchObject({ outputBytes: 900_002n });
    expect(whole?.[0]?.output).toBeUndefined();
  });

  test("of a run that is not there are refused", async () => {
    const { runs } = await openTestStore(database);
    await expect(runs.listSteps(stepsOf("nowhere"))).rejects.toMatchObject({
      init: { reason: "RUN_NOT_FOUND" },
    });
  });
});

test("secrets are in no event and nothing that is told, and whole for those who work with them", async () => {
  const secret = 'sk-"quoted"\\secret\n123456';
  const secrets: string[] = [];
  const store = await openTestStore(database, { secrets: () => secrets });
  const { run, journal } = await store.start(
    newRun({ title: `do ${secret}`, source: workflowSource("w", { [secret]: [secret] }) }),
  );
  secrets.push(secret);
  const output = { text: `it is ${secret}`, [secret]: 1 };
  await journal.record([
    started("a", 1, { key: secret }),
    entry("a", { case: "modelDelta", value: { text: secret } }),
    succeeded("a", output),
    failed("b", `bad key ${secret}`),
    asks("c", secret),
  ]);
  const told = JSON.stringify(
    [await store.runs.listSteps(stepsOf(run.id)), await store.runs.get(run.id)],
    plain,
  );
  expect(told).toContain("it is ***");
  expect(told).toContain("bad key ***");
  expect(told).not.toContain("quoted");
  const { run: taken } = await store.claim(run.id, "worker-2", 1);
  expect(taken.steps.get("a")?.end).toMatchObject({ output });
  const claimed = await store.claim(run.id, "worker-3", 2);
  await claimed.journal.finish({ state: "failed", error: new Error(secret), output: [output] });
  expect(JSON.stringify(await store.runs.get(run.id), plain)).not.toContain("quoted");
  // What was told before the secret was known cannot be taken back.
  const [, ...events] = await store.events(run.id);
  expect(events.length).toBeGreaterThan(6);
  expect(JSON.stringify(events, plain)).not.toContain("quoted");
});

function plain(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}
