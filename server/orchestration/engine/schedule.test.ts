import fc from "fast-check";
import { expect, test } from "vitest";
import { parseTemplate } from "../expressions/template.ts";
import type { PlanStep } from "../plan.ts";
import { createSchedule, type Ending } from "./schedule.ts";

function step(id: string, dependsOn: readonly string[] = [], more: Partial<PlanStep> = {}): PlanStep {
  return {
    id,
    description: "",
    dependsOn,
    trigger: "success",
    condition: undefined,
    fanOut: undefined,
    timeoutMs: undefined,
    retry: { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 },
    fallback: undefined,
    continueOnFailure: false,
    action: { kind: "value", value: parseTemplate(null) },
    ...more,
  };
}

/** Ends all that comes, in an order that `pick` chooses, and tells how each step ended, in that order. */
function play(
  steps: readonly PlanStep[],
  endOf: (step: PlanStep) => Ending,
  pick: (count: number) => number = () => 0,
): { readonly ends: ReadonlyMap<string, string>; readonly failure: string | undefined } {
  const schedule = createSchedule(steps);
  const open: { id: string; ending: Ending }[] = [];
  const ends = new Map<string, string>();
  const seen = new Set<string>();
  while (!schedule.isOver) {
    for (const turn of schedule.next()) {
      const { id, dependsOn } = turn.step;
      expect(seen.has(id)).toBe(false);
      expect(dependsOn.every((before) => ends.has(before))).toBe(true);
      seen.add(id);
      open.push({
        id,
        ending: turn.kind === "skip" ? { state: "skipped", cause: turn.cause } : endOf(turn.step),
      });
    }
    const [next] = open.splice(pick(open.length), 1);
    expect(next).toBeDefined();
    if (next !== undefined) {
      schedule.end(next.id, next.ending);
      ends.set(next.id, `${next.ending.state} ${next.ending.cause ?? ""}`.trim());
    }
  }
  expect(schedule.next()).toEqual([]);
  return { ends, failure: schedule.failure };
}

const failing =
  (...ids: string[]) =>
  ({ id }: PlanStep): Ending => ({ state: ids.includes(id) ? "failed" : "succeeded" });

test("steps come when what they depend on has ended, in the order of the plan", () => {
  const schedule = createSchedule([step("c", ["a", "b"]), step("b"), step("a"), step("d", ["b"])]);
  expect(schedule.next().map((turn) => turn.step.id)).toEqual(["b", "a"]);
  schedule.end("b", { state: "succeeded" });
  expect(schedule.next().map((turn) => turn.step.id)).toEqual(["d"]);
  schedule.end("a", { state: "succeeded" });
  expect(schedule.next().map((turn) => turn.step.id)).toEqual(["c"]);
  expect(() => schedule.end("a", { state: "succeeded" })).toThrow(/"a" cannot end/);
});

test("what comes after a failure is skipped, unless it is there for failures or for all ends", () => {
  const { ends, failure } = play(
    [
      step("a"),
      step("b", ["a"]),
      step("c", ["b"]),
      step("rescue", ["b"], { trigger: "failure" }),
      step("report", ["c", "rescue"], { trigger: "always" }),
    ],
    failing("a"),
  );
  expect(Object.fromEntries(ends)).toEqual({
    a: "failed",
    b: "skipped failure",
    c: "skipped failure",
    rescue: "succeeded",
    report: "succeeded",
  });
  expect(failure).toBe("a");
});

test("a step that is there for failures is skipped without one, and what comes after it runs", () => {
  const { ends, failure } = play(
    [step("a"), step("rescue", ["a"], { trigger: "failure" }), step("b", ["rescue"])],
    failing(),
  );
  expect(Object.fromEntries(ends)).toEqual({ a: "succeeded", rescue: "skipped condition", b: "succeeded" });
  expect(failure).toBeUndefined();
});

test("a failure that is to be borne counts as skipped by a condition", () => {
  const { ends, failure } = play(
    [step("a", [], { continueOnFailure: true }), step("b", ["a"]), step("r", ["a"], { trigger: "failure" })],
    failing("a"),
  );
  expect(Object.fromEntries(ends)).toEqual({ a: "failed", b: "succeeded", r: "skipped condition" });
  expect(failure).toBeUndefined();
});

test.each([
  ["unknown", [step("a", ["b"])], /"b", which does not exist/],
  ["circle", [step("a", ["c"]), step("b", ["a"]), step("c", ["b"])], /comes after itself/],
])("steps in an impossible order are refused: %s", (_name, steps, message) => {
  expect(() => createSchedule(steps)).toThrow(message);
});

const triggers = ["success", "failure", "always"] as const;

/** Graphs without circles, their steps in any order. */
const graphs = fc
  .array(
    fc.record({
      edges: fc.array(fc.nat(), { maxLength: 4 }),
      trigger: fc.constantFrom(...triggers),
      continueOnFailure: fc.boolean(),
      end: fc.constantFrom<Ending>(
        { state: "succeeded" },
        { state: "failed" },
        { state: "skipped", cause: "condition" },
      ),
    }),
    { minLength: 1, maxLength: 30 },
  )
  .chain((nodes) => {
    const steps = nodes.map(({ edges, trigger, continueOnFailure }, index) =>
      step(`s${index}`, index === 0 ? [] : edges.map((edge) => `s${edge % index}`), {
        trigger,
        continueOnFailure,
      }),
    );
    const ends = new Map(nodes.map(({ end }, index) => [`s${index}`, end]));
    return fc
      .shuffledSubarray(steps, { minLength: steps.length })
      .map((shuffled) => ({ steps: shuffled, ends }));
  });

test("every graph comes to an end, each step once and after its dependencies, whatever ends first", () => {
  fc.assert(
    fc.property(graphs, fc.array(fc.nat(), { minLength: 1 }), ({ steps, ends }, picks) => {
      const endOf = ({ id }: PlanStep): Ending => ends.get(id) ?? { state: "succeeded" };
      let turn = 0;
      const one = play(steps, endOf);
      const other = play(steps, endOf, (count) => (picks[turn++ % picks.length] ?? 0) % Math.max(count, 1));
      expect(other.failure).toBe(one.failure);
      expect(Object.fromEntries(other.ends)).toEqual(Object.fromEntries(one.ends));
    }),
  );
});
