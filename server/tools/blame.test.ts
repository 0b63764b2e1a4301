import { expect, test } from "vitest";
import { createBlame } from "./blame.ts";

const instances = [{ id: "a" }, { id: "b" }, { id: "c" }];

test("a service is to blame when all of its instances have failed since the last success", () => {
  const blame = createBlame();
  expect(blame.failed("s", "a", instances)).toBe(false);
  expect(blame.failed("s", "a", instances)).toBe(false);
  expect(blame.failed("s", "b", instances)).toBe(false);
  expect(blame.failed("s", "c", instances)).toBe(true);
  blame.succeeded("s");
  expect(blame.failed("s", "c", instances)).toBe(false);
});

test("the only instance there is speaks for its service", () => {
  expect(createBlame().failed("s", "a", [{ id: "a" }])).toBe(true);
});

test("instances that are gone do not matter, and new ones have not failed", () => {
  const blame = createBlame();
  blame.failed("s", "a", instances);
  expect(blame.failed("s", "b", [{ id: "b" }])).toBe(true);
  expect(blame.failed("s", "b", [{ id: "b" }, { id: "new" }])).toBe(false);
  expect(blame.failed("other", "b", instances)).toBe(false);
});
