import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { benjaminiHochberg } from "./benjamini-hochberg.ts";
import { mannWhitney } from "./mann-whitney.ts";
import { normalAbove } from "./normal.ts";
import { median, quantile, robustDeviation } from "./quantile.ts";

// Expected numbers were computed with SciPy 1.17: stats.mannwhitneyu, stats.norm.sf, stats.false_discovery_control.

describe("mannWhitney", () => {
  it("counts exactly for small samples without ties", () => {
    const spread = mannWhitney([1.1, 2.2, 3.3, 4.4, 5.5, 6.6], [2.5, 3.5, 6.9, 7.1, 8.2, 9.3]);
    expect(spread.u).toBe(29);
    expect(spread.p).toBeCloseTo(0.09307359307359307, 12);
    const apart = mannWhitney([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
    expect(apart).toEqual({ u: 36, p: expect.closeTo(0.0021645021645021645, 14), effect: 1 });
    const uneven = mannWhitney([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [10.5, 20.5, 1.5]);
    expect([uneven.u, uneven.p]).toEqual([21, expect.closeTo(0.734065934065934, 12)]);
    const first = Array.from({ length: 20 }, (_, i) => (i * 1.37) % 10);
    const second = Array.from({ length: 20 }, (_, i) => ((i * 2.11) % 13) + 0.0123);
    expect(mannWhitney(first, second)).toMatchObject({
      u: 255,
      p: expect.closeTo(0.14170503074115778, 12),
    });
  });

  it("approximates with corrections for ties and continuity", () => {
    const tied = mannWhitney([1, 2, 2, 3, 3, 3, 4, 5], [2, 3, 4, 4, 5, 5, 6, 7, 7]);
    expect([tied.u, tied.p]).toEqual([58.5, expect.closeTo(0.03175895714806371, 12)]);
    const low = Array.from({ length: 50 }, (_, i) => i);
    const far = mannWhitney(
      low,
      low.map((value) => value + 30.5),
    );
    expect(far.u).toBe(2310);
    expect(far.p / 2.793318941073314e-13).toBeCloseTo(1, 9);
  });

  it("finds nothing in samples that are equal, or empty", () => {
    expect(mannWhitney([5, 5, 5], [5, 5, 5, 5])).toEqual({ u: 6, p: 1, effect: 0 });
    expect(mannWhitney([], [1])).toEqual({ u: 0, p: 1, effect: 0 });
  });

  it("says the same of both directions, whatever the samples", () => {
    const sample = fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(sample, sample, (first, second) => {
        const there = mannWhitney(first, second);
        const back = mannWhitney(second, first);
        expect(there.p).toBeCloseTo(back.p, 10);
        expect(there.p).toBeGreaterThan(0);
        expect(there.p).toBeLessThanOrEqual(1);
        expect(there.effect).toBeCloseTo(-back.effect, 10);
        const pairs = first.flatMap((a) => second.map((b): number => Math.sign(b - a)));
        expect(there.effect).toBeCloseTo(pairs.reduce((sum, sign) => sum + sign, 0) / pairs.length, 10);
      }),
    );
  });
});

describe("normalAbove", () => {
  it("is exact into the far tail", () => {
    const expected: [number, number][] = [
      [0, 0.5],
      [1, 0.15865525393145707],
      [1.96, 0.024997895148220435],
      [3, 0.0013498980316300933],
      [3.6, 0.00015910859015753364],
      [6, 9.865876450376946e-10],
      [10, 7.61985302416047e-24],
      [-1.5, 0.9331927987311419],
    ];
    for (const [z, p] of expected) {
      expect(normalAbove(z) / p).toBeCloseTo(1, 11);
    }
  });
});

describe("benjaminiHochberg", () => {
  it("gives the numbers of the published example", () => {
    // Benjamini and Hochberg 1995, section 4.2: four of fifteen hypotheses are rejected at q = 0.05.
    const p = [
      0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528,
      0.759, 1,
    ];
    const expected = [
      0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.06385714, 0.06385714, 0.0645, 0.0765, 0.486, 0.58118182,
      0.714875, 0.75323077, 0.81321429, 1,
    ];
    const adjusted = benjaminiHochberg(p);
    expect(adjusted).toEqual(expected.map((value) => expect.closeTo(value, 7)));
    expect(adjusted.filter((value) => value <= 0.05)).toHaveLength(4);
  });

  it("keeps the places of unordered and tied probabilities", () => {
    expect(benjaminiHochberg([0.01, 0.04, 0.03, 0.005, 0.8, 0.03, 0.0001])).toEqual(
      [0.0233333333, 0.0466666667, 0.042, 0.0175, 0.8, 0.042, 0.0007].map((p) => expect.closeTo(p, 9)),
    );
    expect(benjaminiHochberg([])).toEqual([]);
  });
});

describe("quantiles", () => {
  it("interpolate between neighbours", () => {
    expect(median([5, 1, 3])).toBe(3);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(quantile([1, 2, 3, 4, 5], 0.95)).toBeCloseTo(4.8, 12);
    expect(median([])).toBeNaN();
  });

  it("measure spread without minding outliers", () => {
    expect(robustDeviation([1, 2, 3, 4, 5])).toBeCloseTo(1.4826, 12);
    expect(robustDeviation([1, 2, 3, 4, 1e9])).toBeCloseTo(1.4826, 12);
  });
});
