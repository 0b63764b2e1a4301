import type { JsonObject } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { RunEnd } from "./journal.ts";
import { type Driving, setUpDriving, type Tool, workflow } from "./test-support/driving.ts";

/** What a step of a random graph is. */
const nodes = fc.record({
  edges: fc.array(fc.nat(), { maxLength: 3 }),
  kind: fc.constantFrom("tool", "tool", "bad", "list", "value", "nested", "skipped", "fallback"),
  trigger: fc.constantFrom("STEP_TRIGGER_UNSPECIFIED", "STEP_TRIGGER_ON_FAILURE", "STEP_TRIGGER_ALWAYS"),
  continueOnFailure: fc.boolean(),
});

type Node = typeof nodes extends fc.Arbitrary<infer T> ? T : never;

function stepOf({ edges, kind, trigger, continueOnFailure }: Node, index: number): JsonObject {
  const before = index === 0 ? [] : [...new Set(edges.map((edge) => `s${edge % index}`))];
  const call = (name: string, json: JsonObject = {}) => ({
    tool: { name, arguments: { of: before.map((id) => `\${steps.${id}.output}`), ...json } },
  });
  const actions: Record<Node["kind"], JsonObject> = {
    tool: call("good"),
    bad: call("bad"),
    list: { for_each: { items: "[1, 2, 3]" }, ...call("good", { item: "${item}" }) },
    value: { value: before.map((id) => `\${steps.${id}.state}`) },
    nested: call("nested"),
    skipped: { condition: "false", ...call("good") },
    fallback: {
      ...call("bad"),
      fallback: { tool: { name: "good", arguments: { why: "${error.message}" } } },
    },
  };
  return {
    id: `s${index}`,
    depends_on: before,
    trigger,
    continue_on_failure: continueOnFailure,
    ...actions[kind],
  };
}

const graphs = fc
  .array(nodes, { minLength: 1, maxLength: 7 })
  .map((list) => workflow({ max_concurrency: 3, steps: list.map(stepOf) }));

/** A run whose tools are never called for a step that is known to have ended. */
function setUp(source: ReturnType<typeof workflow>): Driving {
  const steps = () => driving.run.steps;
  const once =
    (work: Tool): Tool =>
    (input, context) => {
      expect(steps().get(context.path)?.end).toBeUndefined();
      return work(input, context);
    };
  const driving = setUpDriving(source, {
    good: once((input, { path }) => ({ output: { path, input } })),
    bad: once((_input, { path }) => {
      throw new DomainError({ code: Code.NotFound, reason: "BAD", message: `${path} is bad` });
    }),
    nested: once(async (_input, context) => {
      const parts = ["part1", "part2"].map((id) =>
        context.nested({
          id,
          kind: "turn",
          target: "",
          timeoutMs: undefined,
          retry: { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 },
          execute: async ({ path }) => {
            expect(steps().get(path)?.end).toBeUndefined();
            return { output: path };
          },
        }),
      );
      return (await Promise.all(parts)).map(({ state }) => state);
    }),
  });
  return driving;
}

function comparable(end: RunEnd | undefined) {
  return end?.state === "failed" ? { ...end, error: (end.error as Error).message } : end;
}

test("whenever a worker dies, the next one goes on, does nothing twice that had ended, and comes to the same end", async () => {
  await fc.assert(
    fc.asyncProperty(graphs, async (source) => {
      const undisturbed = setUp(source);
      expect(await undisturbed.drive()).toBe("finished");
      const expected = comparable(undisturbed.run.end);
      for (let diesAt = 0; diesAt < undisturbed.run.entries.length; diesAt += 1) {
        const driving = setUp(source);
        expect(await driving.drive({ diesAt })).toBe("left");
        expect(driving.run.end).toBeUndefined();
        expect(await driving.drive()).toBe("finished");
        expect(comparable(driving.run.end)).toEqual(expected);
      }
    }),
    { numRuns: 60 },
  );
});

test("worker after worker may die, one entry further each time", async () => {
  const source = workflow({
    steps: [
      {
        id: "list",
        for_each: { items: "[1, 2, 3, 4]" },
        tool: { name: "good", arguments: { n: "${item}" } },
      },
      { id: "after", depends_on: ["list"], tool: { name: "nested" } },
    ],
  });
  const driving = setUp(source);
  let workers = 0;
  let outcome = "left";
  for (let diesAt = 2; outcome === "left"; diesAt += 6) {
    outcome = await driving.drive({ diesAt });
    workers += 1;
  }
  expect(outcome).toBe("finished");
  expect(workers).toBeGreaterThan(2);
  expect(driving.run.end).toMatchObject({ state: "succeeded" });
});

test("a graph of 1,000 steps and a list of 10,000 items come to an end", async () => {
  const chain = setUpDriving(
    workflow({
      max_concurrency: 16,
      steps: Array.from({ length: 1_000 }, (_, index) => ({
        id: `s${index}`,
        depends_on: index < 40 ? [] : [`s${index - 40}`, `s${index - 1 - (index % 7)}`],
        tool: { name: "good" },
      })),
    }),
    { good: () => 1 },
  );
  expect(await chain.drive()).toBe("finished");
  expect(chain.calls.get("good")).toBe(1_000);
  expect(chain.most()).toBeLessThanOrEqual(16);

  const items = Array.from({ length: 10_000 }, (_, index) => index);
  const list = setUpDriving(
    workflow(
      {
        steps: [
          {
            id: "a",
            for_each: { items: "${input.items}" },
            tool: { name: "good", arguments: { n: "${item}" } },
          },
        ],
      },
      { items },
    ),
    { good: (input) => (input as { n: number }).n },
  );
  expect(await list.drive()).toBe("finished");
  expect(list.run.end).toEqual({ state: "succeeded", output: { a: items } });
});

test("a list of more items is refused", async () => {
  const driving = setUpDriving(
    workflow(
      { steps: [{ id: "a", for_each: { items: "${input.items}" }, value: 1 }] },
      { items: Array.from({ length: 10_001 }, () => 0) },
    ),
    {},
  );
  await driving.drive();
  expect((driving.run.end as { error: Error }).error.message).toMatch(/10001 items, and 10000 is the limit/);
});

test("a fan-out that was parked, or let go of, begins once", async () => {
  const driving = setUpDriving(
    workflow({
      steps: [{ id: "ask", for_each: { items: "[1, 2, 3]" }, approval: { message: "Number ${item}?" } }],
    }),
    {},
  );
  const asked = () => driving.run.entries.filter(({ kind }) => kind.case === "stepStarted");
  expect(await driving.drive()).toBe("parked");
  for (const path of ["ask[0]", "ask[1]"]) {
    driving.run.answer(path, { approved: true, comment: "", by: "user:ada" });
    expect(await driving.drive()).toBe("parked");
  }
  driving.run.answer("ask[2]", { approved: true, comment: "", by: "user:ada" });
  expect(await driving.drive()).toBe("finished");
  expect(driving.run.end).toMatchObject({ state: "succeeded" });
  expect(asked().map(({ path }) => path)).toEqual(["ask", "ask[0]", "ask[1]", "ask[2]"]);
  expect(driving.run.steps.get("ask")).toMatchObject({ attempts: 1 });
});
