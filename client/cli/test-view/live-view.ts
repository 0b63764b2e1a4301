import { count, formatMs } from "../output/format.ts";
import { oneLine, textWidth, truncate } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { renderFailure } from "./failure.ts";
import { isError, type LiveLine, type LiveRun } from "./live-run.ts";
import { countParts, endedTests, testRunState, testTitle } from "./states.ts";
import { renderSummary } from "./summary.ts";

const MAX_BAR = 40;
const MIN_BAR = 8;

/** How many running tests are named below the bar, where the terminal is high enough. */
const MAX_RUNNING = 6;

/** What stays at the bottom of the terminal while a run is watched: a bar, counts, and the tests that run now. */
export function renderLive(terminal: Terminal, live: LiveRun): string {
  const { io } = terminal;
  const width = Math.max(io.stdout.columns ?? 80, 20);
  const rows = io.stdout.rows ?? 24;
  return [
    titleLine(terminal, live, width),
    barLine(terminal, live, width),
    ...countsLine(terminal, live, width),
    ...runningLines(terminal, live, width, Math.min(MAX_RUNNING, Math.max(0, rows - 8))),
  ].join("\n");
}

function titleLine({ paint }: Terminal, { run, interruption, isCancelling }: LiveRun, width: number): string {
  if (interruption !== undefined) {
    const why =
      interruption.error === undefined ? "the server ended the stream" : interruption.error.rawMessage;
    return paint.red(truncate(`✗ connection lost (${oneLine(why)}); attempt ${interruption.attempt}`, width));
  }
  if (isCancelling && run?.end === undefined) {
    return paint.magenta(truncate("■ cancelling the run; Ctrl-C again leaves it", width));
  }
  if (run === undefined) return paint.dim("○ connecting");
  const state = testRunState(run.state, paint);
  const name = truncate(
    oneLine(`${run.project} in ${run.environment}`),
    Math.max(8, width - textWidth(state.text) - 2),
  );
  const rest = width - textWidth(state.text) - textWidth(name) - 4;
  const id = rest >= textWidth(run.id) ? `  ${paint.dim(oneLine(run.id))}` : "";
  return `${state.style(state.text)}  ${paint.bold(name)}${id}`;
}

function barLine({ paint, io }: Terminal, live: LiveRun, width: number): string {
  const ended = endedTests(live.counts);
  const total = live.counts?.total ?? 0;
  const percent = live.share === undefined ? "" : `${Math.floor(live.share * 100)} %`;
  const numbers = total === 0 ? "" : `${ended.toLocaleString("en")} of ${count(total, "test")}`;
  const time = live.elapsed === undefined ? "" : formatMs(elapsedMs(live, io.now()));
  // The bar takes what the words leave; where that is too little there is none, then words go, the last first.
  const words = [percent, time, numbers].filter((word) => word !== "");
  while (words.length > 1 && textWidth(words.join("  ")) > width) words.pop();
  const text = words.join("  ");
  const room = Math.min(MAX_BAR, width - textWidth(text) - 2);
  if (room < MIN_BAR || live.share === undefined) return truncate(text, width);
  const filled = Math.round(live.share * room);
  const failed = (live.counts?.failed ?? 0) + (live.counts?.errors ?? 0) > 0;
  const color = failed ? paint.red : paint.green;
  return `${color("█".repeat(filled))}${paint.dim("░".repeat(room - filled))}  ${text}`;
}

/** The clock goes on between two messages, as long as the run does. */
function elapsedMs({ elapsed, run }: LiveRun, now: number): number {
  if (elapsed === undefined) return 0;
  // A tenth of a second that changes with every drawing says nothing.
  return run?.end === undefined ? Math.floor((elapsed.ms + now - elapsed.at) / 1000) * 1000 : elapsed.ms;
}

function countsLine({ paint }: Terminal, { counts }: LiveRun, width: number): string[] {
  const parts = countParts(counts, paint);
  const shown: string[] = [];
  let used = 0;
  for (const { text, style } of parts) {
    used += textWidth(text) + 2;
    if (used - 2 > width) break;
    shown.push(style(text));
  }
  return shown.length === 0 ? [] : [shown.join("  ")];
}

function runningLines({ paint }: Terminal, live: LiveRun, width: number, most: number): string[] {
  if (live.runningCount === 0 || most === 0) return [];
  const shown = live.running.slice(0, live.runningCount > most ? most - 1 : most);
  const hidden = live.runningCount - shown.length;
  return [
    ...shown.map((test) => `${paint.cyan("›")} ${truncate(oneLine(testTitle(test)), width - 2)}`),
    ...(hidden === 0 ? [] : [paint.dim(`  … ${hidden.toLocaleString("en")} more running`)]),
  ];
}

/** What stays on the terminal, or is a line of a pipe, of something that happened. */
export function renderLine(terminal: Terminal, line: LiveLine): string[] {
  const { paint } = terminal;
  switch (line.kind) {
    case "failure":
      return renderFailure(terminal, line.result);
    case "file":
      return [`${paint.red("▲ error")}  ${paint.bold(oneLine(line.file))}`, `    ${oneLine(line.message)}`];
    case "problem": {
      const { message, place } = line.problem;
      const sign = isError(line.problem) ? paint.red("▲ problem") : paint.yellow("▲ problem");
      return [`${sign}  ${oneLine(message)}${place === "" ? "" : paint.dim(` (${oneLine(place)})`)}`];
    }
    case "ended":
      return ["", ...renderSummary(terminal, line.run)];
  }
}
