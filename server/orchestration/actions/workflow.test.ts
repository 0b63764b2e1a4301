import { create, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type Run, RunSchema, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { expect, test } from "vitest";
import { CancelledError, ReleasedError } from "../engine/engine.ts";
import { LostRunError } from "../engine/journal.ts";
import { constantTemplate } from "../expressions/template.ts";
import { childKey } from "./children.ts";
import { stepContext } from "./test-support/step-context.ts";
import { type Children, createWorkflowWork } from "./workflow.ts";

type Ending = { readonly output: JsonValue } | { readonly code: Code; readonly message: string };

/** Runs that end as a test says, when it says so. */
function openChildren() {
  const runs = new Map<string, { run: Run; readonly ended: PromiseWithResolvers<Run> }>();
  const started: { readonly name: string; readonly version: number; readonly input: JsonObject }[] = [];
  const cancelled: string[] = [];
  const children: Children = {
    async start(name, version, input, { idempotencyKey }) {
      const known = runs.get(idempotencyKey);
      if (known) {
        return known.run;
      }
      started.push({ name, version, input });
      const run = create(RunSchema, { id: `child-${started.length}`, state: RunState.QUEUED });
      runs.set(idempotencyKey, { run, ended: Promise.withResolvers() });
      return run;
    },
    wait(runId, signal) {
      const known = [...runs.values()].find(({ run }) => run.id === runId);
      const left = new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
      return Promise.race([known?.ended.promise ?? left, left]);
    },
    async cancel(runId, by, message) {
      cancelled.push(`${runId} by ${by}: ${message}`);
    },
  };
  function end(key: string, ending: Ending): void {
    const known = runs.get(key);
    expect.assert(known !== undefined);
    known.run = create(RunSchema, {
      id: known.run.id,
      ...("output" in ending
        ? { state: RunState.SUCCEEDED, output: fromJson(ValueSchema, ending.output) }
        : { state: RunState.FAILED, error: ending }),
    });
    known.ended.resolve(known.run);
  }
  return { children, started, cancelled, end, has: (key: string) => runs.has(key) };
}

const action = { kind: "workflow", name: "deploy", version: 3, input: constantTemplate({}) } as const;

function openWork(maxDepth = 5) {
  const stage = openChildren();
  return { ...stage, work: createWorkflowWork({ children: stage.children, maxDepth }) };
}

test("a step starts a workflow, waits for it and gives back its output", async () => {
  const { work, started, end, has } = openWork();
  const context = stepContext();
  const done = work(action, { input: { region: "eu" } }, context);
  await expect.poll(() => has(context.idempotencyKey)).toBe(true);
  end(context.idempotencyKey, { output: { ok: true } });
  expect(await done).toEqual({ output: { ok: true }, childId: "child-1" });
  expect(started).toEqual([{ name: "deploy", version: 3, input: { region: "eu" } }]);
  expect(context.told).toMatchObject([{ case: "stepProgress", value: { childId: "child-1" } }]);
});

test("a worker that takes the step over waits for the same run", async () => {
  const { work, started, cancelled, end, has } = openWork();
  const release = new AbortController();
  const context = stepContext({ signal: release.signal });
  const first = work(action, {}, context);
  first.catch(() => undefined);
  await expect.poll(() => has(context.idempotencyKey)).toBe(true);
  release.abort(new LostRunError());
  await expect(first).rejects.toBeInstanceOf(LostRunError);
  const again = work(action, {}, stepContext({ idempotencyKey: context.idempotencyKey, attempt: 2 }));
  end(context.idempotencyKey, { output: null });
  expect(await again).toEqual({ output: null, childId: "child-1" });
  expect(started).toHaveLength(1);
  expect(cancelled).toEqual([]);
});

test("the failure of the run is that of the step, and names it", async () => {
  const { work, end, has } = openWork();
  const context = stepContext();
  const done = work(action, {}, context);
  done.catch(() => undefined);
  await expect.poll(() => has(context.idempotencyKey)).toBe(true);
  end(context.idempotencyKey, { code: Code.PermissionDenied, message: "not you" });
  await expect(done).rejects.toMatchObject({
    message: 'Run "child-1" of workflow "deploy" failed: not you',
    init: { code: Code.PermissionDenied, reason: "CHILD_RUN_FAILED", metadata: { run_id: "child-1" } },
  });
});

test.for([
  [Code.Unavailable, 2],
  [Code.InvalidArgument, 1],
] as const)(
  "another attempt starts another run after a failure that may pass only: %i",
  async ([code, runs]) => {
    const { work, started, end, has } = openWork();
    const context = stepContext();
    const first = work(action, {}, context);
    first.catch(() => undefined);
    await expect.poll(() => has(context.idempotencyKey)).toBe(true);
    end(context.idempotencyKey, { code, message: "x" });
    await expect(first).rejects.toMatchObject({ init: { code } });
    const second = work(action, {}, { ...context, attempt: 2 });
    second.catch(() => undefined);
    const key = childKey(context.idempotencyKey, 1);
    if (runs === 2) {
      await expect.poll(() => has(key)).toBe(true);
      end(key, { output: "done" });
      expect(await second).toMatchObject({ output: "done", childId: "child-2" });
    } else {
      await expect(second).rejects.toMatchObject({ init: { code } });
    }
    expect(started).toHaveLength(runs);
  },
);

test.for([
  [
    new CancelledError("user:ada", "enough"),
    ["child-1 by user:ada: the run run-1 that started it was stopped"],
  ],
  [
    new DomainError({ code: Code.DeadlineExceeded, reason: "STEP_TIMEOUT", message: "its time is over" }),
    ["child-1 by anonymous: the run run-1 that started it was stopped"],
  ],
  [new ReleasedError("the worker stops"), []],
  [new DomainError({ code: Code.Unavailable, reason: "DATABASE_UNAVAILABLE", message: "away" }), []],
] as const)(
  "the run is stopped with the step, unless only the worker goes: %s",
  async ([reason, expected]) => {
    const { work, cancelled, has } = openWork();
    const abort = new AbortController();
    const context = stepContext({ signal: abort.signal });
    const done = work(action, {}, context);
    done.catch(() => undefined);
    await expect.poll(() => has(context.idempotencyKey)).toBe(true);
    abort.abort(reason);
    await expect(done).rejects.toBe(reason);
    expect(cancelled).toEqual(expected);
  },
);

test("runs do not start runs without end", async () => {
  const { work, started } = openWork(2);
  const context = stepContext();
  await expect(work(action, {}, { ...context, run: { ...context.run, depth: 2 } })).rejects.toMatchObject({
    init: { code: Code.FailedPrecondition, reason: "RUN_TOO_DEEP" },
  });
  expect(started).toEqual([]);
});

test("keys of further runs are UUIDs, each another", () => {
  const keys = [0, 1, 2].map((index) => childKey("0192d3a4-0000-7000-8000-000000000000", index));
  expect(new Set(keys).size).toBe(3);
  for (const key of keys) {
    expect(key).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
});
