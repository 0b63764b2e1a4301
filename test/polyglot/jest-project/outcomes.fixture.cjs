const { afterAll, describe, expect, it, test } = require("@jest/globals");

test("passes", () => {});
test("fails", () => {
  expect({ a: 1 }).toEqual({ a: 2 });
});
test("throws no error", () => {
  throw "only text";
});
test.skip("is skipped", () => {});
test.todo("is to be written");
test.failing("fails as it should", () => {
  throw new Error("known");
});
test.failing("passes although it should not", () => {});
test.each([1, 2, 3])("is odd: %i", (value) => {
  expect(value % 2).toBe(1);
});

for (const works of [true, false]) {
  test("twice", () => {
    expect(works).toBe(true);
  });
}

describe("outside", () => {
  describe("inside (a+b) [c]", () => {
    it("passes", () => {});
    it("fails with a name", () => {
      throw new TypeError("no");
    });
  });
});

describe("at once", () => {
  for (const name of ["a", "b", "c"]) {
    it.concurrent(name, async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
    });
  }
  it.concurrent("d", async () => {
    throw new Error("one of many");
  });
});

describe("whose tear-down fails", () => {
  afterAll(() => {
    throw new Error("no tear-down");
  });
  it("passes", () => {});
});

describe.skip("that is skipped", () => {
  it("is not run", () => {});
  it.todo("nor written");
});
