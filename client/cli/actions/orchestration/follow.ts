import { toJson } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { type Run, RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { createLogUpdate } from "log-update";
import type { Interruption, RunNews } from "../../../index.ts";
import type { NodeToolplane } from "../../../node.ts";
import { shortRunId } from "../../../reporting/run-id.ts";
import { isEnded } from "../../../streams/watch-run.ts";
import type { FollowOptions } from "../../commands/follow-options.ts";
import type { Context } from "../../context.ts";
import { ExitCode } from "../../exit-code.ts";
import { onKey } from "../../input/on-key.ts";
import { timestampMs } from "../../output/format.ts";
import { formatJson } from "../../output/json.ts";
import { oneLine } from "../../output/text-width.ts";
import { answerHint, createEventLines } from "../../run-view/event-lines.ts";
import { renderLive } from "../../run-view/live-view.ts";
import { renderOutcome } from "../../run-view/outcome.ts";
import { applyEvent, createRunTree, type RunTree, takeRun, takeStep } from "../../run-view/run-tree.ts";
import { renderTree } from "../../run-view/tree-lines.ts";
import { printOutput } from "./print-output.ts";

/** Time between two drawings, in milliseconds. */
const FRAME_MS = 100;

/** How long a cancelled run is waited for before it is left, in milliseconds. */
const CANCEL_TIMEOUT_MS = 20_000;

/** The most lines of steps that stay on a terminal when a run has ended. */
const MAX_FINAL_LINES = 40;

/** The most steps that are read of those that a run has taken over. */
const MAX_TAKEN_OVER = 1_000;

interface Following {
  readonly context: Context;
  readonly toolplane: NodeToolplane;
  readonly runId: string;
  readonly afterSequence: number;
  /** Leaves the run to itself when aborted. */
  readonly leave: AbortController;
  readonly tree: RunTree;
}

/**
 * Shows a run until it ends; returns what the command is to exit with. An interruption leaves the run to itself, or
 * cancels it where the options say so.
 */
export async function followRun(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  options: FollowOptions & { readonly after?: number },
): Promise<number> {
  const leave = new AbortController();
  const { signal } = context.io;
  let timer: NodeJS.Timeout | undefined;
  let cancelling: Promise<void> | undefined;
  const interrupted = () => {
    if (options.cancelOnInterrupt !== true) {
      leave.abort();
      return;
    }
    // The run's end is told by the watch; if the server does not answer, the command ends all the same.
    timer = setTimeout(() => leave.abort(), CANCEL_TIMEOUT_MS);
    void context.note(context.paintErr.yellow("Cancelling the run; Ctrl-C again leaves it"));
    cancelling = cancelRun(context, toolplane, runId, leave.signal);
  };
  signal.addEventListener("abort", interrupted, { once: true });
  if (signal.aborted) interrupted();
  const tree = createRunTree();
  // With the output alone on stdout, the way there is shown on stderr.
  const view = options.output === "json" ? onStderr(context) : context;
  const afterSequence = options.after ?? 0;
  try {
    await show({ context: view, toolplane, runId, afterSequence, leave, tree });
    // The run may have ended before its cancellation is answered.
    await cancelling;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", interrupted);
  }
  const ended = tree.run !== undefined && isEnded(tree.run.state) ? tree.run : undefined;
  if (ended === undefined) {
    await sayHowToGoOn(context, runId);
    return ExitCode.incomplete;
  }
  if (!context.json || options.output === "json") {
    await printOutput(context, toolplane, ended, options.output ?? "text");
  }
  return exitCodeOfRun(ended);
}

/** What a command that waits for a run ends with. */
export function exitCodeOfRun({ state }: Run): number {
  switch (state) {
    case RunState.SUCCEEDED:
      return ExitCode.ok;
    case RunState.FAILED:
      return ExitCode.failure;
    case RunState.UNSPECIFIED:
    case RunState.QUEUED:
    case RunState.RUNNING:
    case RunState.WAITING:
    case RunState.CANCELLED:
      return ExitCode.incomplete;
  }
}

async function show(following: Following): Promise<void> {
  const { context } = following;
  if (context.json) return await showJson(following);
  if (context.io.stdout.isTTY === true && context.io.env["TERM"] !== "dumb") return await showLive(following);
  await showLines(following);
}

/** Every event as a line of JSON. */
async function showJson({ context, toolplane, runId, afterSequence, leave, tree }: Following): Promise<void> {
  for await (const news of toolplane.watchRun(runId, { afterSequence, signal: leave.signal })) {
    take(tree, news);
    if (news.kind === "event") await context.print(formatJson(toJson(RunEventSchema, news.event)));
  }
}

/** What happens, line by line, for a pipe or a log. */
async function showLines(following: Following): Promise<void> {
  const { context, runId, tree } = following;
  const linesOf = createEventLines(context, runId);
  let isLost = false;
  const onInterruption = ({ error }: Interruption) => {
    const why = error === undefined ? "the server ended the stream" : oneLine(error.rawMessage);
    const text = `Connection lost (${why}); trying again until it is back`;
    // Once is enough, however often it is tried again.
    if (!isLost) void context.note(context.paintErr.yellow(text));
    isLost = true;
  };
  for await (const news of told(following, onInterruption)) {
    isLost = false;
    if (news.kind === "caught-up") {
      for (const path of tree.approvals.keys()) await context.print(`  ${answerHint(runId, path)}`);
    }
    if (news.kind !== "event") continue;
    for (const line of linesOf(news.event, !tree.isCaughtUp)) await context.print(line);
  }
  if (tree.run === undefined || !isEnded(tree.run.state)) return;
  await context.print(["", ...renderOutcome(context, tree.run, tree)].join("\n"));
}

/** A tree of steps that is drawn in place. */
async function showLive(following: Following): Promise<void> {
  const { context, tree } = following;
  const { stdout } = context.io;
  const screen = createLogUpdate(stdout);
  let interruption: Interruption | undefined;
  const keys = answerKeys(following);
  const draw = () => screen(renderLive(context, tree, { interruption, hint: keys.hint() }));
  const timer = setInterval(draw, FRAME_MS);
  const onInterruption = (each: Interruption) => {
    interruption = each;
  };
  try {
    draw();
    for await (const _ of told(following, onInterruption)) interruption = undefined;
  } finally {
    clearInterval(timer);
    keys.release();
    // What is left of a run that goes on stays, so that one sees where it was left.
    if (tree.run === undefined || !isEnded(tree.run.state)) draw();
    else screen.clear();
    screen.done();
  }
  if (tree.run === undefined || !isEnded(tree.run.state)) return;
  const size = { width: Math.max(stdout.columns ?? 80, 20), room: MAX_FINAL_LINES, now: context.io.now() };
  const lines = [...renderTree(context.paint, tree, size), "", ...renderOutcome(context, tree.run, tree)];
  await context.print(lines.join("\n"));
}

/** Keys that answer the one approval that is waited for, where there is a keyboard. */
function answerKeys({ context, toolplane, runId, leave, tree }: Following): {
  hint(): string;
  release(): void;
} {
  const { io } = context;
  const hasKeys = io.stdin.isTTY === true;
  /** The question that was answered, and how that went. */
  let answered = "";
  let problem = "";
  const question = () => {
    const [path, more] = [...tree.approvals.keys()];
    return more === undefined && path !== answered ? path : undefined;
  };
  const answer = async (path: string, approved: boolean) => {
    answered = path;
    problem = "";
    try {
      await toolplane.orchestration.resolveApproval({ runId, path, approved }, { signal: leave.signal });
    } catch (error) {
      answered = "";
      problem = `Not answered: ${oneLine(ConnectError.from(error).rawMessage)}. `;
    }
  };
  const release = onKey(io.stdin, (key) => {
    // In raw mode the terminal hands Ctrl-C over as a key.
    if (key === "\u0003") {
      if (io.signal.aborted) leave.abort();
      else io.interrupt();
    }
    const path = question();
    if (path === undefined) return;
    if (key === "y" || key === "Y") void answer(path, true);
    if (key === "n" || key === "N") void answer(path, false);
  });
  return {
    hint: () =>
      io.signal.aborted
        ? "Ctrl-C again leaves the run"
        : `${problem}${hasKeys && question() !== undefined ? "y approves, n refuses, " : ""}Ctrl-C leaves the run to itself`,
    release,
  };
}

/** What a watch tells, taken into the tree. */
async function* told(
  following: Following,
  onInterruption: (interruption: Interruption) => void,
): AsyncGenerator<RunNews, void, undefined> {
  const { toolplane, runId, afterSequence, leave, tree } = following;
  const options = { afterSequence, signal: leave.signal, onInterruption };
  for await (const news of toolplane.watchRun(runId, options)) {
    take(tree, news);
    if (news.kind === "connected" && news.run.retryOf !== "") await takeOver(following, news.run);
    yield news;
  }
}

/** Steps that a run has from the one that it goes on from: they had ended before its first event. */
async function takeOver({ toolplane, runId, leave, tree }: Following, { createTime }: Run): Promise<void> {
  const created = createTime === undefined ? 0 : timestampMs(createTime);
  const request = { runId, states: [StepState.SUCCEEDED], pageSize: MAX_TAKEN_OVER, withoutOutput: true };
  try {
    const { steps } = await toolplane.orchestration.listRunSteps(request, { signal: leave.signal });
    for (const step of steps) {
      if (step.reused && (step.endTime === undefined || timestampMs(step.endTime) <= created)) {
        takeStep(tree, step);
      }
    }
  } catch {
    // The run can be watched all the same: these steps are then shown as pending.
  }
}

function take(tree: RunTree, news: RunNews): void {
  switch (news.kind) {
    case "connected":
      takeRun(tree, news.run);
      break;
    case "event":
      applyEvent(tree, news.event);
      break;
    case "caught-up":
      tree.isCaughtUp = true;
      break;
  }
}

async function cancelRun(
  context: Context,
  toolplane: NodeToolplane,
  runId: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await toolplane.orchestration.cancelRun(
      { runId, message: "interrupted on the command line" },
      { signal },
    );
  } catch (error) {
    if (signal.aborted) return;
    const why = oneLine(ConnectError.from(error).rawMessage);
    await context.note(context.paintErr.red(`The run could not be cancelled: ${why}`));
  }
}

/** Of a run that was left while it goes on. */
async function sayHowToGoOn(context: Context, runId: string): Promise<void> {
  const id = shortRunId(runId);
  await context.note(
    `The run goes on. See it: toolplane run watch ${id}\n                 Stop it: toolplane run cancel ${id}`,
  );
}

function onStderr(context: Context): Context {
  const { io, paintErr, note } = context;
  return { ...context, json: false, io: { ...io, stdout: io.stderr }, paint: paintErr, print: note };
}
