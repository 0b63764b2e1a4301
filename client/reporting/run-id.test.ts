import { describe, expect, it } from "vitest";
import { isRunIdPrefix, shortRunId } from "./run-id.ts";

const ID = "5093e212-2767-4b17-91dd-f96b6caae8e8";

describe("the id of a run", () => {
  it("is short for people, unless it is none of the server's", () => {
    expect(shortRunId(ID)).toBe("5093e212");
    expect(shortRunId("run-1")).toBe("run-1");
  });

  it("may be told by its beginning, of four digits at least", () => {
    expect(["5093", "5093e212", ID.slice(0, 20)].map(isRunIdPrefix)).toEqual([true, true, true]);
    expect([ID, "509", "latest", "-5093", "5093g"].map(isRunIdPrefix)).toEqual([
      false,
      false,
      false,
      false,
      false,
    ]);
  });
});
