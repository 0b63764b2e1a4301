import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import { type Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { PlannedStep, RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import {
  type Approval,
  type Run,
  RunState,
  type RunStep,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { timestampMs } from "../output/format.ts";

/** The most steps that have ended and are kept below others; of older ones only counts stay. */
const MAX_ENDED = 2_000;

/** The most steps that are known at once, whatever a server tells. */
const MAX_STEPS = 20_000;

/** The most failures that are kept with their errors. */
const MAX_FAILURES = 100;

/** The longest path of a step, in characters: twice what a server allows. */
const MAX_PATH = 1_024;

/** How much of what a model writes is kept, in characters: the end of it. */
const MAX_TEXT = 4_000;

/** A step as it is watched. */
export interface StepNode {
  readonly path: string;
  /** The last part of the path. */
  readonly name: string;
  readonly parent: StepNode | undefined;
  /** Those that are known; more may be counted. In the order in which they were first told. */
  readonly children: Map<string, StepNode>;
  kind: string;
  target: string;
  state: StepState;
  attempts: number;
  /** When it first began and when it ended, in milliseconds since 1970. */
  startedAt: number | undefined;
  endedAt: number | undefined;
  error: Status | undefined;
  /** What it says of itself while it runs. */
  message: string;
  /** From 0 to 100. */
  percent: number | undefined;
  usage: Usage | undefined;
  childId: string;
  isFallback: boolean;
  isReused: boolean;
  approval: Approval | undefined;
  /** How many items a fan-out has. 0: it is none. */
  items: number;
  /** Steps right below that have ended, by their state, those that are no longer known included. */
  readonly ended: StepTally;
  /** The end of what a model is writing. */
  text: string;
}

/** How many steps ended how. */
export interface StepTally {
  succeeded: number;
  failed: number;
  skipped: number;
  cancelled: number;
}

/** A run as it is watched: everything that the view shows, in bounded memory. */
export interface RunTree {
  /** As it was last told as a whole. Undefined: nothing was told yet. */
  run: Run | undefined;
  state: RunState;
  /** The steps that no other is above. */
  readonly roots: Map<string, StepNode>;
  readonly nodes: Map<string, StepNode>;
  /** All steps at whatever depth that have ended, those that are no longer known included. */
  readonly ended: StepTally;
  /** Steps at whatever depth that fell, the first ones first; `ended.failed` counts them all. */
  readonly failures: { readonly path: string; readonly error: Status | undefined }[];
  usage: Usage;
  /** Approvals that are waited for, by path. */
  readonly approvals: Map<string, Approval>;
  worker: string;
  takeovers: number;
  /** Somebody wants the run to stop. */
  isCancelling: boolean;
  isCaughtUp: boolean;
  startedAt: number | undefined;
  endedAt: number | undefined;
  /** Steps below others that have ended, the longest ago first. */
  readonly forgettable: Set<StepNode>;
}

export function createRunTree(): RunTree {
  return {
    run: undefined,
    state: RunState.UNSPECIFIED,
    roots: new Map(),
    nodes: new Map(),
    ended: { succeeded: 0, failed: 0, skipped: 0, cancelled: 0 },
    failures: [],
    usage: create(UsageSchema),
    approvals: new Map(),
    worker: "",
    takeovers: 0,
    isCancelling: false,
    isCaughtUp: false,
    startedAt: undefined,
    endedAt: undefined,
    forgettable: new Set(),
  };
}

/** Takes in the run as a whole: what it says of steps is left to their events. */
export function takeRun(tree: RunTree, run: Run): void {
  tree.run = run;
  tree.state = run.state;
  if (run.usage !== undefined) tree.usage = run.usage;
  tree.startedAt = millis(run.startTime) ?? tree.startedAt;
  tree.endedAt = millis(run.endTime);
  tree.takeovers = run.takeovers;
}

/** Takes in the next event. Each must come once and in order, as a watch tells them. */
export function applyEvent(tree: RunTree, event: RunEvent): void {
  const { kind, path } = event;
  switch (kind.case) {
    case "created":
      // The watch may have told how the run is by now.
      if (tree.run === undefined) takeRun(tree, kind.value);
      return;
    case "started":
      tree.state = RunState.RUNNING;
      tree.worker = kind.value.worker;
      tree.startedAt ??= millis(event.time);
      return;
    case "planned":
      for (const step of kind.value.steps) plan(tree, step);
      return;
    case "stepStarted": {
      const node = nodeAt(tree, path);
      if (node === undefined) return;
      const { attempt, items } = kind.value;
      node.kind = kind.value.kind || node.kind;
      node.target = kind.value.target || node.target;
      node.state = StepState.RUNNING;
      node.attempts = Math.max(node.attempts, attempt);
      node.items = Math.max(node.items, items);
      node.startedAt ??= millis(event.time);
      node.message = "";
      node.percent = undefined;
      node.text = "";
      return;
    }
    case "stepProgress": {
      const node = nodeAt(tree, path);
      if (node === undefined) return;
      node.message = kind.value.message || node.message;
      node.percent = kind.value.percent ?? node.percent;
      node.childId = kind.value.childId || node.childId;
      return;
    }
    case "stepRetrying": {
      const node = nodeAt(tree, path);
      if (node === undefined) return;
      node.state = StepState.WAITING;
      node.attempts = Math.max(node.attempts, kind.value.attempt);
      node.message = kind.value.error?.message ?? "";
      return;
    }
    case "stepFinished":
      if (kind.value.step !== undefined) finish(tree, kind.value.step, path);
      return;
    case "approvalRequested": {
      const at = kind.value.path || path;
      tree.approvals.set(at, kind.value);
      const node = nodeAt(tree, at);
      if (node === undefined) return;
      node.state = StepState.WAITING;
      node.approval = kind.value;
      return;
    }
    case "approvalResolved": {
      tree.approvals.delete(path);
      const node = tree.nodes.get(path);
      if (node !== undefined) node.approval = undefined;
      return;
    }
    case "modelDelta": {
      const node = nodeAt(tree, path);
      if (node === undefined) return;
      const before = kind.value.restarted ? "" : node.text;
      node.text = (before + kind.value.text).slice(-MAX_TEXT);
      return;
    }
    case "toolSelection":
      return;
    case "usage":
      if (kind.value.total !== undefined) tree.usage = kind.value.total;
      return;
    case "waiting":
      tree.state = RunState.WAITING;
      return;
    case "cancelRequested":
      tree.isCancelling = true;
      return;
    case "finished":
      takeRun(tree, kind.value);
      tree.approvals.clear();
      return;
    case undefined:
      // A newer server tells more than this version knows.
      return;
  }
}

/** Takes in a step as the server has it, for a tree of a run that is not watched. */
export function takeStep(tree: RunTree, step: RunStep): void {
  if (isEndedStep(step.state)) {
    finish(tree, step, step.path);
    return;
  }
  const node = nodeAt(tree, step.path);
  if (node !== undefined) describe(node, step);
}

/** Takes in what a run waits for, for a tree of a run that is not watched. */
export function takeApproval(tree: RunTree, approval: Approval): void {
  tree.approvals.set(approval.path, approval);
  const node = nodeAt(tree, approval.path);
  if (node !== undefined) node.approval = approval;
}

export function isEndedStep(state: StepState): boolean {
  switch (state) {
    case StepState.SUCCEEDED:
    case StepState.FAILED:
    case StepState.SKIPPED:
    case StepState.CANCELLED:
      return true;
    case StepState.UNSPECIFIED:
    case StepState.PENDING:
    case StepState.RUNNING:
    case StepState.WAITING:
      return false;
  }
}

export function endedSteps(tally: StepTally): number {
  return tally.succeeded + tally.failed + tally.skipped + tally.cancelled;
}

/** The path of the step that one is below: of `review/turn1` that is `review`, of `notify[3]` it is `notify`. */
export function parentPath(path: string): string | undefined {
  if (isItem(path)) return path.slice(0, path.lastIndexOf("["));
  const slash = path.lastIndexOf("/");
  return slash < 0 ? undefined : path.slice(0, slash);
}

/** Whether a path is that of an item of a fan-out. */
function isItem(path: string): boolean {
  return /\[\d+\]$/.test(path);
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The step at a path, made with all above it where it is new. Undefined: there are too many. */
function nodeAt(tree: RunTree, path: string): StepNode | undefined {
  const known = tree.nodes.get(path);
  if (known !== undefined || path === "") return known;
  if (tree.nodes.size >= MAX_STEPS || path.length > MAX_PATH) return undefined;
  const above = parentPath(path);
  const parent = above === undefined || above === "" ? undefined : nodeAt(tree, above);
  const node: StepNode = {
    path,
    name: nameOf(path),
    parent,
    children: new Map(),
    kind: "",
    target: "",
    state: StepState.PENDING,
    attempts: 0,
    startedAt: undefined,
    endedAt: undefined,
    error: undefined,
    message: "",
    percent: undefined,
    usage: undefined,
    childId: "",
    isFallback: false,
    isReused: false,
    approval: undefined,
    items: 0,
    ended: { succeeded: 0, failed: 0, skipped: 0, cancelled: 0 },
    text: "",
  };
  tree.nodes.set(path, node);
  (parent?.children ?? tree.roots).set(path, node);
  return node;
}

function plan(tree: RunTree, step: PlannedStep): void {
  const node = nodeAt(tree, step.path);
  if (node === undefined) return;
  node.kind ||= step.kind;
  node.target ||= step.target;
}

function describe(node: StepNode, step: RunStep): void {
  node.kind = step.kind || node.kind;
  node.target = step.target || node.target;
  node.state = step.state;
  node.attempts = Math.max(node.attempts, step.attempts);
  node.startedAt = millis(step.startTime) ?? node.startedAt;
  node.endedAt = millis(step.endTime);
  node.error = step.error;
  node.usage = step.usage;
  node.childId = step.childId || node.childId;
  node.isFallback = step.fallback;
  node.isReused = step.reused;
}

function finish(tree: RunTree, step: RunStep, path: string): void {
  const outcome = tallied(step.state);
  if (outcome === undefined) return;
  const node = nodeAt(tree, path);
  // A step whose end is told anew, as a retry does with one that it takes over, counts once.
  const isNew = node === undefined || !isEndedStep(node.state);
  if (isNew) {
    tree.ended[outcome] += 1;
    if (node?.parent !== undefined) node.parent.ended[outcome] += 1;
    if (outcome === "failed" && tree.failures.length < MAX_FAILURES) {
      tree.failures.push({ path, error: step.error });
    }
  }
  tree.approvals.delete(path);
  if (node === undefined) return;
  describe(node, step);
  node.approval = undefined;
  node.message = "";
  node.percent = undefined;
  node.text = "";
  if (node.parent === undefined) return;
  // Of ten thousand items that went well, the count says it all.
  if (isItem(path) && outcome !== "failed") forget(tree, node);
  else tree.forgettable.add(node);
  while (tree.forgettable.size > MAX_ENDED) {
    const [oldest] = tree.forgettable;
    if (oldest === undefined) break;
    forget(tree, oldest);
  }
}

/** Leaves a step, and all below it, to the counts. */
function forget(tree: RunTree, node: StepNode): void {
  for (const child of node.children.values()) forget(tree, child);
  tree.nodes.delete(node.path);
  tree.forgettable.delete(node);
  (node.parent?.children ?? tree.roots).delete(node.path);
}

function tallied(state: StepState): keyof StepTally | undefined {
  switch (state) {
    case StepState.SUCCEEDED:
      return "succeeded";
    case StepState.FAILED:
      return "failed";
    case StepState.SKIPPED:
      return "skipped";
    case StepState.CANCELLED:
      return "cancelled";
    case StepState.UNSPECIFIED:
    case StepState.PENDING:
    case StepState.RUNNING:
    case StepState.WAITING:
      return undefined;
  }
}

function millis(time: Timestamp | undefined): number | undefined {
  return time === undefined ? undefined : timestampMs(time);
}
