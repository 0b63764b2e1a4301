import { expect, test } from "vitest";
import { withTimeLimit } from "./time-limit.ts";

test("work that ends in time gives its value", () => {
  expect(withTimeLimit(10_000, () => 42)).toEqual({ value: 42 });
  expect(withTimeLimit(10_000, () => undefined)).toEqual({ value: undefined });
});

test("work that fails fails with its own error", () => {
  const error = new RangeError("no");
  expect(() =>
    withTimeLimit(10_000, () => {
      throw error;
    }),
  ).toThrow(error);
});

test("work that would not end is stopped", () => {
  const endless = () => {
    for (;;) {}
  };
  expect(withTimeLimit(20, endless)).toBeUndefined();
  expect(withTimeLimit(10_000, () => "and others go on")).toEqual({ value: "and others go on" });
});
