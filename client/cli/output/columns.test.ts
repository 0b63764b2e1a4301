import pico from "picocolors";
import { describe, expect, it } from "vitest";
import { renderColumns } from "./columns.ts";

const plain = { titleStyle: String };

describe("renderColumns", () => {
  it("aligns columns, numbers to the right, and leaves out empty ones", () => {
    const table = renderColumns(
      [{ title: "NAME" }, { title: "TOOLS", align: "right" }, { title: "TAGS" }, { title: "STATE" }],
      [
        ["weather", "2", "", "ready"],
        ["天気", "1,200", "", "down"],
      ],
      plain,
    );
    expect(table).toBe(["NAME     TOOLS  STATE", "weather      2  ready", "天気     1,200  down"].join("\n"));
  });

  it("takes from the widest columns that may give when the terminal is too narrow", () => {
    const columns = [{ title: "NAME", minWidth: 6 }, { title: "WHAT", minWidth: 8 }, { title: "ID" }];
    const rows = [["a-rather-long-name", "does something that takes many words", "0123456789"]];
    const table = renderColumns(columns, rows, { ...plain, width: 36 });
    expect(table.split("\n").map((line) => line.length)).toEqual([28, 36]);
    expect(table).toContain("0123456789");
    // Below the least widths nothing more is taken: better too wide than unreadable.
    expect(renderColumns(columns, rows, { ...plain, width: 10 })).toContain("a-rat…  does so…  0123456789");
  });

  it("leaves out what is optional where even the least widths do not fit", () => {
    const columns = [{ title: "NAME" }, { title: "ZONE", optional: true }, { title: "AGE", optional: true }];
    const title = (width: number) =>
      renderColumns(columns, [["a", "b", "c"]], { ...plain, width }).split("\n")[0];
    expect([15, 14, 9].map(title)).toEqual(["NAME  ZONE  AGE", "NAME  ZONE", "NAME"]);
    expect(title(2)).toBe("NAME");
  });

  it("continues the last column below where it may wrap", () => {
    const columns = [{ title: "NAME" }, { title: "WHAT", minWidth: 8, wraps: true }];
    const rows = [
      ["a", "does something that takes many words"],
      ["b", "little"],
    ];
    expect(renderColumns(columns, rows, { ...plain, width: 26, indent: "  " }).split("\n")).toEqual([
      "  NAME  WHAT",
      "  a     does something",
      "        that takes many",
      "        words",
      "  b     little",
    ]);
    expect(renderColumns(columns, rows, plain)).toContain("a     does something that takes many words\n");
  });

  it("does not count colours as width", () => {
    const { green } = pico.createColors(true);
    const table = renderColumns(
      [{ title: "A" }, { title: "B" }],
      [[{ text: "x", style: green }, "y"]],
      plain,
    );
    expect(table).toBe(`A  B\n${green("x")}  y`);
  });

  it("keeps cells on one line", () => {
    expect(renderColumns([{ title: "A" }], [["one\ntwo\u001b[0m"]], plain)).toBe("A\none two�[0m");
  });
});
