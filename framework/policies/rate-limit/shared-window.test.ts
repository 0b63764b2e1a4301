import fc from "fast-check";
import { expect, test } from "vitest";
import { sharedWindow } from "./shared-window.ts";

test.each([
  [
    { limit: 1_000, periodMs: 60_000, burst: 20 },
    { points: 20, windowMs: 1_200 },
  ],
  [
    { limit: 200, periodMs: 60_000, burst: 20 },
    { points: 20, windowMs: 6_000 },
  ],
  [
    { limit: 200, periodMs: 60_000, burst: 23 },
    { points: 22, windowMs: 6_667 },
  ],
  [
    { limit: 5, periodMs: 1_000, burst: 50 },
    { points: 5, windowMs: 1_000 },
  ],
  [
    { limit: 3, periodMs: 1_000, burst: 1 },
    { points: 1, windowMs: 334 },
  ],
])("%j is counted as %j", (limit, window) => {
  expect(sharedWindow(limit)).toEqual(window);
});

test("no period is touched by windows with more calls than limit and burst together", () => {
  fc.assert(
    fc.property(
      fc.record({
        limit: fc.integer({ min: 1, max: 10_000 }),
        periodMs: fc.integer({ min: 1, max: 3_600_000 }),
        burst: fc.integer({ min: 1, max: 200 }),
      }),
      (limit) => {
        const { points, windowMs } = sharedWindow(limit);
        expect(points).toBeGreaterThanOrEqual(1);
        expect(points).toBeLessThanOrEqual(limit.burst);
        expect(points / windowMs).toBeLessThanOrEqual(limit.limit / limit.periodMs);
        // Windows that touch a period begin less than a period and a window apart, and at least a window from another.
        const touching = Math.ceil(limit.periodMs / windowMs) + 1;
        expect(points * touching).toBeLessThanOrEqual(limit.limit + limit.burst);
      },
    ),
  );
});
