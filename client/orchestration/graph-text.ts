import type { WorkflowGraph } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
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

/** The graph as lines, each step after all that it comes after and indented by its level. */
export function graphToLines(graph: WorkflowGraph): GraphLine[] {
  const after = new Map<string, string[]>();
  for (const { from, to } of graph.edges) after.set(to, [...(after.get(to) ?? []), from]);
  return graph.nodes
    .toSorted((a, b) => a.level - b.level)
    .map((node) => ({
      indent: "  ".repeat(Math.min(node.level, MAX_INDENT)),
      stepId: node.stepId,
      work: workOf(node),
      marks: marksOf(node).join(", "),
      after: after.get(node.stepId) ?? [],
    }));
}
