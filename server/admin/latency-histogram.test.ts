import fc from "fast-check";
import { expect, test } from "vitest";
import { LatencyHistogram } from "./latency-histogram.ts";

const latencies = fc.array(fc.double({ min: 0.02, max: 3_600_000, noNaN: true }), {
  minLength: 1,
  maxLength: 200,
});

function of(values: readonly number[]): LatencyHistogram {
  const histogram = new LatencyHistogram();
  for (const value of values) {
    histogram.record(value);
  }
  return histogram;
}

test("quantiles are those of the sorted latencies, give or take 4.5 %", () => {
  fc.assert(
    fc.property(latencies, fc.double({ min: 0, max: 1, noNaN: true }), (values, share) => {
      const sorted = values.toSorted((a, b) => a - b);
      const exact = sorted[Math.max(0, Math.ceil(share * values.length) - 1)] ?? 0;
      const quantile = of(values).quantile(share);
      expect(quantile / exact).toBeGreaterThan(0.955);
      expect(quantile / exact).toBeLessThan(1.045);
    }),
  );
});

test("counts up to powers of two are exact", () => {
  const bounds = [0.25, 1, 2, 1_024];
  fc.assert(
    fc.property(fc.array(fc.oneof(latencies, fc.constant(bounds)), { maxLength: 5 }), (nested) => {
      // To the microsecond: what is off by a rounding error may count as equal.
      const values = nested.flat().map((value) => Math.round(value * 1_000) / 1_000);
      expect(of(values).cumulative(bounds)).toEqual(
        bounds.map((bound) => values.filter((value) => value <= bound).length),
      );
    }),
  );
});

test("what came since a copy was made is what was recorded since", () => {
  fc.assert(
    fc.property(latencies, latencies, (before, after) => {
      const histogram = of(before);
      const copy = histogram.copy();
      for (const value of after) {
        histogram.record(value);
      }
      const since = histogram.since(copy);
      expect(since.count).toBe(after.length);
      expect(since.quantile(0.9)).toBe(of(after).quantile(0.9));
      copy.add(since);
      expect(copy.quantile(0.5)).toBe(histogram.quantile(0.5));
    }),
  );
});

test("nothing, less than nothing and what never ends have a place", () => {
  expect(new LatencyHistogram().quantile(0.99)).toBe(0);
  const histogram = of([0, -1, Number.NaN, 1e12, Number.POSITIVE_INFINITY]);
  expect(histogram.count).toBe(5);
  expect(histogram.quantile(0.5)).toBeLessThan(0.02);
  expect(histogram.quantile(1)).toBeGreaterThan(4_000_000);
});
