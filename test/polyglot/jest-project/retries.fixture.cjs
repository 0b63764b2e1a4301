const { expect, jest: settings, test } = require("@jest/globals");

// For all tests of the file.
settings.retryTimes(2);

let tries = 0;
test("passes at last", () => {
  tries++;
  expect(tries).toBe(3);
});
test("fails however often", () => {
  expect(1).toBe(2);
});
for (const works of [true, false, false]) {
  test("of one name", () => {
    expect(works).toBe(true);
  });
}
