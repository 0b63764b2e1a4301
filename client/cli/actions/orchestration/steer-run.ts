import { randomUUID } from "node:crypto";
import { RunSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { shortRunId } from "../../../reporting/run-id.ts";
import { isEnded } from "../../../streams/watch-run.ts";
import type { AnswerOptions, RetryRunOptions, WatchRunOptions } from "../../commands/orchestration-runs.ts";
import type { Context } from "../../context.ts";
import { parseCount } from "../../input/choices.ts";
import { findOrchestrationRun } from "../../input/orchestration-run.ts";
import { oneLine } from "../../output/text-width.ts";
import { renderOutcome } from "../../run-view/outcome.ts";
import { UsageError } from "../../usage-error.ts";
import { followRun } from "./follow.ts";
import { leaveOrFollow } from "./start.ts";

export async function watchRun(context: Context, name: string, options: WatchRunOptions): Promise<number> {
  const after = options.after === "0" ? 0 : (parseCount(options.after, "--after") ?? 0);
  const toolplane = await context.connect();
  const runId = await findOrchestrationRun(toolplane.orchestration, name, context.io.signal);
  return await followRun(context, toolplane, runId, { ...options, after });
}

export async function cancelRun(
  context: Context,
  name: string,
  { message = "" }: { readonly message?: string },
): Promise<undefined> {
  const { orchestration } = await context.connect();
  const { signal } = context.io;
  const runId = await findOrchestrationRun(orchestration, name, signal);
  const { run } = await orchestration.cancelRun({ runId, message }, { signal });
  if (run === undefined) return;
  if (context.json) await context.printMessage(RunSchema, run);
  else await context.print(renderOutcome(context, run).join("\n"));
}

export async function retryRun(
  context: Context,
  name: string,
  options: RetryRunOptions,
): Promise<number | undefined> {
  const toolplane = await context.connect();
  const { signal } = context.io;
  if ((options.label ?? []).length > 0) {
    throw new UsageError("--label: a run that goes on from another has the labels of that one");
  }
  const runId = await findOrchestrationRun(toolplane.orchestration, name, signal);
  const { run } = await toolplane.orchestration.retryRun(
    { runId, fromSteps: [...(options.from ?? [])], requestId: options.requestId ?? randomUUID() },
    { signal },
  );
  return await leaveOrFollow(context, toolplane, run, options);
}

export async function answerRun(
  context: Context,
  name: string,
  path: string | undefined,
  approved: boolean,
  { comment = "" }: AnswerOptions,
): Promise<undefined> {
  const { orchestration } = await context.connect();
  const { signal } = context.io;
  const runId = await findOrchestrationRun(orchestration, name, signal);
  const { run } = await orchestration.resolveApproval(
    { runId, path: path ?? "", approved, comment },
    { signal },
  );
  if (run === undefined) return;
  if (context.json) return void (await context.printMessage(RunSchema, run));
  const { paint } = context;
  const sign = approved ? paint.green("✓ approved") : paint.red("✗ refused");
  await context.print(`${sign}  ${path === undefined ? "" : `${oneLine(path)} of `}run ${oneLine(run.id)}`);
  await context.print(renderOutcome(context, run).join("\n"));
  if (!isEnded(run.state)) {
    await context.note(context.paintErr.dim(`  See it go on: toolplane run watch ${shortRunId(run.id)}`));
  }
}
