import { expect, test } from "vitest";
import type { ActionKind } from "../plan.ts";
import { createIdling } from "./idling.ts";

function setUp() {
  const told: boolean[] = [];
  const idling = createIdling((isIdle) => told.push(isIdle));
  /** Returns how to end it. */
  function begin(kind: ActionKind) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const done = idling.during(kind, () => promise);
    return {
      async end() {
        resolve();
        await done;
      },
      async fail() {
        reject(new Error("it broke"));
        await expect(done).rejects.toThrow("it broke");
      },
    };
  }
  return { told, begin };
}

test.each(["workflow", "test_run"] as const)("a run is idle while it does nothing but a %s", async (kind) => {
  const { told, begin } = setUp();
  const step = begin(kind);
  expect(told).toEqual([true]);
  await step.end();
  expect(told).toEqual([true, false]);
});

test("a run that has work beside what it waits for is not idle, and is once that has ended, however", async () => {
  const { told, begin } = setUp();
  const tool = begin("tool");
  const first = begin("workflow");
  const second = begin("workflow");
  expect(told).toEqual([]);
  await tool.fail();
  expect(told).toEqual([true]);
  await first.end();
  expect(told).toEqual([true]);
  const agent = begin("agent");
  expect(told).toEqual([true, false]);
  await agent.end();
  await second.end();
  expect(told).toEqual([true, false, true, false]);
});
