import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { type TestRun, TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { StartTestRunRequestSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import { toDuration } from "../../../tool-calls.ts";
import type { RunChoiceOptions, TestRerunOptions, TestRunOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { parsePair } from "../../input/pairs.ts";
import { findRun } from "../../input/run-name.ts";
import { oneLine } from "../../output/text-width.ts";
import { UsageError } from "../../usage-error.ts";
import { followRun } from "./watch.ts";

/** How long a cancelled run is waited for before it is left, in milliseconds. */
const CANCEL_TIMEOUT_MS = 20_000;

type StartInit = MessageInitShape<typeof StartTestRunRequestSchema>;

export async function runTests(
  context: Context,
  project: string,
  options: TestRunOptions,
): Promise<number | undefined> {
  const labels = Object.fromEntries((options.label ?? []).map((label) => parsePair(label, "--label")));
  const toolplane = await context.connect();
  const { signal } = context.io;
  const failedIn =
    options.failedIn === undefined
      ? ""
      : await findRun(toolplane.tests, options.failedIn, { project, signal });
  const request: StartInit = {
    project,
    environment: options.env ?? "",
    selection: {
      files: [...(options.file ?? [])],
      namePattern: options.name ?? "",
      tags: [...(options.tag ?? [])],
      failedInRun: failedIn,
      testIds: [...(options.test ?? [])],
    },
    labels,
    coverage: options.coverage === true,
    ...(context.timeoutMs !== undefined && { timeout: toDuration(context.timeoutMs) }),
  };
  return await start(context, toolplane, request, options.detach === true);
}

export async function rerunTests(
  context: Context,
  name: string,
  options: TestRerunOptions & RunChoiceOptions,
): Promise<number | undefined> {
  const toolplane = await context.connect();
  const { signal } = context.io;
  const runId = await findRun(toolplane.tests, name, { project: options.project, signal });
  const { run } = await toolplane.tests.getTestRun({ runId }, { signal });
  if (run === undefined) throw new UsageError(`The server did not describe test run ${runId}`);
  const request: StartInit = {
    project: run.project,
    environment: run.environment,
    labels: run.context?.labels ?? {},
    coverage: run.coverage !== undefined,
    ...(context.timeoutMs !== undefined && { timeout: toDuration(context.timeoutMs) }),
    ...(options.failed === true
      ? { selection: { failedInRun: runId } }
      : run.selection && { selection: run.selection }),
  };
  return await start(context, toolplane, request, options.detach === true);
}

/** Starts a run and stays with it, unless it is to be left to itself. */
async function start(
  context: Context,
  toolplane: NodeToolplane,
  request: StartInit,
  detach: boolean,
): Promise<number | undefined> {
  const { run } = await toolplane.tests.startTestRun(
    { ...request, requestId: randomUUID() },
    // `--timeout` bounds the run, not the request that starts it.
    { signal: context.io.signal, timeoutMs: 30_000 },
  );
  if (run === undefined) throw new UsageError("The server did not describe the run that it started");
  if (detach) return await printStarted(context, run);
  const leave = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let cancelling: Promise<void> | undefined;
  const cancel = () => {
    // The run's end is told by the watch; if the server does not answer, the command ends all the same.
    timer = setTimeout(() => leave.abort(), CANCEL_TIMEOUT_MS);
    // Where a bar is drawn, it says so.
    if (context.json || context.io.stdout.isTTY !== true) {
      void context.note(context.paintErr.yellow("Cancelling the run; Ctrl-C again leaves it"));
    }
    cancelling = cancelRun(context, toolplane, run.id, leave.signal);
  };
  context.io.signal.addEventListener("abort", cancel, { once: true });
  if (context.io.signal.aborted) cancel();
  try {
    const cancelled = context.io.signal;
    const code = await followRun(context, toolplane, run.id, {
      output: false,
      signal: leave.signal,
      cancelled,
    });
    // The run may have ended before its cancellation is answered.
    await cancelling;
    return code;
  } finally {
    clearTimeout(timer);
    context.io.signal.removeEventListener("abort", cancel);
  }
}

async function printStarted(context: Context, run: TestRun): Promise<undefined> {
  if (context.json) return void (await context.printMessage(TestRunSchema, run));
  await context.note(`${context.paintErr.green("✓")} Started; see it with: toolplane test watch ${run.id}`);
  await context.print(run.id);
}

async function cancelRun(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await toolplane.tests.cancelTestRun({ runId, message: "interrupted on the command line" }, { signal });
  } catch (error) {
    if (signal.aborted) return;
    const why = oneLine(ConnectError.from(error).rawMessage);
    await context.note(context.paintErr.red(`The run could not be cancelled: ${why}`));
  }
}
