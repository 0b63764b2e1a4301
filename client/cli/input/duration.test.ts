import { describe, expect, it } from "vitest";
import { UsageError } from "../usage-error.ts";
import { parseDuration } from "./duration.ts";

describe("parseDuration", () => {
  it.each([
    ["500ms", 500],
    ["30s", 30_000],
    ["1.5s", 1_500],
    ["1h30m", 5_400_000],
    ["2d", 172_800_000],
    ["10", 10_000],
    ["0.25", 250],
  ])("reads %s as %i ms", (text, ms) => {
    expect(parseDuration(text, "--timeout")).toBe(ms);
  });

  it.each(["", "0", "0s", "-5s", "5 s", "5x", "s", "1h-30m", "Infinity"])("refuses %j", (text) => {
    expect(() => parseDuration(text, "--timeout")).toThrow(UsageError);
  });
});
