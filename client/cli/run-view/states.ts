import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import type { Usage } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { type Run, RunKind, RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Colors } from "picocolors/types.js";
import type { Cell } from "../output/columns.ts";
import { count } from "../output/format.ts";
import { oneLine } from "../output/text-width.ts";

// Every state is a word first; the colour only helps the eye.

type Styled = Exclude<Cell, string>;

export function runState(state: RunState, paint: Colors): Styled {
  switch (state) {
    case RunState.QUEUED:
      return { text: "○ queued", style: paint.dim };
    case RunState.RUNNING:
      return { text: "● running", style: paint.cyan };
    case RunState.WAITING:
      return { text: "◌ waiting", style: paint.yellow };
    case RunState.SUCCEEDED:
      return { text: "✓ succeeded", style: paint.green };
    case RunState.FAILED:
      return { text: "✗ failed", style: paint.red };
    case RunState.CANCELLED:
      return { text: "■ cancelled", style: paint.magenta };
    case RunState.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}

export function stepState(state: StepState, paint: Colors): Styled {
  switch (state) {
    case StepState.PENDING:
      return { text: "○ pending", style: paint.dim };
    case StepState.RUNNING:
      return { text: "● running", style: paint.cyan };
    case StepState.WAITING:
      return { text: "◌ waiting", style: paint.yellow };
    case StepState.SUCCEEDED:
      return { text: "✓ succeeded", style: paint.green };
    case StepState.FAILED:
      return { text: "✗ failed", style: paint.red };
    case StepState.SKIPPED:
      return { text: "- skipped", style: paint.dim };
    case StepState.CANCELLED:
      return { text: "■ cancelled", style: paint.magenta };
    case StepState.UNSPECIFIED:
      return { text: "? unknown", style: paint.dim };
  }
}

/** The cells of the longest state of a step. */
export const STATE_WIDTH = "✓ succeeded".length;

/** What kind of work a run is, in words. */
export function runKind(kind: RunKind): string {
  switch (kind) {
    case RunKind.TOOL_BATCH:
      return "batch";
    case RunKind.WORKFLOW:
      return "workflow";
    case RunKind.REQUIREMENT:
      return "requirement";
    case RunKind.AGENT_TASKS:
      return "agent";
    case RunKind.UNSPECIFIED:
      return "run";
  }
}

/** What a run is, for a line: `workflow nightly v3`. */
export function runTitle({ kind, title, workflowVersion }: Run): string {
  const version = workflowVersion === 0 ? "" : ` v${workflowVersion}`;
  return oneLine(`${runKind(kind)} ${title}${version}`);
}

/** What a step does and with what: `tool weather.GetForecast`. */
export function stepWork({ kind, target }: { readonly kind: string; readonly target: string }): string {
  return oneLine(`${kind.replaceAll("_", " ")} ${target}`);
}

/** An error in a line: `UNAVAILABLE: the service does not answer (NO_INSTANCE)`. Empty: there is none. */
export function errorText(error: Status | undefined): string {
  if (error === undefined) return "";
  const reason = reasonOf(error);
  const known = reason === "" || error.message.includes(reason);
  return oneLine(`${codeName(error.code)}: ${error.message}${known ? "" : ` (${reason})`}`);
}

function codeName(code: number): string {
  // A code that is not known has no name.
  return (codeToString(code) ?? `code ${code}`).toUpperCase();
}

function reasonOf(error: Status): string {
  for (const detail of error.details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info !== undefined) return info.reason;
  }
  return "";
}

/** Where the output of a step comes from that was not run. */
export function reusedText(usage: Usage | undefined): string {
  // Only an answer from the cache saves tokens; a run that goes on from another has spent them before.
  return (usage?.savedTokens ?? 0n) > 0n ? "from the cache" : "taken over";
}

/** What models have used up, in a line. Empty: nothing. */
export function usageText(usage: Usage | undefined): string {
  if (usage === undefined) return "";
  const tokens = Number(usage.inputTokens + usage.outputTokens);
  const cached = Number(usage.cachedInputTokens);
  const detail = [
    `${Number(usage.inputTokens).toLocaleString("en")} in`,
    ...(cached > 0 ? [`${cached.toLocaleString("en")} of them cached`] : []),
    `${Number(usage.outputTokens).toLocaleString("en")} out`,
  ].join(", ");
  const saved = Number(usage.savedTokens);
  return [
    ...(usage.turns > 0 ? [count(usage.turns, "turn")] : []),
    ...(usage.toolCalls > 0 ? [count(usage.toolCalls, "call")] : []),
    ...(tokens > 0 ? [`${count(tokens, "token")} (${detail})`] : []),
    ...costPart(usage, tokens),
    ...(saved > 0
      ? [
          `${count(saved, "token")}${usage.savedCostUsd > 0 ? ` and ${dollars(usage.savedCostUsd)}` : ""} saved`,
        ]
      : []),
  ].join(" · ");
}

/** The same for a column of a table: `12,345 tokens $0.012`. */
export function usageBrief(usage: Usage | undefined): string {
  if (usage === undefined) return "";
  const tokens = Number(usage.inputTokens + usage.outputTokens);
  return [...(tokens > 0 ? [count(tokens, "token")] : []), ...costPart(usage, 0)].join(" ");
}

function costPart({ costUsd, costIncomplete }: Usage, tokens: number): string[] {
  if (costIncomplete && costUsd === 0) return tokens > 0 ? ["price not known"] : [];
  if (costUsd === 0) return [];
  return [costIncomplete ? `at least ${dollars(costUsd)}` : dollars(costUsd)];
}

/** Dollars with as many digits as small sums need: `$0.00042`, `$0.012`, `$1.50`. */
export function dollars(usd: number): string {
  if (usd >= 1) return `$${usd.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  return `$${usd.toLocaleString("en", { maximumSignificantDigits: 2, maximumFractionDigits: 8 })}`;
}
