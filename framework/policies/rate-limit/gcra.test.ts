import fc from "fast-check";
import { expect, test } from "vitest";
import { createGcra, remaining, resetMs, spend, waitMs } from "./gcra.ts";

const anyLimit = fc.record({
  limit: fc.integer({ min: 1, max: 1_000 }),
  periodMs: fc.integer({ min: 1, max: 100_000 }),
  burst: fc.integer({ min: 1, max: 50 }),
});

test("no period sees more calls than limit and burst together, whenever they come", () => {
  fc.assert(
    fc.property(
      anyLimit,
      fc.array(fc.double({ min: 0, max: 3, noNaN: true }), { minLength: 1, maxLength: 300 }),
      fc.double({ min: 0, max: 1e10, noNaN: true }),
      (limit, gaps, start) => {
        const gcra = createGcra(limit);
        const allowedAt: number[] = [];
        let now = start;
        let tat = 0;
        for (const gap of gaps) {
          // From many at once to one in three intervals.
          now += gap < 1 ? 0 : (gap - 1) * 1.5 * gcra.intervalMs;
          if (waitMs(gcra, tat, now) === 0) {
            tat = spend(gcra, tat, now);
            allowedAt.push(now);
          }
        }
        for (const [index, from] of allowedAt.entries()) {
          const within = allowedAt.slice(index).filter((at) => at - from <= limit.periodMs);
          expect(within.length).toBeLessThanOrEqual(limit.limit + limit.burst);
        }
      },
    ),
  );
});

test("whoever waits as long as told gets through, and no earlier", () => {
  fc.assert(
    fc.property(anyLimit, fc.double({ min: 0, max: 1e10, noNaN: true }), (limit, now) => {
      const gcra = createGcra(limit);
      let tat = 0;
      for (let call = 0; call < limit.burst; call++) {
        expect(remaining(gcra, tat, now)).toBe(limit.burst - call);
        expect(waitMs(gcra, tat, now)).toBe(0);
        tat = spend(gcra, tat, now);
      }
      expect(remaining(gcra, tat, now)).toBe(0);
      const wait = waitMs(gcra, tat, now);
      expect(waitMs(gcra, tat, now + wait)).toBe(0);
      expect(waitMs(gcra, tat, now + wait * 0.9)).toBeGreaterThan(0);
      expect(remaining(gcra, tat, now + resetMs(tat, now))).toBe(limit.burst);
    }),
  );
});

test("without a burst of its own a limit lets 20 at once, or all that there are", () => {
  expect(createGcra({ limit: 200, periodMs: 60_000 }).burst).toBe(20);
  expect(createGcra({ limit: 5, periodMs: 60_000 }).burst).toBe(5);
});

test.each([
  [{ limit: 0, periodMs: 1_000 }, "limit must be a whole number of 1 or more, not 0"],
  [{ limit: 1.5, periodMs: 1_000 }, "limit must be a whole number of 1 or more, not 1.5"],
  [{ limit: 1, periodMs: 1_000, burst: -1 }, "burst must be a whole number of 1 or more, not -1"],
  [{ limit: 1, periodMs: Number.NaN }, "periodMs must be 1 or more, not NaN"],
  [{ limit: 1, periodMs: 0 }, "periodMs must be 1 or more, not 0"],
  [{ limit: 1e9, periodMs: 1_000 }, "1000000000 calls in 1000 ms are more than can be counted"],
])("a limit that makes no sense is refused: %j", (limit, message) => {
  expect(() => createGcra(limit)).toThrow(new RangeError(message));
});
