import { create } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Append } from "../../event-log/event-log.ts";
import { openTestLog } from "../../event-log/testing.ts";
import type { Database } from "../../storage/database.ts";
import { databaseUnavailable } from "../../storage/database-error.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { LostRunError } from "../engine/journal.ts";
import { openTestStore } from "./test-support/open-store.ts";
import {
  entry,
  failed,
  finished,
  newRun,
  planned,
  started,
  stepsOf,
  succeeded,
} from "./test-support/runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

/** An event log that says what is appended. */
async function observedLog(onAppend: (append: Append) => void) {
  const log = await openTestLog(database);
  return {
    ...log,
    append(append: Append) {
      onAppend(append);
      return log.append(append);
    },
  };
}

test("what is recorded at the same time shares appends, in order", async () => {
  const sizes: number[] = [];
  const eventLog = await observedLog(({ events }) => sizes.push(events.length));
  const store = await openTestStore(database, { eventLog });
  const { run, journal } = await store.start();
  sizes.length = 0;
  const paths = Array.from({ length: 200 }, (_, index) => `item[${index}]`);
  await Promise.all(
    paths.flatMap((path) => [journal.record([started(path)]), journal.record([succeeded(path)])]),
  );
  expect(sizes).toEqual([400]);
  const events = (await store.events(run.id)).slice(2);
  expect(events.map(({ path }) => path)).toEqual(paths.flatMap((path) => [path, path]));
  expect(await store.runs.get(run.id)).toMatchObject({ steps: { total: 200, succeeded: 200 } });
});

test("ten thousand steps are written in bounded parts", async () => {
  const sizes: number[] = [];
  const eventLog = await observedLog(({ events }) => sizes.push(events.length));
  const store = await openTestStore(database, { eventLog });
  const { run, journal } = await store.start();
  const paths = Array.from({ length: 10_000 }, (_, index) => `item[${index}]`);
  void journal.record(paths.map((path) => started(path)));
  await Promise.all(paths.map((path, index) => journal.record([succeeded(path, { index })])));
  expect(Math.max(...sizes)).toBeLessThanOrEqual(500);
  expect(sizes.length).toBeLessThan(60);
  expect(await store.runs.get(run.id)).toMatchObject({
    steps: { total: 10_000, succeeded: 10_000 },
    lastSequence: 20_002n,
  });
  const { run: taken } = await store.claim(run.id, "worker-2", 1);
  expect([...taken.steps.keys()]).toEqual(paths);
  expect(taken.steps.get("item[9999]")?.end).toMatchObject({ output: { index: 9_999 } });
}, 60_000);

test("a step that is begun anew after its end counts once", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  await journal.record([started("a"), failed("a"), started("a", 2)]);
  expect((await store.runs.get(run.id)).steps).toMatchObject({ total: 1, running: 1, failed: 0 });
  await journal.record([succeeded("a")]);
  const { items } = await store.runs.listSteps(stepsOf(run.id));
  expect(items).toMatchObject([{ path: "a", state: StepState.SUCCEEDED, attempts: 2 }]);
  expect(items[0]?.error).toBeUndefined();
});

test("what models have used up is recorded with what comes next", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  journal.setUsage(create(UsageSchema, { turns: 1, costUsd: 0.25 }));
  await journal.record([started("a")]);
  expect((await store.runs.get(run.id)).usage).toMatchObject({ turns: 1, costUsd: 0.25 });
  journal.setUsage(create(UsageSchema, { turns: 2 }));
  expect((await store.claim(run.id, "worker-2", 1)).run.usage).toMatchObject({ turns: 1 });
});

test("events leave large inputs and outputs out, which steps have", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  const input = "i".repeat(17 * 1024);
  const output = "o".repeat(65 * 1024);
  await journal.record([started("a", 1, "small"), started("b", 1, input)]);
  await journal.record([succeeded("a", "small"), succeeded("b", output)]);
  const events = (await store.events(run.id)).slice(2);
  expect(events.map(valueIn)).toEqual([true, false, true, false]);
  expect(events.at(-1)?.kind.value).toMatchObject({ step: { outputBytes: BigInt(65 * 1024 + 2) } });
  const { items } = await store.runs.listSteps(stepsOf(run.id, { paths: ["b"] }));
  expect(items[0]?.output?.kind.value).toBe(output);
});

function valueIn({ kind }: RunEvent): boolean {
  return kind.case === "stepStarted"
    ? kind.value.input !== undefined
    : kind.case === "stepFinished" && kind.value.step?.output !== undefined;
}

test("what cannot be told is refused, and the run goes on", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  const endless = create(ValueSchema, { kind: { case: "numberValue", value: Number.NaN } });
  const bad = finished("a", StepState.SUCCEEDED, { output: endless });
  await expect(journal.record([started("a"), bad])).rejects.toThrow();
  await journal.record([started("a"), failed("a")]);
  expect(await store.told(run.id)).toEqual(["created", "started", "stepStarted", "stepFinished"]);
});

test("nothing is recorded after the end", async () => {
  const store = await openTestStore(database);
  const { run, journal } = await store.start();
  await journal.record([planned("a", "b"), started("a")]);
  const written = journal.record([succeeded("a", 1)]);
  await journal.finish({ state: "succeeded", output: { done: true } });
  await written;
  await expect(journal.record([started("b")])).rejects.toBeInstanceOf(LostRunError);
  await expect(journal.finish({ state: "succeeded", output: null })).rejects.toBeInstanceOf(LostRunError);
  await expect(journal.park(undefined)).rejects.toBeInstanceOf(LostRunError);
  // No step is left open.
  expect(await store.runs.get(run.id)).toMatchObject({
    state: RunState.SUCCEEDED,
    steps: { total: 2, succeeded: 1, cancelled: 1 },
  });
});

describe("a database that is away", () => {
  test("for a while loses nothing, and nothing is written twice", async () => {
    const log = await openTestLog(database);
    let failures = 0;
    const eventLog = {
      ...log,
      async append(append: Append) {
        const appended = await log.append(append);
        if (append.writer !== undefined && failures < 3) {
          failures += 1;
          throw databaseUnavailable("nobody knows whether this was stored");
        }
        return appended;
      },
    };
    const store = await openTestStore(database, { eventLog });
    const { run, journal } = await store.start();
    await journal.record([planned("a"), started("a")]);
    await journal.record([succeeded("a")]);
    await journal.finish({ state: "succeeded", output: null });
    expect(failures).toBe(3);
    expect(await store.told(run.id)).toEqual([
      "created",
      "started",
      "planned",
      "stepStarted",
      "stepFinished",
      "finished",
    ]);
    expect(await store.runs.get(run.id)).toMatchObject({ steps: { total: 1, succeeded: 1 } });
  });

  test("for a while does not keep a worker from letting go of its run", async () => {
    let failures = 0;
    const kysely = new Proxy(database.kysely, {
      get(target, name) {
        if (name === "transaction" && failures > 0) {
          failures -= 1;
          throw databaseUnavailable("the connection is lost");
        }
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const store = await openTestStore({
      ...database,
      listen: (channel, onPayload, onReconnect) => database.listen(channel, onPayload, onReconnect),
      kysely,
    });
    const { run, journal } = await store.start();
    await journal.record([planned("a"), started("a")]);
    failures = 3;
    await journal.release();
    expect(failures).toBe(0);
    const { run: taken } = await store.claim(run.id, "worker-2", 1);
    expect(taken).toMatchObject({ takeovers: 0 });
    expect(taken.steps.get("a")).toMatchObject({ attempts: 0 });
  });

  test("for good ends the work of the worker, not the run", async () => {
    const log = await openTestLog(database);
    const store = await openTestStore(database, {
      eventLog: {
        ...log,
        append: (append) =>
          append.writer === undefined ? log.append(append) : Promise.reject(new Error("gone")),
      },
    });
    const { run, journal } = await store.start();
    await expect(journal.record([started("a")])).rejects.toThrow("gone");
    await expect(journal.finish({ state: "succeeded", output: null })).rejects.toThrow("gone");
    expect((await store.runs.get(run.id)).state).toBe(RunState.RUNNING);
  });
});

describe("a run with too many events", () => {
  const delta = (text: string) => entry("a/turn1", { case: "modelDelta", value: { text } });

  test("leaves out what models write, and says so once", async () => {
    const store = await openTestStore(database, { maxEventsPerRun: 10 });
    const { run, journal } = await store.start();
    await journal.record([started("a")]);
    for (let index = 0; index < 20; index++) {
      await journal.record([delta(`${index}`)]);
    }
    await journal.record([started("b"), succeeded("b")]);
    await journal.finish({ state: "succeeded", output: null });
    const told = await store.told(run.id);
    expect(told.filter((kind) => kind === "modelDelta")).toHaveLength(7);
    expect(told.filter((kind) => kind === "stepProgress")).toHaveLength(1);
    expect(told.slice(-4)).toEqual(["stepStarted", "stepFinished", "stepFinished", "finished"]);
  });

  test("fails from twice as many on", async () => {
    const store = await openTestStore(database, { maxEventsPerRun: 10 });
    const { run, journal } = await store.start();
    const recorded = [];
    for (let index = 0; index < 30; index++) {
      recorded.push(
        await journal.record([started("a", index)]).then(
          () => true,
          (error: unknown) => error,
        ),
      );
    }
    expect(recorded.filter((result) => result === true)).toHaveLength(18);
    expect(recorded.at(-1)).toBeInstanceOf(LostRunError);
    const over = await store.runs.get(run.id);
    expect(over).toMatchObject({ state: RunState.FAILED, error: { code: 8 }, steps: { cancelled: 1 } });
    expect((await store.told(run.id)).at(-1)).toBe("finished");
  });
});

test("runs that are made at once and recorded at once do not mix", async () => {
  const store = await openTestStore(database);
  const runs = await Promise.all(Array.from({ length: 20 }, () => store.start(newRun())));
  await Promise.all(
    runs.map(async ({ run, journal }) => {
      void journal.record([started(`step-${run.number}`)]);
      await journal.record([finished(`step-${run.number}`, StepState.SUCCEEDED)]);
      await journal.finish({ state: "succeeded", output: run.number });
    }),
  );
  for (const { run } of runs) {
    const { items } = await store.runs.listSteps(stepsOf(run.id));
    expect(items.map(({ path }) => path)).toEqual([`step-${run.number}`]);
    expect((await store.runs.get(run.id)).output?.kind.value).toBe(run.number);
  }
});
