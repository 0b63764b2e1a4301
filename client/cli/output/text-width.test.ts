import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { oneLine, printable, textWidth, truncate, wrap } from "./text-width.ts";

describe("textWidth", () => {
  it.each([
    ["weather", 7],
    ["Köln", 4],
    ["e\u0301", 1],
    ["天気", 4],
    ["👩‍👩‍👧", 2],
    ["● ready", 7],
    ["", 0],
  ])("of %j is %i", (text, width) => {
    expect(textWidth(text)).toBe(width);
  });
});

describe("truncate", () => {
  it("never takes more room than there is, and keeps what fits", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), fc.integer({ min: 1, max: 40 }), (text, width) => {
        const cut = truncate(text, width);
        expect(textWidth(cut)).toBeLessThanOrEqual(width);
        if (textWidth(text) <= width) expect(cut).toBe(text);
      }),
    );
  });

  it("does not cut a wide character in half", () => {
    expect(truncate("天気予報", 4)).toBe("天…");
  });
});

describe("wrap", () => {
  it("breaks between words and keeps words that are too long", () => {
    expect(wrap("one two three\nfour incomprehensibilities", 10)).toEqual([
      "one two",
      "three four",
      "incomprehensibilities",
    ]);
  });

  it("keeps paragraphs and lists", () => {
    expect(wrap("one\ntwo\n\n- three\n- four\n  five", 20)).toEqual([
      "one two",
      "",
      "- three",
      "- four",
      "  five",
    ]);
  });
});

describe("text from elsewhere", () => {
  it("cannot send commands to the terminal", () => {
    expect(oneLine("a\u001b[2Jb\n\tc\u009b0m")).toBe("a�[2Jb c�0m");
    expect(printable("line\nnext\u001b]0;title\u0007\u202e")).toBe("line\nnext�]0;title��");
  });
});
