import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { count, firstSentence, formatAge, formatMs } from "./format.ts";
import { formatJson } from "./json.ts";
import { sparkline } from "./sparkline.ts";

describe("what people read", () => {
  it.each([
    [0.44, "0.4 ms"],
    [2, "2 ms"],
    [12.4, "12 ms"],
    [1_500, "1.5 s"],
    [999.7, "1 s"],
    [59_999, "1m"],
    [200_000, "3m 20s"],
    [7_500_000, "2h 5m"],
    [3 * 86_400_000, "3d"],
  ])("writes %d ms as %s", (ms, text) => {
    expect(formatMs(ms)).toBe(text);
  });

  it("says how long ago something was, in one unit", () => {
    const ages = [0, 12_000, 300_000, 3 * 3_600_000, 9 * 86_400_000].map((age) =>
      formatAge(timestampFromMs(1e12 - age), 1e12),
    );
    expect(ages).toEqual(["now", "12s ago", "5m ago", "3h ago", "9d ago"]);
    expect(formatAge(undefined, 1e12)).toBe("never");
    expect(formatAge(timestampFromMs(1e12 + 5_000), 1e12)).toBe("now");
  });

  it("counts", () => {
    expect([count(1, "tool"), count(0, "tool"), count(1_200, "tool")]).toEqual([
      "1 tool",
      "0 tools",
      "1,200 tools",
    ]);
  });

  it("takes the first sentence of a description", () => {
    expect(firstSentence("Forecasts v1.2 weather. And more.")).toBe("Forecasts v1.2 weather");
    expect(firstSentence("Only a title\n\nThen a paragraph.")).toBe("Only a title");
    expect(firstSentence("Over two\nlines. Then more.")).toBe("Over two\nlines");
  });

  it("draws numbers as bars", () => {
    expect(sparkline([0, 1, 2, 4])).toBe("▁▃▅█");
    expect(sparkline([0, 0])).toBe("▁▁");
    expect(sparkline([])).toBe("");
  });

  it("writes JSON that stays JSON and cannot send commands to the terminal", () => {
    const value = { text: 'a"b\u009b\u001b', list: [1, true, null] };
    const json = formatJson(value);
    expect(JSON.parse(json)).toEqual(value);
    expect(json).toMatch(/^[\x20-\x7e]*$/);
  });
});
