import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { count, formatDuration, formatShare } from "../output/format.ts";
import { oneLine } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { countParts, endReason, runVerdict, testTitle } from "./states.ts";

/** How many of the tests that were running when the runner ended are named. */
const MAX_NAMED = 10;

/** How a run ended, in a few lines. */
export function renderSummary({ paint }: Terminal, run: TestRun): string[] {
  const state = runVerdict(run, paint);
  const counts = countParts(run.counts, paint).map(({ text, style }) => style(text));
  const time = run.duration === undefined ? [] : [`in ${formatDuration(run.duration)}`];
  const total = count(run.counts?.total ?? 0, "test");
  return [
    [`${state.style(state.text)}  ${total}`, ...(counts.length > 0 ? [counts.join(", ")] : []), ...time].join(
      "  ",
    ),
    ...whyNoVerdict(run),
    ...whatWasRunning(run).map((line) => `  ${line}`),
    ...coverageLine(run),
    paint.dim(`  ${oneLine(run.project)} in ${oneLine(run.environment)}, run ${oneLine(run.id)}`),
  ];
}

function whyNoVerdict({ end }: TestRun): string[] {
  if (end === undefined) return [];
  const reason = endReason(end.reason);
  const how = [
    ...(end.signal === "" ? [] : [`by ${end.signal}`]),
    ...(end.exitCode === undefined || end.exitCode === 0 ? [] : [`with exit code ${end.exitCode}`]),
  ].join(" ");
  // The server says a reason again where nobody gave another message.
  const message = end.message.toLowerCase() === reason.toLowerCase() ? "" : end.message;
  const text = [reason, message].filter((part) => part !== "").join(": ");
  return [
    ...(text === "" ? [] : [`  ${oneLine(text)}${how === "" ? "" : ` (${oneLine(how)})`}`]),
    ...(end.infrastructureFailure
      ? ["  so many tests failed alike that the environment is to blame; histories leave this run out"]
      : []),
  ];
}

function whatWasRunning({ end }: TestRun): string[] {
  if (end === undefined) return [];
  const names = [...end.runningTests.map(testTitle), ...end.runningFiles];
  const shown = names.slice(0, MAX_NAMED).map((name) => `was running: ${oneLine(name)}`);
  const hidden = names.length - shown.length;
  return [
    ...shown,
    ...(hidden > 0 ? [`… and ${hidden.toLocaleString("en")} more`] : []),
    ...(end.notRun > 0 ? [`${count(end.notRun, "test")} never ran`] : []),
  ];
}

function coverageLine({ coverage }: TestRun): string[] {
  if (coverage === undefined || coverage.linesTotal === 0n) return [];
  const share = Number(coverage.linesCovered) / Number(coverage.linesTotal);
  return [`  ${formatShare(share)} of ${count(Number(coverage.linesTotal), "line")} covered`];
}
