const { expect, test } = require("@jest/globals");

test("passes", () => {
  expect(1).toBe(1);
});
