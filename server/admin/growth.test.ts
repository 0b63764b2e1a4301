import fc from "fast-check";
import { expect, test } from "vitest";
import { Growth } from "./growth.ts";

const HOUR = 3_600_000;

function of(capacity: number, sizes: readonly number[]): Growth {
  const growth = new Growth(capacity);
  sizes.forEach((size, hour) => {
    growth.add(hour * HOUR, size);
  });
  return growth;
}

test("the slope of a straight line is found, whatever its points", () => {
  fc.assert(
    fc.property(fc.integer({ min: -1_000, max: 1_000 }), fc.integer({ min: 4, max: 20 }), (slope, points) => {
      const growth = of(
        points,
        Array.from({ length: points }, (_, hour) => 5_000 + slope * hour),
      );
      expect(growth.perHour).toBeCloseTo(slope, 3);
    }),
  );
});

test("a few sizes tell nothing about growth", () => {
  expect(of(10, [1, 2, 3]).perHour).toBe(0);
  expect(of(10, [1, 2, 3]).onlyGrew).toBe(false);
});

test("the first minutes of a process tell nothing about growth", () => {
  const growth = new Growth(20);
  for (let minute = 0; minute < 10; minute++) {
    growth.add(minute * 60_000, minute);
  }
  expect(growth.perHour).toBe(0);
  growth.add(600_000, 10);
  expect(growth.perHour).toBeCloseTo(60);
});

test.each([
  [[1, 2, 3, 4, 5], true],
  [[1, 2, 2, 3, 4], true],
  [[1, 2, 3, 2, 5], false],
  [[1, 1, 1, 1, 2], false],
  [[9, 1, 2, 3, 4, 5], true],
])("whether %j only grew: %s", (sizes, expected) => {
  expect(of(5, sizes).onlyGrew).toBe(expected);
});
