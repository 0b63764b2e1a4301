import { create, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { expect, test } from "vitest";
import { CancelledError, ReleasedError } from "./engine.ts";
import type { StepContext } from "./step.ts";
import { settled, setUpDriving, type Tool, workflow } from "./test-support/driving.ts";

const tool = (name: string, json: JsonObject = {}) => ({ tool: { name, arguments: json } });
const failed = (code: Code, reason: string, more: object = {}) =>
  new DomainError({ code, reason, message: `it is ${reason}`, ...more });
const unavailable = (more: object = {}) => failed(Code.Unavailable, "AWAY", more);

function batch(calls: readonly { tool: string; arguments?: JsonObject }[], maxConcurrency = 0) {
  return create(RunSourceSchema, {
    kind: {
      case: "toolBatch",
      value: {
        maxConcurrency,
        calls: calls.map((call) => ({
          tool: call.tool,
          input: { case: "arguments" as const, value: call.arguments ?? {} },
        })),
      },
    },
  });
}

/** A tool that does not come back before it is told to, and leaves when its signal says so. */
function held() {
  const waiting: { context: StepContext; resolve: (value: JsonValue) => void }[] = [];
  const work: Tool = (_input, context) =>
    new Promise((resolve, reject) => {
      waiting.push({ context, resolve });
      context.signal.addEventListener("abort", () => reject(context.signal.reason), { once: true });
    });
  return { waiting, work };
}

/** What the steps of the run have come to. */
function statesOf({
  steps,
}: {
  readonly steps: ReadonlyMap<string, { end: { state: string } | undefined }>;
}) {
  return Object.fromEntries([...steps].map(([path, { end }]) => [path, end?.state ?? "open"]));
}

test("the calls of a batch run side by side, no more than five at once, and come back in order", async () => {
  const { waiting, work } = held();
  const driving = setUpDriving(batch(Array.from({ length: 7 }, () => ({ tool: "echo" }))), { echo: work });
  const driven = driving.drive();
  await settled();
  expect(waiting.map(({ context }) => context.path)).toEqual(["call0", "call1", "call2", "call3", "call4"]);
  for (let index = 6; index >= 0; ) {
    for (const { resolve } of waiting.splice(0).reverse()) {
      resolve({ nth: index });
      index -= 1;
    }
    await settled();
  }
  expect(await driven).toBe("finished");
  expect(driving.most()).toBe(5);
  expect(driving.run.end).toMatchObject({ state: "succeeded" });
  expect(driving.run.end).toHaveProperty("output.length", 7);
  expect(driving.run.entries[0]?.kind.case).toBe("planned");
});

test("a call that fails harms no other", async () => {
  const driving = setUpDriving(batch([{ tool: "good" }, { tool: "bad" }, { tool: "good" }]), {
    good: () => "done",
    bad: () => {
      throw failed(Code.NotFound, "NO_CITY");
    },
  });
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toMatchObject({
    state: "failed",
    error: { code: Code.NotFound, rawMessage: 'step "call1": it is NO_CITY' },
    output: [
      { result: "done" },
      { error: { code: "NOT_FOUND", message: "it is NO_CITY" } },
      { result: "done" },
    ],
  });
});

test("what a caller gives directly is never taken for an expression", async () => {
  const driving = setUpDriving(batch([{ tool: "echo", arguments: { text: "${input.secret}" } }]), {
    echo: (input) => input,
  });
  await driving.drive();
  expect(driving.run.end).toMatchObject({ output: [{ result: { text: "${input.secret}" } }] });
});

test("data flows from step to step, by conditions, lists and templates", async () => {
  const driving = setUpDriving(
    workflow(
      {
        steps: [
          { id: "cities", ...tool("cities") },
          {
            id: "weather",
            for_each: { items: "${steps.cities.output}" },
            ...tool("weather", { city: "${item}", nth: "${index}" }),
          },
          { id: "never", condition: "${input.detailed}", ...tool("weather") },
          { id: "after", value: { was: "${steps.never.output}", state: "${steps.never.state}" } },
        ],
        output: { weather: "${steps.weather.output}", after: "${steps.after.output}" },
      },
      { detailed: false },
    ),
    {
      cities: () => ["Ulm", "Bonn"],
      weather: (input) => ({ ...(input as JsonObject), degrees: 20 }),
    },
  );
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toEqual({
    state: "succeeded",
    output: {
      weather: [
        { city: "Ulm", nth: 0, degrees: 20 },
        { city: "Bonn", nth: 1, degrees: 20 },
      ],
      after: { was: null, state: "skipped" },
    },
  });
  expect(statesOf(driving.run)).toMatchObject({
    weather: "succeeded",
    "weather[1]": "succeeded",
    never: "skipped",
  });
});

test("without an output of its own, a workflow gives back what its last steps came to", async () => {
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "a", value: 1 },
        { id: "b", value: "${steps.a.output + 1.0}" },
        { id: "c", value: 3 },
      ],
    }),
    {},
  );
  await driving.drive();
  expect(driving.run.end).toEqual({ state: "succeeded", output: { b: 2, c: 3 } });
});

test("a failure that may pass is tried again, after as long a wait as whoever failed asks for", async () => {
  const seen: StepContext[] = [];
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "a", ...tool("flaky"), retry: { attempts: 4, initial_backoff: "2s", max_backoff: "3s" } },
      ],
    }),
    {
      flaky: (_input, context) => {
        seen.push(context);
        switch (seen.length) {
          case 1:
            throw unavailable();
          case 2:
            throw unavailable({ retryAfterMs: 4_000 });
          default:
            return "at last";
        }
      },
    },
  );
  const driven = driving.drive();
  await settled();
  driving.clock.advance(999);
  await settled();
  expect(seen).toHaveLength(1);
  driving.clock.advance(1);
  await settled();
  expect(seen).toHaveLength(2);
  driving.clock.advance(3_999);
  await settled();
  expect(seen).toHaveLength(2);
  driving.clock.advance(1);
  expect(await driven).toBe("finished");
  expect(driving.run.end).toEqual({ state: "succeeded", output: { a: "at last" } });
  expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
  expect(new Set(seen.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(1);
  expect(seen[0]?.idempotencyKey).toMatch(
    /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  );
});

test.each([
  [Code.InvalidArgument, "BAD"],
  [Code.ResourceExhausted, "TOKEN_BUDGET"],
])("a failure that lasts is not tried again: %s %s", async (code, reason) => {
  const driving = setUpDriving(workflow({ steps: [{ id: "a", ...tool("bad"), retry: { attempts: 3 } }] }), {
    bad: () => {
      throw failed(code, reason);
    },
  });
  expect(await driving.drive()).toBe("finished");
  expect(driving.calls.get("bad")).toBe(1);
});

test("an attempt that takes too long is given up, and its work is told, also when it does not listen", async () => {
  const signals: AbortSignal[] = [];
  const driving = setUpDriving(
    workflow({
      steps: [{ id: "a", ...tool("deaf"), timeout: "3s", retry: { attempts: 2, initial_backoff: "0s" } }],
    }),
    {
      deaf: (_input, { signal }) => {
        signals.push(signal);
        return new Promise(() => {});
      },
    },
  );
  const driven = driving.drive();
  await settled();
  driving.clock.advance(3_000);
  await settled();
  expect(signals).toHaveLength(2);
  driving.clock.advance(3_000);
  expect(await driven).toBe("finished");
  expect(driving.run.end).toMatchObject({
    state: "failed",
    error: {
      code: Code.DeadlineExceeded,
      rawMessage: 'step "a" took longer than its timeout of 3 s',
    },
  });
  expect(signals.every(({ aborted }) => aborted)).toBe(true);
});

test("a fallback stands in for a step that has failed for good, as a value or as another tool", async () => {
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "a", ...tool("bad"), fallback: { value: "instead of ${error.code}: ${error.message}" } },
        {
          id: "b",
          ...tool("bad"),
          fallback: { tool: { name: "good", arguments: { why: "${error.code}" } } },
        },
        { id: "c", ...tool("bad"), fallback: { tool: { name: "bad" } }, continue_on_failure: true },
      ],
      output: { a: "${steps.a.output}", b: "${steps.b.output}", c: "${steps.c.error.message}" },
    }),
    {
      bad: () => {
        throw failed(Code.FailedPrecondition, "SHUT");
      },
      good: (input) => input,
    },
  );
  await driving.drive();
  expect(driving.run.end).toEqual({
    state: "succeeded",
    output: {
      a: "instead of FAILED_PRECONDITION: it is SHUT",
      b: { why: "FAILED_PRECONDITION" },
      c: "it is SHUT; its fallback failed too: it is SHUT",
    },
  });
  expect(driving.run.steps.get("a")?.end).toMatchObject({ fallback: true });
  expect(statesOf(driving.run)).toMatchObject({ "b/fallback": "succeeded", "c/fallback": "failed" });
});

test("items that fail let the others end; the step then says how many, and the first", async () => {
  const source = (bears: boolean) =>
    workflow({
      steps: [
        {
          id: "a",
          for_each: { items: "[1, 2, 3, 4]", continue_on_failure: bears },
          ...tool("odd", { n: "${item}" }),
        },
      ],
    });
  const odd: Tool = (input) => {
    const { n } = input as { n: number };
    if (n % 2 === 0) {
      throw failed(Code.OutOfRange, `EVEN_${n}`);
    }
    return n;
  };
  const strict = setUpDriving(source(false), { odd });
  await strict.drive();
  expect(strict.calls.get("odd")).toBe(4);
  expect(strict.run.end).toMatchObject({
    state: "failed",
    error: {
      code: Code.OutOfRange,
      rawMessage: 'step "a": 2 of 4 items failed; the first is a[1]: it is EVEN_2',
    },
  });
  const bearing = setUpDriving(source(true), { odd });
  await bearing.drive();
  expect(bearing.run.end).toEqual({ state: "succeeded", output: { a: [1, null, 3, null] } });
});

test("items take the room of the run, and of their own list no more than it allows", async () => {
  const { waiting, work } = held();
  const driving = setUpDriving(
    workflow({
      max_concurrency: 3,
      steps: [
        { id: "a", for_each: { items: "[1, 2, 3, 4, 5]", max_concurrency: 2 }, ...tool("work") },
        { id: "b", for_each: { items: "[1, 2, 3, 4, 5]" }, ...tool("work") },
      ],
    }),
    { work },
  );
  const driven = driving.drive();
  for (let ended = 0; ended < 10; ) {
    await settled();
    expect(waiting.length).toBeLessThanOrEqual(3);
    expect(waiting.filter(({ context }) => context.path.startsWith("a[")).length).toBeLessThanOrEqual(2);
    ended += waiting.length;
    for (const { resolve } of waiting.splice(0)) {
      resolve(null);
    }
  }
  expect(await driven).toBe("finished");
  expect(driving.most()).toBe(3);
});

test.each<[string, JsonObject, string]>([
  ["a condition that is no truth", { condition: "${1 + 1}", value: 1 }, "condition: "],
  [
    "a field that cannot be evaluated",
    { ...tool("echo", { x: "${input.nothing.there}" }) },
    "tool.arguments.x: ",
  ],
  ["items that are no list", { for_each: { items: "'text'" }, value: 1 }, "for_each.items: "],
])("%s fails the step with the field's name", async (_name, step, message) => {
  const driving = setUpDriving(workflow({ steps: [{ id: "a", ...step }] }), { echo: (input) => input });
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toMatchObject({ state: "failed", error: { code: Code.InvalidArgument } });
  expect(String((driving.run.end as { error: Error }).error.message)).toContain(`step "a": ${message}`);
});

test("outputs that are too large fail their step, once", async () => {
  const driving = setUpDriving(
    workflow({ steps: [{ id: "a", ...tool("large"), retry: { attempts: 3 } }] }),
    { large: () => "x".repeat(100) },
    { maxValueBytes: 100 },
  );
  await driving.drive();
  expect(driving.calls.get("large")).toBe(1);
  expect((driving.run.end as { error: Error }).error.message).toMatch(
    /has 102 bytes as JSON, and 100 is the limit/,
  );

  const many = setUpDriving(
    batch(Array.from({ length: 3 }, () => ({ tool: "large" }))),
    { large: () => "x".repeat(100) },
    { maxRunBytes: 300 },
  );
  await many.drive();
  expect(statesOf(many.run)).toEqual({ call0: "succeeded", call1: "succeeded", call2: "failed" });
});

test("the failure of a run is told with its code and details", async () => {
  const driving = setUpDriving(workflow({ steps: [{ id: "a", ...tool("bad") }] }), {
    bad: () => {
      throw unavailable({ retryAfterMs: 7_000 });
    },
  });
  await driving.drive();
  const { error } = driving.run.end as { error: { details: { type: string }[] } };
  expect(error.details.map(({ type }) => type)).toEqual(["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]);
});

test("a bug in work fails its step and says nothing of itself", async () => {
  const driving = setUpDriving(workflow({ steps: [{ id: "a", ...tool("bad") }] }), {
    bad: () => {
      throw new TypeError("internals");
    },
  });
  await driving.drive();
  const { error } = driving.run.end as { error: Error & { code: Code } };
  expect(error.code).toBe(Code.Internal);
  expect(error.message).not.toContain("internals");
});

test("a run that only waits is parked, and goes on when its time has come", async () => {
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "a", wait: "60s" },
        { id: "b", depends_on: ["a"], ...tool("echo") },
      ],
    }),
    { echo: () => "done" },
  );
  expect(await driving.drive()).toBe("parked");
  expect(driving.run.parkedUntil).toEqual([driving.clock.now() + 60_000]);
  driving.clock.advance(58_000);
  // So short a wait is not worth it.
  const driven = driving.drive();
  await settled();
  expect(driving.calls.size).toBe(0);
  driving.clock.advance(2_000);
  expect(await driven).toBe("finished");
  expect(driving.run.end).toEqual({ state: "succeeded", output: { b: "done" } });
});

test("a wait before another attempt is parked too, and the attempt is then made", async () => {
  let isUp = false;
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "a", ...tool("flaky"), retry: { attempts: 2, initial_backoff: "600s", max_backoff: "600s" } },
      ],
    }),
    {
      flaky: (_input, { attempt }) => {
        if (!isUp) {
          throw unavailable();
        }
        return attempt;
      },
    },
  );
  expect(await driving.drive()).toBe("parked");
  driving.clock.advance(300_000);
  isUp = true;
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toEqual({ state: "succeeded", output: { a: 2 } });
});

test("an approval parks the run until somebody has answered", async () => {
  const source = workflow({
    steps: [
      { id: "ask", approval: { message: "Deploy?" } },
      { id: "deploy", depends_on: ["ask"], ...tool("deploy") },
    ],
  });
  const asking = setUpDriving(source, { deploy: () => "deployed" });
  expect(await asking.drive()).toBe("parked");
  expect(asking.run.parkedUntil).toEqual([undefined]);
  asking.run.answer("ask", { approved: true, comment: "go", by: "ada" });
  expect(await asking.drive()).toBe("finished");
  expect(asking.run.steps.get("ask")?.end).toMatchObject({
    output: { approved: true, comment: "go", by: "ada" },
  });
  expect(asking.run.entries.filter(({ kind }) => kind.case === "approvalRequested")).toHaveLength(1);
  expect(asking.run.end).toMatchObject({ output: { deploy: "deployed" } });
});

test("an answer that comes while other steps run is heard", async () => {
  const { waiting, work } = held();
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "ask", approval: { message: "?" } },
        { id: "long", ...tool("long") },
      ],
    }),
    { long: work },
  );
  const driven = driving.drive();
  await settled();
  driving.run.answer("ask", { approved: false, comment: "not now", by: "ada" });
  await settled();
  expect(statesOf(driving.run)).toEqual({ ask: "failed", long: "open" });
  waiting[0]?.resolve(1);
  expect(await driven).toBe("finished");
  expect(driving.run.end).toMatchObject({
    error: { code: Code.FailedPrecondition, rawMessage: 'ada has refused step "ask": not now' },
  });
});

test("an answer that comes while the run is let go of is heard", async () => {
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "ask", approval: { message: "?" } },
        { id: "b", ...tool("answering") },
      ],
    }),
    {
      answering: () => {
        driving.run.answer("ask", { approved: true, comment: "", by: "ada" });
        return 1;
      },
    },
  );
  expect(await driving.drive({ isDeaf: true })).toBe("finished");
  expect(driving.run.end).toMatchObject({ state: "succeeded" });
});

test("items that wait are parked together, and begin no sooner than their list allows", async () => {
  const driving = setUpDriving(
    workflow({ steps: [{ id: "a", for_each: { items: "[1, 2, 3]", max_concurrency: 2 }, wait: "60s" }] }),
    {},
  );
  expect(await driving.drive()).toBe("parked");
  expect(statesOf(driving.run)).toEqual({ a: "open", "a[0]": "open", "a[1]": "open" });
  driving.clock.advance(60_000);
  expect(await driving.drive()).toBe("parked");
  driving.clock.advance(60_000);
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toEqual({ state: "succeeded", output: { a: [null, null, null] } });
});

test("a condition that names the item is that of each item", async () => {
  const driving = setUpDriving(
    workflow({
      steps: [{ id: "a", for_each: { items: "[1, 2, 3]" }, condition: "${index != 1}", value: "${item}" }],
    }),
    {},
  );
  await driving.drive();
  expect(driving.run.end).toEqual({ state: "succeeded", output: { a: [1, null, 3] } });
  expect(statesOf(driving.run)).toMatchObject({ a: "succeeded", "a[1]": "skipped" });
});

test("a run that can do nothing says why", async () => {
  const driving = setUpDriving(workflow({ steps: [{ id: "a", depends_on: ["b"], value: 1 }] }), {});
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toMatchObject({ state: "failed" });
});

test("a database that is away is told to whoever drives", async () => {
  const driving = setUpDriving(batch([{ tool: "good" }]), { good: () => 1 });
  const { run, journal } = driving.run.claim();
  const away = { ...journal, record: () => Promise.reject(new Error("the database is away")) };
  await expect(driving.engine.drive(run, away, driving.control)).rejects.toThrow("the database is away");
});

test.each([
  [true, "succeeded"],
  [false, "failed"],
])("an approval that nobody answers in time has a default: %s", async (approveOnTimeout, state) => {
  const driving = setUpDriving(
    workflow({
      steps: [
        { id: "ask", approval: { message: "?", approve_on_timeout: approveOnTimeout }, timeout: "3600s" },
      ],
    }),
    {},
  );
  const asked = driving.clock.now();
  expect(await driving.drive()).toBe("parked");
  expect(driving.run.parkedUntil).toEqual([asked + 3_600_000]);
  driving.clock.advance(3_600_000);
  expect(await driving.drive()).toBe("finished");
  expect(statesOf(driving.run)).toEqual({ ask: state });
  expect(driving.run.entries.at(-2)?.kind).toMatchObject({
    case: "approvalResolved",
    value: { approved: approveOnTimeout, by: "" },
  });
});

test("a cancelled run ends at once, although work does not listen, and nothing is recorded after that", async () => {
  const cancel = new AbortController();
  let finish = (_value: JsonValue) => {};
  const driving = setUpDriving(batch([{ tool: "deaf" }, { tool: "good" }]), {
    deaf: () => new Promise<JsonValue>((resolve) => (finish = resolve)),
    good: () => 1,
  });
  const driven = driving.drive({ signal: cancel.signal });
  await settled();
  cancel.abort(new CancelledError("ada", "no longer needed"));
  expect(await driven).toBe("finished");
  expect(driving.run.end).toEqual({ state: "cancelled", by: "ada", message: "no longer needed" });
  const { length } = driving.run.entries;
  finish(1);
  await settled();
  expect(driving.run.entries).toHaveLength(length);
});

test("a run that was cancelled before a worker had it does nothing", async () => {
  const driving = setUpDriving(batch([{ tool: "good" }]), { good: () => 1 });
  expect(await driving.drive({ cancelled: { by: "ada", message: "" } })).toBe("finished");
  expect(driving.run.end).toMatchObject({ state: "cancelled", by: "ada" });
  expect(driving.calls.size).toBe(0);
});

test("a run that is released is left for another worker, and the attempt that was broken off does not count", async () => {
  const release = new AbortController();
  const { work, waiting } = held();
  const driving = setUpDriving(batch([{ tool: "slow" }]), { slow: work });
  const driven = driving.drive({ signal: release.signal });
  await settled();
  release.abort(new ReleasedError("the server stops"));
  expect(await driven).toBe("left");
  expect(driving.run.end).toBeUndefined();
  const again = driving.drive();
  await settled();
  waiting[1]?.resolve("done");
  expect(await again).toBe("finished");
  expect(waiting.map(({ context }) => context.attempt)).toEqual([1, 1]);
});

test("a worker that stops lets what has begun end, begins nothing more, and nothing is done again", async () => {
  const stop = new AbortController();
  const { work, waiting } = held();
  const steps = [
    { id: "first", ...tool("slow") },
    { id: "second", depends_on: ["first"], ...tool("slow") },
  ];
  const driving = setUpDriving(workflow({ steps }), { slow: work });
  const driven = driving.drive({ signal: stop.signal });
  await settled();
  stop.abort(new ReleasedError("the server stops", 5_000));
  await settled();
  expect(waiting[0]?.context.signal.aborted).toBe(false);
  waiting[0]?.resolve("done");
  expect(await driven).toBe("left");
  expect(waiting).toHaveLength(1);

  const again = driving.drive();
  await settled();
  expect(waiting.map(({ context }) => context.path)).toEqual(["first", "second"]);
  waiting[1]?.resolve("done");
  expect(await again).toBe("finished");
});

test("a worker that stops breaks off what takes longer than its grace", async () => {
  const stop = new AbortController();
  const { work, waiting } = held();
  const driving = setUpDriving(batch([{ tool: "slow" }]), { slow: work });
  const driven = driving.drive({ signal: stop.signal });
  await settled();
  stop.abort(new ReleasedError("the server stops", 5_000));
  await settled();
  driving.clock.advance(5_000);
  expect(await driven).toBe("left");
  expect(waiting[0]?.context.signal.aborted).toBe(true);
});

test("a worker that stops does not wait for steps that go on part by part, once their part has ended", async () => {
  const stop = new AbortController();
  const { work, waiting } = held();
  const part = (context: StepContext, id: string) =>
    context.nested({
      id,
      kind: "tool",
      target: "slow",
      timeoutMs: undefined,
      retry: { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 },
      execute: async (inner) => ({ output: (await work({}, inner)) as string }),
    });
  const driving = setUpDriving(batch([{ tool: "whole" }]), {
    async whole(_, context) {
      await part(context, "one");
      await part(context, "two");
      return "whole";
    },
  });
  const driven = driving.drive({ signal: stop.signal });
  await settled();
  stop.abort(new ReleasedError("the server stops", 5_000));
  waiting[0]?.resolve("done");
  expect(await driven).toBe("left");
  expect(waiting.map(({ context }) => context.path)).toEqual(["call0/one"]);

  const again = driving.drive();
  await settled();
  expect(waiting.map(({ context }) => context.path)).toEqual(["call0/one", "call0/two"]);
  waiting[1]?.resolve("done");
  expect(await again).toBe("finished");
});

test("a run that takes too long is stopped", async () => {
  const { work } = held();
  const driving = setUpDriving(
    workflow({ steps: [{ id: "a", ...tool("slow"), timeout: "1000s" }] }),
    { slow: work },
    { timeoutMs: 30_000 },
  );
  const driven = driving.drive();
  await settled();
  driving.clock.advance(30_000);
  expect(await driven).toBe("finished");
  expect(driving.run.end).toMatchObject({ state: "failed", error: { init: { reason: "RUN_TIMEOUT" } } });
});

test("a step whose worker has died five times is not tried again", async () => {
  const release = new AbortController();
  const { work, waiting } = held();
  const driving = setUpDriving(batch([{ tool: "deadly" }]), { deadly: work });
  for (let worker = 1; worker <= 5; worker += 1) {
    void driving.drive({ signal: release.signal });
    await settled();
    expect(waiting).toHaveLength(worker);
  }
  expect(await driving.drive()).toBe("finished");
  expect(waiting).toHaveLength(5);
  expect(driving.run.end).toMatchObject({ state: "failed", error: { code: Code.Aborted } });
  release.abort(new ReleasedError("the test is over"));
});

test("parts of a step are steps: recorded, not done twice, and stopped with it", async () => {
  const part = (id: string, execute: (context: StepContext) => Promise<{ output: JsonValue }>) => ({
    id,
    kind: "turn",
    target: "model",
    timeoutMs: undefined,
    retry: { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 },
    execute,
  });
  let turns = 0;
  const driving = setUpDriving(
    workflow({ steps: [{ id: "main", ...tool("loop"), retry: { attempts: 2, initial_backoff: "0s" } }] }),
    {
      loop: async (_input, context) => {
        const first = await context.nested(
          part("turn1", async ({ use, path }) => {
            turns += 1;
            use({ turns: 1, inputTokens: 5n });
            return { output: path };
          }),
        );
        if (context.attempt === 1) {
          void context.nested(part("turn2", () => new Promise(() => {})));
          throw unavailable();
        }
        expect(context.recorded("turn1")).toEqual(first);
        return first.state;
      },
    },
  );
  expect(await driving.drive()).toBe("finished");
  expect(turns).toBe(1);
  expect(driving.run.end).toEqual({ state: "succeeded", output: { main: "succeeded" } });
  expect(driving.run.steps.get("main/turn1")?.end).toMatchObject({ output: "main/turn1" });
  expect(statesOf(driving.run)).toEqual({
    main: "succeeded",
    "main/turn1": "succeeded",
    "main/turn2": "cancelled",
  });
  expect(driving.run.claim().run.usage).toMatchObject({ turns: 1, inputTokens: 5n });
});
