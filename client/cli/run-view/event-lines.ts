import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type RunStep, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { shortRunId } from "../../reporting/run-id.ts";
import type { Cell } from "../output/columns.ts";
import { count, formatClock, formatDuration, formatMs, timestampMs } from "../output/format.ts";
import { formatMinute } from "../output/keys.ts";
import { oneLine } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import {
  errorText,
  reusedText,
  runState,
  runTitle,
  STATE_WIDTH,
  stepState,
  stepWork,
  usageBrief,
} from "./states.ts";
import { cleanText } from "./tree-lines.ts";

/** The most characters of a line of a model that are kept until it ends. */
const MAX_LINE = 4_000;

/** How many models may be in the middle of a line at once; beyond that, what they have begun is left out. */
const MAX_OPEN = 10_000;

/** How a question of a run is answered. */
export function answerHint(runId: string, path: string): string {
  const words = `${shortRunId(runId)} ${oneLine(path)}`;
  return `toolplane run approve ${words}    or: toolplane run reject ${words}`;
}

/**
 * Turns the events of a run to lines for a pipe or a log: one an event, and one for every line that a model writes. Of what
 * is told from the past, questions may be answered by now: how to answer is left out.
 */
export function createEventLines(
  terminal: Terminal,
  runId: string,
): (event: RunEvent, isPast?: boolean) => string[] {
  /** By path, the line that a model has not ended yet. */
  const open = new Map<string, string>();
  const { paint } = terminal;

  function line(event: RunEvent, what: Exclude<Cell, string>, ...parts: string[]): string {
    const time = event.time === undefined ? "" : formatClock(timestampMs(event.time));
    const words = [event.path, ...parts].map(oneLine).filter((part) => part !== "");
    return [paint.dim(time), what.style(what.text.padEnd(STATE_WIDTH)), ...words].join("  ").trimEnd();
  }

  function written(event: RunEvent, text: string): string[] {
    return text
      .split("\n")
      .filter((each) => each.trim() !== "")
      .map((each) => `${line(event, { text: "│ writes", style: paint.dim })}  ${each}`);
  }

  function add(event: RunEvent, text: string): string[] {
    const lines = ((open.get(event.path) ?? "") + cleanText(text)).split("\n");
    const rest = lines.pop() ?? "";
    const isLong = rest.length > MAX_LINE;
    if (open.size >= MAX_OPEN) open.clear();
    open.set(event.path, isLong ? "" : rest);
    return written(event, (isLong ? [...lines, rest] : lines).join("\n"));
  }

  function flush(event: RunEvent): string[] {
    const rest = open.get(event.path) ?? "";
    open.delete(event.path);
    return written(event, rest);
  }

  return (event, isPast = false) => {
    const { kind } = event;
    switch (kind.case) {
      case "created":
        return [line(event, runState(kind.value.state, paint), runTitle(kind.value), `run ${kind.value.id}`)];
      case "started": {
        const { takeover, resumed, worker } = kind.value;
        const how = takeover ? "taken over from a worker that died" : resumed ? "goes on" : "";
        return [line(event, { text: "● running", style: paint.cyan }, how, `worker ${worker}`)];
      }
      case "planned": {
        const { steps, maxConcurrency } = kind.value;
        const cap = maxConcurrency === 0 ? "" : `${maxConcurrency.toLocaleString("en")} at once`;
        return [line(event, { text: "· planned", style: paint.dim }, count(steps.length, "step"), cap)];
      }
      case "stepStarted": {
        const { attempt, items } = kind.value;
        return [
          line(
            event,
            stepState(StepState.RUNNING, paint),
            stepWork(kind.value),
            items > 0 ? count(items, "item") : "",
            attempt > 1 ? `attempt ${attempt}` : "",
          ),
        ];
      }
      case "stepProgress": {
        const { message, percent, childId } = kind.value;
        const share = percent === undefined ? "" : `${Math.floor(percent)} %`;
        return [
          line(
            event,
            { text: "· progress", style: paint.dim },
            message,
            share,
            childId === "" ? "" : `run ${childId}`,
          ),
        ];
      }
      case "stepRetrying": {
        const { attempt, error, delay } = kind.value;
        const next = `attempt ${attempt + 1} in ${formatDuration(delay) || "a moment"}`;
        return [line(event, { text: "◌ retrying", style: paint.yellow }, errorText(error), next)];
      }
      case "stepFinished": {
        const { step } = kind.value;
        return [...flush(event), ...(step === undefined ? [] : [finishedLine(event, step)])];
      }
      case "approvalRequested":
        return [
          line(event, { text: "? approval", style: paint.yellow }, kind.value.message),
          ...(isPast ? [] : [`  ${answerHint(runId, event.path)}`]),
        ];
      case "approvalResolved": {
        const { approved, by, comment } = kind.value;
        const what = approved
          ? { text: "✓ approved", style: paint.green }
          : { text: "✗ refused", style: paint.red };
        return [line(event, what, by === "" ? "the time was over" : `by ${by}`, comment)];
      }
      case "modelDelta":
        if (kind.value.restarted) {
          open.delete(event.path);
          return [line(event, { text: "◌ anew", style: paint.yellow }, "what was written does not count")];
        }
        return add(event, kind.value.text);
      case "toolSelection": {
        const { query, allowed, candidates } = kind.value;
        const offered = candidates.filter((each) => each.offered).map(({ tool }) => tool);
        return [
          line(
            event,
            { text: "· tools", style: paint.dim },
            query === ""
              ? `all ${count(allowed, "tool")} offered`
              : `${offered.length} of ${allowed.toLocaleString("en")} offered for "${query}"`,
            query === "" ? "" : offered.join(", "),
          ),
        ];
      }
      case "usage":
        return [];
      case "waiting": {
        const until = kind.value.until === undefined ? "" : `until ${formatMinute(kind.value.until)}`;
        return [line(event, { text: "◌ waiting", style: paint.yellow }, until)];
      }
      case "cancelRequested": {
        const { by, message } = kind.value;
        return [line(event, { text: "■ cancelling", style: paint.magenta }, by && `by ${by}`, message)];
      }
      case "finished":
        return [line(event, runState(kind.value.state, paint), runTitle(kind.value))];
      case undefined:
        return [];
    }
  };

  function finishedLine(event: RunEvent, step: RunStep): string {
    const { startTime, endTime } = step;
    const time =
      startTime === undefined || endTime === undefined
        ? ""
        : formatMs(Math.max(0, timestampMs(endTime) - timestampMs(startTime)));
    return line(
      event,
      stepState(step.state, paint),
      time,
      step.attempts > 1 ? count(step.attempts, "attempt") : "",
      step.fallback ? "fallback" : "",
      step.reused ? reusedText(step.usage) : "",
      usageBrief(step.usage),
      errorText(step.error),
    );
  }
}
