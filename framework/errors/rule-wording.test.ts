import { expect, test } from "vitest";
import { wordRule } from "./rule-wording.ts";

test.each([
  ["must be at least 1 characters", "must not be empty"],
  ["must be at least 1 bytes", "must not be empty"],
  ["must contain at least 1 item(s)", "must not be empty"],
  ["map must be at least 1 entries", "must not be empty"],
  ["must be 1 characters", "must be 1 character"],
  ["must be at most 1 bytes", "must be at most 1 byte"],
  ["must be at least 11 characters", "must be at least 11 characters"],
  ["must contain at least 2 item(s)", "must contain at least 2 items"],
  ["must contain no more than 1 item(s)", "must contain at most 1 item"],
  ["map must be at most 1 entries", "must have at most 1 entry"],
  ["map must be at most 64 entries", "must have at most 64 entries"],
  ["repeated value must contain unique items", "must not contain an item twice"],
  ["a rule's own words: at least 1 characters", "a rule's own words: at least 1 characters"],
])("%s: %s", (theirs, ours) => {
  expect(wordRule(theirs)).toBe(ours);
});
