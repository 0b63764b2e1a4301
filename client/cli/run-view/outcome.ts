import type { JsonValue } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { type Run, RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { shortRunId } from "../../reporting/run-id.ts";
import { isJsonObject } from "../input/json-text.ts";
import { count, formatMs, timestampMs } from "../output/format.ts";
import { oneLine } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { answerHint } from "./event-lines.ts";
import { isEndedStep, parentPath, type RunTree } from "./run-tree.ts";
import { errorText, runState, runTitle, usageText } from "./states.ts";

/** How many steps that failed are named. */
const MAX_FAILURES = 10;

/** How a run stands or ended, in a few lines: outcome, time, use, what failed, and what to do about it. */
export function renderOutcome({ paint }: Terminal, run: Run, tree?: RunTree): string[] {
  const state = runState(run.state, paint);
  const steps = run.steps?.total ?? 0;
  const { failed = 0, skipped = 0, cancelled = 0 } = run.steps ?? {};
  const time = runTime(run);
  const usage = usageText(run.usage);
  const error = errorText(run.error);
  const id = shortRunId(run.id);
  return [
    [
      state.style(state.text),
      paint.bold(runTitle(run)),
      ...(steps > 0 ? [count(steps, "step")] : []),
      ...(failed > 0 ? [paint.red(`${failed.toLocaleString("en")} failed`)] : []),
      ...(skipped > 0 ? [`${skipped.toLocaleString("en")} skipped`] : []),
      ...(cancelled > 0 ? [`${cancelled.toLocaleString("en")} cancelled`] : []),
      ...(time === "" ? [] : [`in ${time}`]),
    ].join("  "),
    ...(error === "" ? [] : [`  ${run.state === RunState.FAILED ? paint.red(error) : error}`]),
    ...(tree === undefined ? [] : failureLines(paint, tree, run.error?.message ?? "")),
    ...(usage === "" ? [] : [paint.dim(`  ${usage}`)]),
    paint.dim(
      `  run ${oneLine(run.id)}${run.retryOf === "" ? "" : `, goes on from ${oneLine(run.retryOf)}`}`,
    ),
    ...run.pendingApprovals.flatMap(({ path, message }) => [
      paint.yellow(`  ? ${oneLine(path)} asks: ${oneLine(message)}`),
      `    ${answerHint(run.id, path)}`,
    ]),
    ...(run.state === RunState.FAILED || run.state === RunState.CANCELLED
      ? [paint.dim(`  Go on where it ended: toolplane run retry ${id}`)]
      : []),
  ];
}

/** How long it took. Empty: it has not begun. */
export function runTime({ startTime, createTime, endTime }: Run): string {
  const begin = startTime ?? createTime;
  if (begin === undefined || endTime === undefined) return "";
  return formatMs(Math.max(0, timestampMs(endTime) - timestampMs(begin)));
}

/**
 * Steps that made the run fail. What went wrong below a step that succeeded all the same is left out, and so is a step whose
 * failure is that of the run, word for word.
 */
function failureLines(paint: Terminal["paint"], tree: RunTree, told: string): string[] {
  const rootOf = (path: string): string => {
    const above = parentPath(path);
    return above === undefined || above === "" ? path : rootOf(above);
  };
  const failed = [...tree.roots.values()].filter(
    ({ state, path, error }) =>
      state === StepState.FAILED &&
      !(error !== undefined && [error.message, `step "${path}": ${error.message}`].includes(told)),
  );
  const nested = tree.failures.filter(({ path }) => {
    const root = tree.roots.get(rootOf(path));
    return (
      root !== undefined &&
      root.path !== path &&
      isEndedStep(root.state) &&
      root.state !== StepState.SUCCEEDED
    );
  });
  const all = [...failed, ...nested];
  const width = Math.max(0, ...all.slice(0, MAX_FAILURES).map(({ path }) => oneLine(path).length));
  const hidden = all.length - MAX_FAILURES;
  return [
    ...all
      .slice(0, MAX_FAILURES)
      .map(({ path, error }) => `  ${paint.red("✗")} ${oneLine(path).padEnd(width)}  ${errorText(error)}`),
    ...(hidden > 0 ? [`  … and ${hidden.toLocaleString("en")} more that failed`] : []),
  ];
}

/** What a run or step gave back, as JSON. */
export function outputJson(output: Value | undefined): JsonValue {
  return output === undefined ? null : toJson(ValueSchema, output);
}

/** The answer of a model where the output is nothing but that: `text`, with the same as JSON beside it at most. */
export function answerText(output: JsonValue): string | undefined {
  if (!isJsonObject(output)) return undefined;
  const { text, json, ...rest } = output;
  if (typeof text !== "string" || Object.keys(rest).length > 0) return undefined;
  return json === undefined || json === null ? text : undefined;
}
