import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { backoffDelay, sleep } from "./backoff.ts";

describe("backoffDelay", () => {
  it("doubles the longest wait with every attempt, up to the most", () => {
    const random = () => 0.999_999;
    const delays = [1, 2, 3, 4, 5].map((attempt) =>
      Math.round(backoffDelay(attempt, { initialMs: 100, maxMs: 500, random })),
    );
    expect(delays).toEqual([100, 200, 400, 500, 500]);
  });

  it("spreads the waits over the whole range, however many attempts there were", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100_000 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (attempt, chance) => {
          const delay = backoffDelay(attempt, { random: () => chance });
          expect(delay).toBeGreaterThanOrEqual(0);
          expect(delay).toBeLessThan(10_000);
        },
      ),
    );
  });
});

describe("sleep", () => {
  it("ends at once when the signal aborts, and when it was aborted before", async () => {
    const controller = new AbortController();
    const waiting = sleep(3_600_000, controller.signal);
    controller.abort();
    await waiting;
    await sleep(3_600_000, controller.signal);
  });
});
