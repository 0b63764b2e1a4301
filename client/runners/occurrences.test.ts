import { expect, test } from "vitest";
import { createOccurrences } from "./occurrences.ts";

test("tests that are alike in everything are numbered in their order, all others begin at 0", () => {
  const next = createOccurrences();
  const adds = { file: "a.test.ts", suitePath: ["cart"], name: "adds" };
  expect([adds, adds, { ...adds }].map(next)).toEqual([0, 1, 2]);
  const others = [
    { ...adds, suitePath: ["cart", "adds"], name: "" },
    { ...adds, suitePath: [], name: "cart adds" },
    { ...adds, parameters: "1" },
    { ...adds, variant: "chromium" },
    { ...adds, file: "b.test.ts" },
    { ...adds, name: "\ud800" },
    { ...adds, name: "\udc00" },
    { ...adds, name: "\ufffd" },
    { ...adds, name: "x".repeat(100_000) },
  ];
  expect(others.map(next)).toEqual(others.map(() => 0));
  expect(next(adds)).toBe(3);
});
