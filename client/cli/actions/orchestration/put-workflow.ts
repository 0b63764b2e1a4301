import { Code, ConnectError } from "@connectrpc/connect";
import {
  type PutWorkflowResponse,
  PutWorkflowResponseSchema,
  type ValidateWorkflowResponse,
  ValidateWorkflowResponseSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import type { PutWorkflowOptions } from "../../commands/workflow.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { readText } from "../../input/read.ts";
import { count, formatMs, timestampMs } from "../../output/format.ts";
import { formatMinute } from "../../output/keys.ts";
import { oneLine } from "../../output/text-width.ts";
import { isError, renderProblems } from "../../run-view/problems.ts";

export async function validateWorkflow(context: Context, file: string): Promise<number> {
  const text = await readText(file, context.io);
  const checked = await check(context, await context.connect(), text);
  const exitCode = checked.valid ? ExitCode.ok : ExitCode.invalidArguments;
  if (context.json) {
    await context.printMessage(ValidateWorkflowResponseSchema, checked);
    return exitCode;
  }
  for (const line of renderProblems(context.paint, file, checked.problems)) await context.print(line);
  await context.note(verdict(context, file, checked));
  return exitCode;
}

export async function putWorkflow(
  context: Context,
  file: string,
  { etag = "", allowUnknownTools = false }: PutWorkflowOptions,
): Promise<number> {
  const text = await readText(file, context.io);
  const toolplane = await context.connect();
  const kept = await keep(context, toolplane, file, {
    source: { case: "text", value: text },
    etag,
    allowUnknownTools,
  });
  if (kept === undefined) return ExitCode.invalidArguments;
  const { workflow, warnings, changed } = kept;
  if (context.json || workflow === undefined) {
    await context.printMessage(PutWorkflowResponseSchema, kept);
    return ExitCode.ok;
  }
  for (const line of renderProblems(context.paintErr, file, warnings)) await context.note(line);
  const { paint } = context;
  const verb = changed ? "Kept" : "Already kept";
  await context.print(
    `${paint.green("✓")} ${verb} ${paint.bold(oneLine(workflow.name))} v${workflow.version}`,
  );
  for (const line of scheduleLines(context, workflow)) await context.print(`  ${line}`);
  return ExitCode.ok;
}

/** Keeps a workflow. Undefined: it is not valid, and every problem was shown. */
async function keep(
  context: Context,
  toolplane: NodeToolplane,
  file: string,
  request: { source: { case: "text"; value: string }; etag: string; allowUnknownTools: boolean },
): Promise<PutWorkflowResponse | undefined> {
  try {
    return await toolplane.orchestration.putWorkflow(request, { signal: context.io.signal });
  } catch (error) {
    // A check names lines where the refusal can only name fields.
    const isInvalid = ConnectError.from(error).code === Code.InvalidArgument && !context.json;
    const problems = isInvalid ? (await check(context, toolplane, request.source.value)).problems : [];
    if (!problems.some(isError)) throw error;
    for (const line of renderProblems(context.paintErr, file, problems)) await context.note(line);
    await context.note(`${context.paintErr.red("✗")} Nothing was kept`);
    return undefined;
  }
}

/** When the schedules of a workflow start it next. */
export function scheduleLines({ io }: Context, { schedules }: Workflow): string[] {
  return schedules.map(({ cron, timeZone, paused, nextTime }) => {
    const next = paused
      ? "paused"
      : nextTime === undefined
        ? "never"
        : `next ${formatMinute(nextTime)} (in ${formatMs(Math.max(0, timestampMs(nextTime) - io.now()))})`;
    return `${oneLine(cron)} in ${oneLine(timeZone || "UTC")}: ${next}`;
  });
}

export async function check(
  { io }: Context,
  toolplane: NodeToolplane,
  text: string,
): Promise<ValidateWorkflowResponse> {
  return await toolplane.orchestration.validateWorkflow(
    { source: { case: "text", value: text } },
    { signal: io.signal },
  );
}

/** What a check has come to, in a line. */
export function verdict(
  { paintErr }: Context,
  file: string,
  { valid, problems, workflow, graph }: ValidateWorkflowResponse,
): string {
  const errors = problems.filter(isError).length;
  const warnings = problems.length - errors;
  const found = [
    ...(errors > 0 ? [count(errors, "error")] : []),
    ...(warnings > 0 ? [count(warnings, "warning")] : []),
  ].join(", ");
  if (!valid) return `${paintErr.red("✗")} ${oneLine(file)} cannot be run: ${found || "it is not valid"}`;
  const depth = graph === undefined ? "" : `, the longest chain ${graph.depth}`;
  return (
    `${paintErr.green("✓")} ${oneLine(workflow?.name ?? file)} can be run: ` +
    `${count(workflow?.steps.length ?? 0, "step")}${depth}${found === "" ? "" : `; ${found}`}`
  );
}
