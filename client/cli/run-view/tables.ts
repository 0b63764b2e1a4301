import type { Run, RunStep } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { shortRunId } from "../../reporting/run-id.ts";
import { renderColumns } from "../output/columns.ts";
import { formatAge, formatMs, timestampMs } from "../output/format.ts";
import type { Terminal } from "../terminal.ts";
import { runTime } from "./outcome.ts";
import {
  dollars,
  errorText,
  reusedText,
  runKind,
  runState,
  stepState,
  stepWork,
  usageBrief,
} from "./states.ts";

/** A table of runs, one a line. */
export function renderRuns(terminal: Terminal, runs: readonly Run[]): string {
  const { paint, io } = terminal;
  return renderColumns(
    [
      { title: "RUN" },
      { title: "KIND", optional: true },
      { title: "WHAT", minWidth: 10 },
      { title: "STATE" },
      { title: "STEPS", align: "right" },
      { title: "FAILED", align: "right", optional: true },
      { title: "TIME", align: "right", optional: true },
      { title: "COST", align: "right", optional: true },
      { title: "STARTED" },
      { title: "BY", minWidth: 6, optional: true },
    ],
    runs.map((run) => [
      shortRunId(run.id),
      runKind(run.kind),
      {
        text: run.workflowVersion === 0 ? run.title : `${run.title} v${run.workflowVersion}`,
        style: paint.bold,
      },
      run.pendingApprovals.length > 0
        ? { text: "? approval", style: paint.yellow }
        : runState(run.state, paint),
      (run.steps?.total ?? 0).toLocaleString("en"),
      (run.steps?.failed ?? 0) === 0
        ? ""
        : { text: (run.steps?.failed ?? 0).toLocaleString("en"), style: paint.red },
      runTime(run),
      (run.usage?.costUsd ?? 0) === 0 ? "" : dollars(run.usage?.costUsd ?? 0),
      formatAge(run.createTime, io.now()),
      run.createdBy,
    ]),
    terminal.columns(),
  );
}

/** A table of steps, one a line. */
export function renderSteps(terminal: Terminal, steps: readonly RunStep[]): string {
  const { paint } = terminal;
  return renderColumns(
    [
      { title: "STEP", minWidth: 12 },
      { title: "STATE" },
      { title: "WHAT", minWidth: 10 },
      { title: "TIME", align: "right" },
      { title: "ATTEMPTS", align: "right", optional: true },
      { title: "USED", optional: true },
      { title: "RUN", minWidth: 8, optional: true },
      { title: "ERROR", minWidth: 12 },
    ],
    steps.map((step) => [
      { text: step.path, style: paint.bold },
      stepState(step.state, paint),
      stepWork(step),
      stepTime(step),
      step.attempts > 1 ? String(step.attempts) : "",
      [usageBrief(step.usage), step.reused ? reusedText(step.usage) : "", step.fallback ? "fallback" : ""]
        .filter((part) => part !== "")
        .join(", "),
      step.childId === "" ? "" : shortRunId(step.childId),
      { text: errorText(step.error), style: paint.red },
    ]),
    terminal.columns(),
  );
}

function stepTime({ startTime, endTime }: RunStep): string {
  if (startTime === undefined || endTime === undefined) return "";
  return formatMs(Math.max(0, timestampMs(endTime) - timestampMs(startTime)));
}
