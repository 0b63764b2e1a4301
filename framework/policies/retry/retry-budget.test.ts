import fc from "fast-check";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test-support/fake-clock.ts";
import { createRetryBudget } from "./retry-budget.ts";

test("a fifth of the calls may be repeated, and a few more each second", () => {
  const budget = createRetryBudget({ minPerSecond: 0, clock: createFakeClock() });
  expect(budget.trySpend()).toBe(false);
  for (let calls = 0; calls < 10; calls++) {
    budget.count();
  }
  expect([budget.trySpend(), budget.trySpend(), budget.trySpend()]).toEqual([true, true, false]);
  expect(budget.stats()).toEqual({ calls: 10, retries: 2, available: 0, denied: 2 });

  const reserve = createRetryBudget({ ratio: 0, minPerSecond: 1, windowMs: 3_000, clock: createFakeClock() });
  expect(Array.from({ length: 4 }, () => reserve.trySpend())).toEqual([true, true, true, false]);
});

test("what has left the window counts no more, neither for nor against a repetition", () => {
  const clock = createFakeClock();
  const budget = createRetryBudget({ ratio: 1, minPerSecond: 0, windowMs: 10_000, clock });
  budget.count();
  expect(budget.trySpend()).toBe(true);
  clock.advance(5_000);
  budget.count();
  clock.advance(5_000);
  expect(budget.stats()).toMatchObject({ calls: 1, retries: 0, available: 1 });
  clock.advance(1_000_000);
  expect(budget.stats()).toMatchObject({ calls: 0, retries: 0, available: 0 });
});

test("a ratio that has no exact binary form loses nothing to rounding", () => {
  const budget = createRetryBudget({ ratio: 0.29, minPerSecond: 0, clock: createFakeClock() });
  for (let calls = 0; calls < 100; calls++) {
    budget.count();
  }
  expect(budget.stats().available).toBe(29);
});

test("senseless options are refused", () => {
  expect(() => createRetryBudget({ ratio: -1 })).toThrow(RangeError);
  expect(() => createRetryBudget({ minPerSecond: Number.NaN })).toThrow(RangeError);
  expect(() => createRetryBudget({ windowMs: 0 })).toThrow(RangeError);
});

test("whatever happens when, repetitions stay within the budget of their window", () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant("call" as const), times: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ kind: fc.constant("retry" as const), times: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ kind: fc.constant("wait" as const), times: fc.integer({ min: 1, max: 4_000 }) }),
  );
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 2, noNaN: true }),
      fc.integer({ min: 0, max: 5 }),
      fc.array(action, { maxLength: 60 }),
      (ratio, minPerSecond, actions) => {
        const clock = createFakeClock();
        const windowMs = 2_000;
        const budget = createRetryBudget({ ratio, minPerSecond, windowMs, clock });
        const calls: number[] = [];
        const retries: number[] = [];
        const within = (times: number[], ms: number) =>
          times.filter((at) => at > clock.monotonic() - ms).length;
        for (const { kind, times } of actions) {
          if (kind === "wait") {
            clock.advance(times);
            continue;
          }
          for (let time = 0; time < times; time++) {
            if (kind === "call") {
              budget.count();
              calls.push(clock.monotonic());
            } else if (budget.trySpend()) {
              retries.push(clock.monotonic());
              const allowed = ratio * within(calls, windowMs) + (minPerSecond * windowMs) / 1_000;
              // Nine whole parts of the window and the one that is being filled.
              expect(within(retries, windowMs * 0.9)).toBeLessThanOrEqual(allowed + 1e-6);
            }
          }
        }
      },
    ),
  );
});
