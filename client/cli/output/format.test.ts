import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import {
  count,
  firstSentence,
  formatAge,
  formatBytes,
  formatMs,
  formatNumber,
  formatShare,
  formatUntil,
} from "./format.ts";
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

  it("says how long it is until then", () => {
    const until = (ms: number) => formatUntil(timestampFromMs(1e12 + ms), 1e12);
    expect([until(-5), until(0), until(100), until(59_000), until(61_000)]).toEqual([
      "now",
      "now",
      "in 1s",
      "in 59s",
      "in 2m",
    ]);
    expect(formatUntil(undefined, 0)).toBe("");
  });

  it("sizes up bytes", () => {
    expect([0, 1_023, 1_024, 1_536, 10_240, 1_048_575, 2 ** 31].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1 KiB",
      "1.5 KiB",
      "10 KiB",
      "1 MiB",
      "2 GiB",
    ]);
  });

  it("writes all and nothing as such, and what is nearly all or nearly nothing not", () => {
    expect([0, 0.0001, 0.5, 0.984, 0.9999, 1].map(formatShare)).toEqual([
      "0 %",
      "0.1 %",
      "50 %",
      "98.4 %",
      "99.9 %",
      "100 %",
    ]);
  });

  it("writes numbers as precisely as one looks at them", () => {
    expect([0, 0.04213, 12.34, 123.456, 1_234_567.8, 5n].map(formatNumber)).toEqual([
      "0",
      "0.0421",
      "12.3",
      "123.5",
      "1,234,567.8",
      "5",
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
