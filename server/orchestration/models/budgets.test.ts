import { create } from "@bufbuild/protobuf";
import { ModelBudgetSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import { checkSpent, createTimeBudget, limitsOf, NOTHING_SPENT } from "./budgets.ts";

test("a budget that says nothing has the limits that its documentation names", () => {
  const defaults = {
    maxTurns: 25,
    maxTokens: 1_000_000,
    maxCostUsd: undefined,
    maxTimeMs: 600_000,
    maxParallelCalls: 5,
  };
  expect(limitsOf(undefined)).toEqual(defaults);
  expect(limitsOf(create(ModelBudgetSchema))).toEqual(defaults);
  expect(() => checkSpent(limitsOf(undefined), { ...NOTHING_SPENT, costUsd: 1e6, turns: 24 })).not.toThrow();
});

test("time that is over stops work with its own reason, and a caller who leaves with theirs", async () => {
  const clock = createFakeClock();
  const limits = limitsOf(create(ModelBudgetSchema, { maxTime: { seconds: 5n } }));
  const time = createTimeBudget(limits, clock.now() - 2_000, clock);
  const untilAborted = (signal: AbortSignal) =>
    new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(new Error("stopped"))));

  const left = new AbortController();
  const leaving = time.within(left.signal, untilAborted);
  left.abort();
  await expect(leaving).rejects.toThrow("stopped");

  const late = time.within(new AbortController().signal, untilAborted);
  clock.advance(3_000);
  await expect(late).rejects.toMatchObject({
    init: { reason: "TIME_BUDGET", metadata: { field: "budget.max_time", limit: "5000" } },
  });
  expect(() => time.check()).toThrow("5 s of 5 s");
  expect(clock.pending).toBe(0);
});
