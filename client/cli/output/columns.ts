import type { Formatter } from "picocolors/types.js";
import { oneLine, textWidth, truncate, wrap } from "./text-width.ts";

/** A cell: its text, and how to colour it. Colours are put on last, so that they do not count as width. */
export type Cell = string | { readonly text: string; readonly style: Formatter };

export interface Column {
  readonly title: string;
  /** Numbers read best from the right. Default `left`. */
  readonly align?: "left" | "right";
  /** The narrowest that the column may become when the terminal is too small. Unset: it keeps its width. */
  readonly minWidth?: number;
  /** Left out where the terminal is too narrow for all, the last such column first. */
  readonly optional?: boolean;
  /** Text that is too long goes on below instead of being cut. For the last column. */
  readonly wraps?: boolean;
}

export interface ColumnsOptions {
  /** Cells of the terminal. Unset: nothing is cut, as for a pipe. */
  readonly width?: number | undefined;
  /** Colours the titles. */
  readonly titleStyle: Formatter;
  /** Put before every line. Default none. */
  readonly indent?: string;
}

const GAP = "  ";

/** Rows in aligned columns under their titles, without borders. Columns that are empty in every row are left out. */
export function renderColumns(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  options: ColumnsOptions,
): string {
  const indent = options.indent ?? "";
  const width = options.width === undefined ? undefined : options.width - textWidth(indent);
  const filled = columns
    .map((column, index) => ({ column, cells: rows.map((row) => toCell(row[index] ?? "")) }))
    .filter(({ cells }) => cells.some(({ text }) => text !== ""))
    .map(({ column, cells }) => {
      const natural = Math.max(textWidth(column.title), ...cells.map(({ text }) => textWidth(text)));
      return { column, cells, natural, least: column.minWidth };
    });
  const shown = dropOptional(filled, width);
  const widths = fit(shown, width);
  const line = (cells: readonly { text: string; style: Formatter }[]) =>
    (
      indent + cells.map((cell, index) => place(cell, widths[index] ?? 0, shown[index]?.column)).join(GAP)
    ).trimEnd();
  const title = line(shown.map(({ column }) => ({ text: column.title, style: options.titleStyle })));
  const lines = rows.flatMap((_, row) =>
    unfold(
      shown.map(({ cells }) => cells[row] ?? PLAIN),
      widths,
      shown.at(-1)?.column.wraps === true,
    ).map(line),
  );
  return [title, ...lines].join("\n");
}

const PLAIN = { text: "", style: String } as const;

function toCell(cell: Cell): { text: string; style: Formatter } {
  return typeof cell === "string"
    ? { text: oneLine(cell), style: String }
    : { ...cell, text: oneLine(cell.text) };
}

/** The lines of a row: one, or more where its last cell goes on below. */
function unfold<C extends { text: string }>(
  cells: readonly C[],
  widths: readonly number[],
  wraps: boolean,
): C[][] {
  const last = cells.at(-1);
  if (!wraps || last === undefined) return [[...cells]];
  const [first = "", ...rest] = wrap(last.text, widths[cells.length - 1] ?? 0);
  return [
    [...cells.slice(0, -1), { ...last, text: first }],
    ...rest.map((text) => [...cells.slice(0, -1).map((cell) => ({ ...cell, text: "" })), { ...last, text }]),
  ];
}

function place(cell: { text: string; style: Formatter }, width: number, column: Column | undefined): string {
  const text = truncate(cell.text, width);
  const padding = " ".repeat(Math.max(0, width - textWidth(text)));
  const styled = text === "" ? "" : cell.style(text);
  return column?.align === "right" ? padding + styled : styled + padding;
}

function dropOptional<C extends { column: Column; natural: number; least: number | undefined }>(
  columns: readonly C[],
  width: number | undefined,
): readonly C[] {
  const least = columns.reduce(
    (sum, { natural, least = natural }) => sum + Math.min(natural, least),
    GAP.length * (columns.length - 1),
  );
  if (width === undefined || least <= width) return columns;
  const last = columns.findLastIndex(({ column }) => column.optional === true);
  return last < 0 ? columns : dropOptional(columns.toSpliced(last, 1), width);
}

/** Takes what is missing from the widest column that may still give, until everything fits or nothing may give. */
function fit(
  columns: readonly { natural: number; least: number | undefined }[],
  width: number | undefined,
): number[] {
  const widths = columns.map(({ natural }) => natural);
  if (width === undefined) return widths;
  let excess = widths.reduce((sum, each) => sum + each, GAP.length * (widths.length - 1)) - width;
  while (excess > 0) {
    let widest = -1;
    for (const [index, { least }] of columns.entries()) {
      const current = widths[index] ?? 0;
      if (least !== undefined && current > least && current > (widths[widest] ?? 0)) widest = index;
    }
    if (widest < 0) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
    excess -= 1;
  }
  return widths;
}
