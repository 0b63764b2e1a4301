import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { integerRangePattern } from "./integer-range.ts";

describe("the pattern of an integer range", () => {
  it("matches exactly the canonical decimals of the integers in the range", () => {
    const bound = fc.oneof(
      fc.bigInt({ min: -1200n, max: 1200n }),
      fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n }),
    );
    fc.assert(
      fc.property(bound, bound, bound, (a, b, c) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        const pattern = new RegExp(`^${integerRangePattern(low, high)}$`);
        for (const n of [low - 1n, low, low + 1n, high - 1n, high, high + 1n, c, -c, c / 10n, c * 10n, 0n]) {
          expect(pattern.test(String(n))).toBe(n >= low && n <= high);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("matches every integer of a small range and nothing else", () => {
    const pattern = new RegExp(`^${integerRangePattern(-105n, 1234n)}$`);
    for (let n = -2000; n <= 2000; n++) {
      expect(pattern.test(String(n))).toBe(n >= -105 && n <= 1234);
    }
    for (const text of ["", "-0", "00", "01", "+1", "1.0", " 1"]) {
      expect(pattern.test(text)).toBe(false);
    }
  });
});
