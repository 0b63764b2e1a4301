import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Run,
  RunSchema,
  type RunSourceSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import { shortRunId } from "../../../reporting/run-id.ts";
import { toDuration } from "../../../tool-calls.ts";
import type { StartOptions } from "../../commands/follow-options.ts";
import type { Context } from "../../context.ts";
import { parsePair } from "../../input/pairs.ts";
import { UsageError } from "../../usage-error.ts";
import { followRun } from "./follow.ts";

/** How long the server may take to record a run, in milliseconds: `--timeout` bounds the run instead. */
const START_TIMEOUT_MS = 30_000;

/** Starts a run and stays with it, unless it is to be left to itself. */
export async function startRun(
  context: Context,
  source: MessageInitShape<typeof RunSourceSchema>,
  options: StartOptions,
): Promise<number | undefined> {
  const labels = Object.fromEntries((options.label ?? []).map((label) => parsePair(label, "--label")));
  const toolplane = await context.connect();
  const { run } = await toolplane.orchestration.startRun(
    {
      source,
      labels,
      requestId: options.requestId ?? randomUUID(),
      ...(context.timeoutMs !== undefined && { timeout: toDuration(context.timeoutMs) }),
    },
    { signal: context.io.signal, timeoutMs: START_TIMEOUT_MS },
  );
  return await leaveOrFollow(context, toolplane, run, options);
}

/** Stays with a run that was started, unless it is to be left to itself. */
export async function leaveOrFollow(
  context: Context,
  toolplane: NodeToolplane,
  run: Run | undefined,
  options: StartOptions,
): Promise<number | undefined> {
  if (run === undefined) throw new UsageError("The server did not describe the run that it started");
  if (options.detach !== true) return await followRun(context, toolplane, run.id, options);
  if (context.json) {
    await context.printMessage(RunSchema, run);
    return undefined;
  }
  const { green } = context.paintErr;
  await context.note(`${green("✓")} Started; see it with: toolplane run watch ${shortRunId(run.id)}`);
  await context.print(run.id);
  return undefined;
}
