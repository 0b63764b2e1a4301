import { create, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  ListRunStepsResponseSchema,
  ListRunsResponseSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import {
  RunKind,
  RunSchema,
  RunState,
  type RunStep,
  RunStepSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { NodeToolplane } from "../../../node.ts";
import type { ListRunsOptions, ListStepsOptions } from "../../commands/orchestration-runs.ts";
import type { Context } from "../../context.ts";
import { parseChoice } from "../../input/choices.ts";
import { parseLimit } from "../../input/limit.ts";
import { findOrchestrationRun } from "../../input/orchestration-run.ts";
import { parsePair } from "../../input/pairs.ts";
import { renderFacts } from "../../output/facts.ts";
import { formatJson } from "../../output/json.ts";
import { formatMinute } from "../../output/keys.ts";
import { outputJson, renderOutcome } from "../../run-view/outcome.ts";
import { createRunTree, takeApproval, takeRun, takeStep } from "../../run-view/run-tree.ts";
import { renderRuns, renderSteps } from "../../run-view/tables.ts";
import { renderTree } from "../../run-view/tree-lines.ts";
import { UsageError } from "../../usage-error.ts";
import { readPages } from "../pages.ts";
import { printValue } from "./print-output.ts";

/** The most steps of a run that are read to show it. */
const MAX_STEPS_SHOWN = 20_000;

const RUN_STATES = {
  queued: RunState.QUEUED,
  running: RunState.RUNNING,
  waiting: RunState.WAITING,
  succeeded: RunState.SUCCEEDED,
  failed: RunState.FAILED,
  cancelled: RunState.CANCELLED,
};

const RUN_KINDS = {
  batch: RunKind.TOOL_BATCH,
  workflow: RunKind.WORKFLOW,
  requirement: RunKind.REQUIREMENT,
  agent: RunKind.AGENT_TASKS,
};

const STEP_STATES = {
  pending: StepState.PENDING,
  running: StepState.RUNNING,
  waiting: StepState.WAITING,
  succeeded: StepState.SUCCEEDED,
  failed: StepState.FAILED,
  skipped: StepState.SKIPPED,
  cancelled: StepState.CANCELLED,
};

export async function listRuns(context: Context, options: ListRunsOptions): Promise<undefined> {
  const wanted = parseLimit(options.limit);
  const states = (options.state ?? []).map((text) => parseChoice(text, "--state", RUN_STATES));
  const kinds = (options.kind ?? []).map((text) => parseChoice(text, "--kind", RUN_KINDS));
  const labels = Object.fromEntries((options.label ?? []).map((label) => parsePair(label, "--label")));
  const { orchestration } = await context.connect();
  const { signal } = context.io;
  const parentRunId =
    options.parent === undefined ? "" : await findOrchestrationRun(orchestration, options.parent, signal);
  const filter = { states, kinds, name: options.name ?? "", labels, parentRunId };
  // One more than is shown tells whether there are more.
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await orchestration.listRuns({ filter, pageSize, pageToken }, { signal });
    return { items: page.runs, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const runs = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListRunsResponseSchema, { runs });
    return void (await context.printMessage(ListRunsResponseSchema, response));
  }
  if (runs.length === 0) {
    return void (await context.note(
      "No run matches. Start one: toolplane workflow run <workflow>, or toolplane orchestrate <words>",
    ));
  }
  await context.print(renderRuns(context, runs));
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

export async function showRun(
  context: Context,
  name: string,
  options: { readonly limit: string },
): Promise<undefined> {
  const room = Math.min(parseLimit(options.limit), MAX_STEPS_SHOWN);
  const toolplane = await context.connect();
  const { signal } = context.io;
  const runId = await findOrchestrationRun(toolplane.orchestration, name, signal);
  const { run } = await toolplane.orchestration.getRun({ runId }, { signal });
  if (run === undefined) throw new UsageError(`The server did not describe run ${runId}`);
  const { items: steps } = await readSteps(
    context,
    toolplane,
    runId,
    { withoutOutput: true },
    MAX_STEPS_SHOWN,
  );
  if (context.json) {
    return void (await context.printJson({
      run: toJson(RunSchema, run, { alwaysEmitImplicit: true }),
      steps: steps.map((step) => toJson(RunStepSchema, step, { alwaysEmitImplicit: true })),
    }));
  }
  const tree = createRunTree();
  takeRun(tree, run);
  for (const step of steps) takeStep(tree, step);
  for (const approval of run.pendingApprovals) takeApproval(tree, approval);
  const { paint, io } = context;
  const width = io.stdout.isTTY === true ? Math.max(20, io.stdout.columns ?? 80) : Number.POSITIVE_INFINITY;
  const lines = renderTree(paint, tree, { width, room, now: io.now() });
  const facts = renderFacts(paint, [
    ["started", formatMinute(run.startTime ?? run.createTime)],
    ["by", run.createdBy],
    ["schedule", run.schedule],
    ["part of", run.parentRunId],
    ["taken over", run.takeovers === 0 ? "" : `${run.takeovers} times`],
    [
      "labels",
      Object.entries(run.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(" "),
    ],
    ["input", run.input === undefined ? "" : formatJson(run.input)],
  ]);
  await context.print(
    [
      ...renderOutcome(context, run, tree),
      ...(facts === "" ? [] : [facts]),
      ...(lines.length === 0 ? [] : ["", ...lines]),
    ].join("\n"),
  );
  if (run.output === undefined) return;
  await context.print();
  await printValue(context, outputJson(run.output));
}

export async function listSteps(
  context: Context,
  name: string,
  paths: readonly string[],
  options: ListStepsOptions,
): Promise<undefined> {
  const wanted = parseLimit(options.limit);
  const states = (options.state ?? []).map((text) => parseChoice(text, "--state", STEP_STATES));
  const toolplane = await context.connect();
  const runId = await findOrchestrationRun(toolplane.orchestration, name, context.io.signal);
  const query = { paths: [...paths], states, withoutOutput: !context.json };
  const { items } = await readSteps(context, toolplane, runId, query, wanted + 1);
  const steps = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListRunStepsResponseSchema, { steps });
    return void (await context.printMessage(ListRunStepsResponseSchema, response));
  }
  if (steps.length === 0) return void (await context.note("No step matches."));
  await context.print(renderSteps(context, steps));
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

export async function printRunOutput(
  context: Context,
  name: string,
  path: string | undefined,
): Promise<undefined> {
  const toolplane = await context.connect();
  const { signal } = context.io;
  const runId = await findOrchestrationRun(toolplane.orchestration, name, signal);
  const output =
    path === undefined
      ? (await toolplane.orchestration.getRun({ runId }, { signal })).run?.output
      : (await findStep(context, toolplane, runId, path)).output;
  const value = outputJson(output);
  if (context.json || context.io.stdout.isTTY !== true) {
    const isText = typeof value === "string" && !context.json;
    return void (isText ? await context.print(value) : await context.printJson(value));
  }
  await printValue(context, value);
}

async function findStep(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  path: string,
): Promise<RunStep> {
  const { items } = await readSteps(context, toolplane, runId, { paths: [path] }, 1);
  const step = items.find((each) => each.path === path);
  if (step !== undefined) return step;
  throw new ConnectError(
    `the run has no step "${path}"; list its steps: toolplane run steps ${runId}`,
    Code.NotFound,
  );
}

async function readSteps(
  { io }: Context,
  { orchestration }: NodeToolplane,
  runId: string,
  query: {
    readonly paths?: string[];
    readonly states?: StepState[];
    readonly withoutOutput?: boolean;
  },
  limit: number,
): Promise<{ readonly items: RunStep[] }> {
  return await readPages(limit, async (pageSize, pageToken) => {
    const page = await orchestration.listRunSteps(
      { runId, ...query, pageSize, pageToken },
      { signal: io.signal },
    );
    return { items: page.steps, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
}
