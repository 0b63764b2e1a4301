import type { Interruption } from "../../index.ts";
import { shortRunId } from "../../reporting/run-id.ts";
import { formatMs } from "../output/format.ts";
import { oneLine, truncate } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { answerHint } from "./event-lines.ts";
import { isEndedStep, type RunTree } from "./run-tree.ts";
import { runState, runTitle, usageText } from "./states.ts";
import { fitLine, renderTree } from "./tree-lines.ts";

/** How many approvals are shown with the command that answers them. */
const MAX_APPROVALS = 2;

export interface LiveOptions {
  /** Set while the connection is lost. */
  readonly interruption: Interruption | undefined;
  /** What keys do now. */
  readonly hint: string;
}

/** The whole view of a run as text, never higher or wider than the terminal. */
export function renderLive({ paint, io }: Terminal, tree: RunTree, options: LiveOptions): string {
  const width = Math.max(io.stdout.columns ?? 80, 20);
  // The terminal scrolls when its last line is filled.
  const rows = Math.max(3, (io.stdout.rows ?? 24) - 1);
  const usage = usageText(tree.usage);
  const footer = [
    ...approvalLines(paint, tree, width),
    ...(usage === "" ? [] : [paint.dim(truncate(usage, width))]),
    ...(options.hint === "" ? [] : [paint.dim(truncate(options.hint, width))]),
  ].slice(0, Math.max(0, rows - 2));
  const now = io.now();
  const steps = renderTree(paint, tree, { width, room: rows - 1 - footer.length, now });
  return [titleLine(paint, tree, options, width, now), ...steps, ...footer].join("\n");
}

function titleLine(
  paint: Terminal["paint"],
  tree: RunTree,
  { interruption }: LiveOptions,
  width: number,
  now: number,
): string {
  if (interruption !== undefined) {
    const why =
      interruption.error === undefined ? "the server ended the stream" : interruption.error.rawMessage;
    return paint.red(truncate(`✗ connection lost (${oneLine(why)}); attempt ${interruption.attempt}`, width));
  }
  if (tree.run === undefined) return paint.dim("○ connecting");
  const state =
    tree.isCancelling && tree.endedAt === undefined
      ? { text: "■ cancelling", style: paint.magenta }
      : runState(tree.state, paint);
  return fitLine(
    [
      state,
      { text: runTitle(tree.run), style: paint.bold },
      stepsText(tree),
      elapsedText(tree, now),
      { text: tree.takeovers > 0 ? `taken over ${tree.takeovers}×` : "", style: paint.yellow },
      { text: shortRunId(oneLine(tree.run.id)), style: paint.dim },
    ],
    width,
  );
}

/** `12 of 40 steps`, as far as they are known before anything runs. */
function stepsText({ roots }: RunTree): string {
  if (roots.size < 2) return "";
  let ended = 0;
  for (const { state } of roots.values()) if (isEndedStep(state)) ended += 1;
  return `${ended.toLocaleString("en")} of ${roots.size.toLocaleString("en")} steps`;
}

function elapsedText({ startedAt, endedAt }: RunTree, now: number): string {
  if (startedAt === undefined) return "";
  return formatMs(endedAt !== undefined ? endedAt - startedAt : Math.floor((now - startedAt) / 1000) * 1000);
}

function approvalLines(paint: Terminal["paint"], { approvals, run }: RunTree, width: number): string[] {
  const shown = [...approvals.values()].slice(0, MAX_APPROVALS);
  const hidden = approvals.size - shown.length;
  return [
    ...shown.flatMap(({ path, message }) => [
      paint.yellow(truncate(`? ${oneLine(path)} asks: ${oneLine(message)}`, width)),
      truncate(`  ${answerHint(run?.id ?? "", path)}`, width),
    ]),
    ...(hidden === 0 ? [] : [paint.dim(`  … ${hidden.toLocaleString("en")} more questions`)]),
  ];
}
