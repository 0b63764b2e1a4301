import { stripVTControlCharacters } from "node:util";
import { toJson } from "@bufbuild/protobuf";
import { type TestEvent, TestEventSchema } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import { type TestRun, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { createLogUpdate } from "log-update";
import type { Interruption, TestRunNews } from "../../../index.ts";
import type { NodeToolplane } from "../../../node.ts";
import type { RunChoiceOptions, TestWatchOptions } from "../../commands/test.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { findRun } from "../../input/run-name.ts";
import { formatJson } from "../../output/json.ts";
import { oneLine, printable } from "../../output/text-width.ts";
import { applyNews, createLiveRun, isWorthALine, type LiveLine } from "../../test-view/live-run.ts";
import { renderLine, renderLive } from "../../test-view/live-view.ts";

/** Time between two drawings, in milliseconds. */
const FRAME_MS = 100;

export async function watchTests(
  context: Context,
  name: string,
  options: TestWatchOptions & RunChoiceOptions,
): Promise<number> {
  const toolplane = await context.connect();
  const { signal } = context.io;
  const runId = await findRun(toolplane.tests, name, { project: options.project, signal });
  return await followRun(context, toolplane, runId, { output: options.output === true, signal });
}

export interface FollowRunOptions {
  /** Shows what the runner and the tests write, too. */
  readonly output: boolean;
  /** Leaves the run to itself when aborted. */
  readonly signal: AbortSignal;
  /** Aborted when the run was asked to stop. */
  readonly cancelled?: AbortSignal;
}

/** Shows a run until it ends; returns what the command is to exit with. */
export async function followRun(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  options: FollowRunOptions,
): Promise<number> {
  const isLive = !context.json && context.io.stdout.isTTY === true;
  const show = context.json ? showJson : isLive ? showLive : showLines;
  const run = await show(context, toolplane, runId, options);
  return run === undefined ? ExitCode.incomplete : exitCodeOfRun(run);
}

/** What a command that waits for a run ends with. */
export function exitCodeOfRun({ state }: TestRun): number {
  switch (state) {
    case TestRunState.PASSED:
      return ExitCode.ok;
    case TestRunState.FAILED:
      return ExitCode.failure;
    case TestRunState.UNSPECIFIED:
    case TestRunState.QUEUED:
    case TestRunState.RUNNING:
    case TestRunState.CANCELLED:
    case TestRunState.ERROR:
      return ExitCode.incomplete;
  }
}

/** Every event as a line of JSON. */
async function showJson(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  { signal }: FollowRunOptions,
): Promise<TestRun | undefined> {
  let ended: TestRun | undefined;
  for await (const news of toolplane.watchTestRun(runId, { signal })) {
    if (news.kind === "connected") ended = endedOnly(news.run);
    if (news.kind !== "event") continue;
    await context.print(formatJson(toJson(TestEventSchema, news.event)));
    if (news.event.kind.case === "ended") ended = news.event.kind.value;
  }
  return ended;
}

/** What happens, line by line, for a pipe or a log. */
async function showLines(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  { output, signal }: FollowRunOptions,
): Promise<TestRun | undefined> {
  const live = createLiveRun();
  const text = createLineAssembler();
  let isLost = false;
  const onInterruption = (interruption: Interruption) => {
    // Once is enough, however often it is tried again.
    if (!isLost) void context.note(context.paintErr.yellow(interruptionText(interruption)));
    isLost = true;
  };
  for await (const news of toolplane.watchTestRun(runId, {
    signal,
    withoutOutput: !output,
    onInterruption,
  })) {
    isLost = false;
    for (const line of output ? text.add(news) : []) await context.print(line);
    const line = applyNews(live, news, context.io.now());
    for (const each of linesOf(context, line)) await context.print(each);
  }
  return endedOnly(live.run);
}

/** A bar that stays below what happens. */
async function showLive(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  { output, signal, cancelled }: FollowRunOptions,
): Promise<TestRun | undefined> {
  const live = createLiveRun();
  const text = createLineAssembler();
  const screen = createLogUpdate(context.io.stdout);
  const draw = () => {
    live.isCancelling = cancelled?.aborted === true;
    screen(renderLive(context, live));
  };
  const timer = setInterval(draw, FRAME_MS);
  const onInterruption = (interruption: Interruption) => {
    live.interruption = interruption;
  };
  try {
    draw();
    for await (const news of toolplane.watchTestRun(runId, {
      signal,
      withoutOutput: !output,
      onInterruption,
    })) {
      const written = output ? text.add(news) : [];
      const line = applyNews(live, news, context.io.now());
      if (line?.kind === "ended") screen.clear();
      const lines = [...written, ...linesOf(context, line)];
      if (lines.length > 0) screen.persist(lines.join("\n"));
    }
  } finally {
    clearInterval(timer);
    // What is left of the bar says nothing that the summary does not say; without a summary it stays.
    if (endedOnly(live.run) === undefined) draw();
    else screen.clear();
    screen.done();
  }
  return endedOnly(live.run);
}

function linesOf(context: Context, line: LiveLine | undefined): string[] {
  return line !== undefined && isWorthALine(line) ? renderLine(context, line) : [];
}

function endedOnly(run: TestRun | undefined): TestRun | undefined {
  return run?.end === undefined ? undefined : run;
}

/** Puts the pieces that runners and tests write together to lines. */
function createLineAssembler(): { add(news: TestRunNews): string[] } {
  const rest = { stdout: "", stderr: "" };
  const flush = () => {
    const lines = [rest.stdout, rest.stderr].filter((line) => line !== "");
    rest.stdout = "";
    rest.stderr = "";
    return lines.map(clean);
  };
  const take = ({ kind }: TestEvent): string[] => {
    if (kind.case === "ended") return flush();
    if (kind.case !== "output") return [];
    const stream = kind.value.stderr ? "stderr" : "stdout";
    const lines = (rest[stream] + kind.value.text).split("\n");
    rest[stream] = lines.pop() ?? "";
    return lines.map(clean);
  };
  return { add: (news) => (news.kind === "event" ? take(news.event) : []) };
}

/** Text of tests may neither move the cursor nor colour what follows. */
function clean(line: string): string {
  return printable(stripVTControlCharacters(line.replace(/\r$/, "")));
}

function interruptionText({ error }: Interruption): string {
  const why = error === undefined ? "the server ended the stream" : error.rawMessage;
  return `Connection lost (${oneLine(why)}); trying again until it is back`;
}
