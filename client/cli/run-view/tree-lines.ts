import { stripVTControlCharacters } from "node:util";
import { StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Colors } from "picocolors/types.js";
import type { Cell } from "../output/columns.ts";
import { formatMs } from "../output/format.ts";
import { oneLine, printable, textWidth, truncate, wrap } from "../output/text-width.ts";
import { chooseRows, hiddenSteps, type Row, type Rows } from "./rows.ts";
import { endedSteps, isEndedStep, type RunTree, type StepNode } from "./run-tree.ts";
import { errorText, reusedText, STATE_WIDTH, stepState, stepWork, usageBrief } from "./states.ts";

/** The widest that names of steps are set. */
const MAX_NAME = 36;

/** How many lines of what a model is writing are shown, where there is room. */
const MAX_TEXT_LINES = 6;

export interface TreeSize {
  readonly width: number;
  /** The most lines. */
  readonly room: number;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** The steps of a run as lines, as many as there is room for. */
export function renderTree(paint: Colors, tree: RunTree, { width, room, now }: TreeSize): string[] {
  if (room <= 0) return [];
  const whole = chooseRows(tree, room);
  const { rows, hidden } = hiddenSteps(whole.hidden) === 0 ? whole : chooseRows(tree, room - 1);
  const more = hiddenSteps(hidden) === 0 ? [] : [paint.dim(truncate(hiddenText(hidden), width))];
  const nameWidth = Math.min(
    Math.max(8, Math.min(MAX_NAME, Math.floor(width / 2) - STATE_WIDTH)),
    Math.max(0, ...rows.map(({ node, depth }) => depth * 2 + textWidth(oneLine(node.name)))),
  );
  const writing = rows.filter(({ node }) => node.text.trim() !== "" && node.state === StepState.RUNNING);
  const linesEach = Math.min(
    MAX_TEXT_LINES,
    Math.floor((room - rows.length - more.length) / Math.max(1, writing.length)),
  );
  return [
    ...rows.flatMap((row) => [
      stepLine(paint, row, nameWidth, width, now),
      ...(row.node.state === StepState.RUNNING ? textLines(paint, row, linesEach, width) : []),
    ]),
    ...more,
  ];
}

function stepLine(
  paint: Colors,
  { node, depth }: Row,
  nameWidth: number,
  width: number,
  now: number,
): string {
  const state =
    node.approval === undefined ? stepState(node.state, paint) : { text: "? approval", style: paint.yellow };
  const name = truncate("  ".repeat(depth) + oneLine(node.name), nameWidth);
  return fitLine(
    [
      { text: state.text.padEnd(STATE_WIDTH), style: state.style },
      { text: name + " ".repeat(nameWidth - textWidth(name)), style: depth === 0 ? paint.bold : String },
      { text: elapsed(node, now).padStart(7), style: paint.dim },
      ...details(paint, node),
    ],
    width,
  );
}

function details(paint: Colors, node: StepNode): Cell[] {
  const error = isEndedStep(node.state) ? errorText(node.error) : "";
  return [
    ...(node.items > 0 || endedItems(node) > 0 ? [itemsCell(paint, node)] : []),
    ...(node.attempts > 1 ? [{ text: `attempt ${node.attempts}`, style: paint.yellow }] : []),
    ...(node.isFallback ? [{ text: "fallback", style: paint.yellow }] : []),
    ...(node.isReused ? [{ text: reusedText(node.usage), style: paint.dim }] : []),
    ...(error === ""
      ? []
      : [{ text: error, style: node.state === StepState.FAILED ? paint.red : paint.dim }]),
    ...(node.percent === undefined ? [] : [`${Math.floor(node.percent)} %`]),
    oneLine(node.approval?.message ?? node.message),
    { text: stepWork(node), style: paint.dim },
    { text: usageBrief(node.usage), style: paint.dim },
    { text: node.childId === "" ? "" : `run ${oneLine(node.childId)}`, style: paint.dim },
  ];
}

/** Items that have ended, for a fan-out whose beginning was not seen. */
function endedItems(node: StepNode): number {
  return node.kind === "fan_out" ? endedSteps(node.ended) : 0;
}

function itemsCell(paint: Colors, { ended, items }: StepNode): Cell {
  const done = endedSteps(ended).toLocaleString("en");
  const of = items > 0 ? ` of ${items.toLocaleString("en")}` : "";
  const failed = ended.failed === 0 ? "" : `, ${ended.failed.toLocaleString("en")} failed`;
  return { text: `${done}${of} ended${failed}`, style: ended.failed === 0 ? paint.cyan : paint.red };
}

function elapsed({ startedAt, endedAt, state }: StepNode, now: number): string {
  if (startedAt === undefined) return "";
  if (endedAt !== undefined) return formatMs(Math.max(0, endedAt - startedAt));
  if (isEndedStep(state)) return "";
  // A tenth of a second that changes with every drawing says nothing.
  return formatMs(Math.floor(Math.max(0, now - startedAt) / 1000) * 1000);
}

/** The end of what a model is writing. */
function textLines(paint: Colors, { node, depth }: Row, most: number, width: number): string[] {
  if (most <= 0 || node.text.trim() === "") return [];
  // Below the name of its step, unless that leaves too little.
  const indent = " ".repeat(Math.min(STATE_WIDTH + 2 + depth * 2, Math.floor(width / 2)));
  const room = width - indent.length - 2;
  const lines = cleanText(node.text).trimEnd().split("\n").slice(-most);
  return lines
    .flatMap((line) => wrap(line, room))
    .slice(-most)
    .map((line) => paint.dim(`${indent}│ ${truncate(line, room)}`));
}

/** Text of models may neither move the cursor nor colour what follows. */
export function cleanText(text: string): string {
  return printable(stripVTControlCharacters(text.replaceAll("\r\n", "\n")).replaceAll("\t", "  "));
}

function hiddenText(hidden: Rows["hidden"]): string {
  const parts = (["running", "failed", "pending", "succeeded", "skipped", "cancelled"] as const)
    .filter((state) => hidden[state] > 0)
    .map((state) => `${hidden[state].toLocaleString("en")} ${state}`);
  return `… ${hiddenSteps(hidden).toLocaleString("en")} more: ${parts.join(", ")}`;
}

/** Cells beside each other, without those that are empty, cut where the line ends. */
export function fitLine(cells: readonly Cell[], width: number): string {
  let line = "";
  let used = 0;
  for (const cell of cells) {
    const { text, style } = typeof cell === "string" ? { text: cell, style: String } : cell;
    if (text === "") continue;
    const gap = used === 0 ? 0 : 2;
    const room = width - used - gap;
    if (room < 4) break;
    const fitted = truncate(text, room);
    line += " ".repeat(gap) + style(fitted);
    used += gap + textWidth(fitted);
  }
  return line.trimEnd();
}
