import { create, fromJson, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { RunKind, RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openTestStore } from "./test-support/open-store.ts";
import { failed, newRun, planned, started, stepsOf, succeeded } from "./test-support/runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

test("a run from its making to its end", async () => {
  const store = await openTestStore(database);
  const made = await store.runs.create(newRun());
  expect(made).toMatchObject({
    kind: RunKind.WORKFLOW,
    state: RunState.QUEUED,
    title: "deploy",
    workflowVersion: 3,
    input: { city: "Bern" },
    labels: { team: "shop" },
    createdBy: "user:ada",
    lastSequence: 1n,
  });
  expect(await store.runs.get(made.id)).toEqual(made);

  const { run, journal } = await store.claim(made.id);
  expect(run).toMatchObject({
    id: made.id,
    epoch: 1,
    isNew: true,
    takeovers: 0,
    principal: { id: "user:ada", role: "caller" },
    depth: 0,
    cancelled: undefined,
  });
  await journal.record([planned("a", "b")]);
  await journal.record([started("a"), started("b")]);
  journal.setUsage(create(UsageSchema, { turns: 2, inputTokens: 100n }));
  await journal.record([succeeded("a", { degrees: 21 })]);
  expect(await store.runs.get(made.id)).toMatchObject({
    state: RunState.RUNNING,
    steps: { total: 2, running: 1, succeeded: 1 },
    usage: { turns: 2, inputTokens: 100n },
    lastSequence: 6n,
  });
  await journal.record([failed("b", "no answer")]);
  await journal.finish({ state: "failed", error: new Error("secret details"), output: ["partial"] });

  const over = await store.runs.get(made.id);
  expect(over).toMatchObject({
    state: RunState.FAILED,
    steps: { total: 2, running: 0, succeeded: 1, failed: 1 },
    error: { code: Code.Internal },
    lastSequence: 8n,
  });
  expect(toJson(ValueSchema, over.output ?? fromJson(ValueSchema, null))).toEqual(["partial"]);
  const events = await store.events(made.id);
  expect(events.map(({ kind }) => kind.case)).toEqual([
    "created",
    "started",
    "planned",
    "stepStarted",
    "stepStarted",
    "stepFinished",
    "stepFinished",
    "finished",
  ]);
  expect(events.at(-1)?.kind.value).toEqual(over);
  expect(events.every(({ time }) => time !== undefined)).toBe(true);

  const { items } = await store.runs.listSteps(stepsOf(made.id));
  expect(items).toMatchObject([
    { path: "a", state: StepState.SUCCEEDED, attempts: 1, outputBytes: 14n, target: "weather.get" },
    { path: "b", state: StepState.FAILED, error: { code: Code.Unavailable, message: "no answer" } },
  ]);
});
