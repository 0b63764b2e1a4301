import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffDelayMs } from "./backoff.ts";
import { type Failure, reasonToGiveUp, retryDelayMs } from "./retry-decision.ts";

const limits = { attempts: 3, baseDelayMs: 100, maxDelayMs: 5_000, maxPushBackMs: 30_000 };
const transient: Failure = { kind: "transient" };

test("the bound of the wait doubles up to its maximum", () => {
  const longest = [1, 2, 3, 4, 5, 6, 7, 8].map((failures) => backoffDelayMs(failures, limits, () => 1));
  expect(longest).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
});

test("every wait is between nothing and its bound, however many attempts there were", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5_000 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (failures, drawn) => {
        const delay = backoffDelayMs(failures, limits, () => drawn);
        expect(delay).toBeGreaterThanOrEqual(0);
        expect(delay).toBeLessThanOrEqual(Math.min(5_000, 100 * 2 ** (failures - 1)));
      },
    ),
  );
});

test("a server that asks for a wait gets it, and callers that were told the same do not come back at once", () => {
  const failure = { kind: "transient", pushBackMs: 700 } as const;
  expect(retryDelayMs(failure, 5, limits, () => 0)).toBe(700);
  expect(retryDelayMs(failure, 5, limits, () => 0.5)).toBe(750);
});

test.each<[string, Failure, number, boolean, string | undefined]>([
  ["what may have been transient is tried again", transient, 1, true, undefined],
  ["what fails the same way is not", { kind: "permanent" }, 1, true, "permanent"],
  ["nor what the server forbids", { kind: "forbidden" }, 1, true, "forbidden"],
  ["nor what must not happen twice", transient, 1, false, "not-repeatable"],
  ["unless it has not even been sent", { kind: "transient", unsent: true }, 1, false, undefined],
  ["three attempts are enough", transient, 3, true, "attempts"],
  [
    "three attempts are enough also when nothing was sent",
    { kind: "transient", unsent: true },
    3,
    false,
    "attempts",
  ],
  ["a wait that is asked for is granted", { kind: "transient", pushBackMs: 30_000 }, 1, true, undefined],
  ["but not any", { kind: "transient", pushBackMs: 30_001 }, 1, true, "push-back"],
])("%s", (_, failure, failures, repeatable, reason) => {
  expect(reasonToGiveUp(failure, failures, repeatable, limits)).toBe(reason);
});
