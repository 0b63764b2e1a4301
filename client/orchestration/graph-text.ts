import type {
  WorkflowGraph,
  WorkflowGraphNode,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { marksOf, workOf } from "./graph-words.ts";

/** How deep lines are indented at most: longer chains go on at that depth. */
const MAX_INDENT = 16;

/** A step as a line of text. */
export interface GraphLine {
  readonly indent: string;
  readonly stepId: string;
  readonly work: string;
  /** Such as `for each, if`. */
  readonly marks: string;
  /** The steps that it comes after. */
  readonly after: readonly string[];
}

/**
 * The graph as lines: each step below one that it comes after, of several the one with the longest chain before it. What
 * else it comes after is named.
 */
export function graphToLines(graph: WorkflowGraph): GraphLine[] {
  const nodes = new Map(graph.nodes.map((node) => [node.stepId, node]));
  const after = new Map<string, string[]>();
  for (const { from, to } of graph.edges) {
    const before = after.get(to);
    if (before === undefined) after.set(to, [from]);
    else before.push(from);
  }
  const below = new Map<string, WorkflowGraphNode[]>();
  const roots: WorkflowGraphNode[] = [];
  for (const node of graph.nodes) {
    const before = (after.get(node.stepId) ?? []).flatMap((id) => nodes.get(id) ?? []);
    const [parent] = before.sort((a, b) => b.level - a.level);
    // A graph with a cycle is never kept, and its steps are not drawn below each other.
    if (parent === undefined || parent.level >= node.level) roots.push(node);
    else {
      const siblings = below.get(parent.stepId);
      if (siblings === undefined) below.set(parent.stepId, [node]);
      else siblings.push(node);
    }
  }
  const lines: GraphLine[] = [];
  const add = (node: WorkflowGraphNode, depth: number) => {
    lines.push({
      indent: "  ".repeat(Math.min(depth, MAX_INDENT)),
      stepId: node.stepId,
      work: workOf(node),
      marks: marksOf(node).join(", "),
      after: after.get(node.stepId) ?? [],
    });
    for (const next of below.get(node.stepId) ?? []) add(next, depth + 1);
  };
  for (const root of roots) add(root, 0);
  return lines;
}
