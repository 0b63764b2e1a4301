import { StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { endedSteps, isEndedStep, type RunTree, type StepNode, type StepTally } from "./run-tree.ts";

/** A step that is shown, and how deep it is. */
export interface Row {
  readonly node: StepNode;
  readonly depth: number;
}

export interface Rows {
  readonly rows: readonly Row[];
  /** Steps of the run that are not shown, by their state. Items of fan-outs are counted at their fan-out. */
  readonly hidden: StepTally & { pending: number; running: number };
}

/** How many items of one fan-out that failed are shown. */
const MAX_FAILED_ITEMS = 5;

/**
 * The steps to show in so many lines: what runs first, then what failed, what comes next, and what ended last, always
 * with the steps above. They stay in the order of the tree, so that a line keeps its place while the run goes on.
 */
export function chooseRows(tree: RunTree, room: number): Rows {
  const all = flatten(tree);
  if (all.length <= room) return { rows: all, hidden: none() };
  const ranked = all.map((row, index) => ({ row, index, rank: rankOf(row.node) }));
  ranked.sort(
    (a, b) =>
      a.rank - b.rank ||
      (a.rank < RANK_ENDED ? a.index - b.index : (b.row.node.endedAt ?? 0) - (a.row.node.endedAt ?? 0)),
  );
  const chosen = new Set<StepNode>();
  for (const { row } of ranked) {
    if (chosen.size >= room) break;
    const missing = withAncestors(row.node).filter((node) => !chosen.has(node));
    if (chosen.size + missing.length <= room) for (const node of missing) chosen.add(node);
  }
  const hidden = none();
  for (const { node } of all) if (!chosen.has(node)) hidden[stateName(node.state)] += 1;
  return { rows: all.filter(({ node }) => chosen.has(node)), hidden };
}

export function hiddenSteps(hidden: Rows["hidden"]): number {
  return endedSteps(hidden) + hidden.pending + hidden.running;
}

function none(): Rows["hidden"] {
  return { succeeded: 0, failed: 0, skipped: 0, cancelled: 0, pending: 0, running: 0 };
}

/** All known steps in the order of the tree; of the items of a fan-out that failed, the first few. */
function flatten(tree: RunTree): Row[] {
  const rows: Row[] = [];
  const add = (nodes: Iterable<StepNode>, depth: number) => {
    let failedItems = 0;
    for (const node of nodes) {
      if (node.name.endsWith("]") && node.state === StepState.FAILED && ++failedItems > MAX_FAILED_ITEMS) {
        continue;
      }
      rows.push({ node, depth });
      add(node.children.values(), depth + 1);
    }
  };
  add(tree.roots.values(), 0);
  return rows;
}

const RANK_ENDED = 3;

function rankOf(node: StepNode): number {
  switch (node.state) {
    case StepState.RUNNING:
    case StepState.WAITING:
      return 0;
    case StepState.FAILED:
      return 1;
    case StepState.PENDING:
    case StepState.UNSPECIFIED:
      return 2;
    case StepState.SUCCEEDED:
    case StepState.SKIPPED:
    case StepState.CANCELLED:
      // What an ended step consisted of matters least.
      return node.parent !== undefined && isEndedStep(node.parent.state) ? RANK_ENDED + 1 : RANK_ENDED;
  }
}

function withAncestors(node: StepNode): StepNode[] {
  const nodes: StepNode[] = [];
  for (let each: StepNode | undefined = node; each !== undefined; each = each.parent) nodes.push(each);
  return nodes;
}

function stateName(state: StepState): keyof Rows["hidden"] {
  switch (state) {
    case StepState.RUNNING:
    case StepState.WAITING:
      return "running";
    case StepState.SUCCEEDED:
      return "succeeded";
    case StepState.FAILED:
      return "failed";
    case StepState.SKIPPED:
      return "skipped";
    case StepState.CANCELLED:
      return "cancelled";
    case StepState.PENDING:
    case StepState.UNSPECIFIED:
      return "pending";
  }
}
