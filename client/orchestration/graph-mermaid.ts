import type {
  WorkflowGraph,
  WorkflowGraphNode,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { marksOf, workOf } from "./graph-words.ts";

/**
 * The graph as a Mermaid flowchart. Solid arrows carry data, dotted ones only order; double-framed steps run for each item
 * of a list, hexagons wait for a person, rounded ones wait for a time.
 */
export function graphToMermaid(graph: WorkflowGraph): string {
  // Ids of steps may be words of the language, such as `end`.
  const ids = new Map(graph.nodes.map(({ stepId }, index) => [stepId, `s${index}`]));
  return [
    "flowchart LR",
    ...graph.nodes.map((node) => `  ${ids.get(node.stepId) ?? ""}${shaped(node)}`),
    ...graph.edges.flatMap(({ from, to, data }) => {
      const [source, target] = [ids.get(from), ids.get(to)];
      if (source === undefined || target === undefined) return [];
      return [`  ${source} ${data ? "-->" : "-.->"} ${target}`];
    }),
    "",
  ].join("\n");
}

function shaped(node: WorkflowGraphNode): string {
  const marks = marksOf(node);
  const lines = [
    `<b>${escapeLabel(node.stepId)}</b>`,
    escapeLabel(workOf(node)),
    ...(marks.length === 0 ? [] : [`<i>${escapeLabel(marks.join(", "))}</i>`]),
  ];
  const label = `"${lines.join("<br/>")}"`;
  if (node.fanOut) return `[[${label}]]`;
  if (node.kind === "approval") return `{{${label}}}`;
  if (node.kind === "wait") return `([${label}])`;
  return `[${label}]`;
}

/** Text as the label of a node: what the language or HTML would take for its own becomes a code. */
function escapeLabel(text: string): string {
  return text.replaceAll(/[^\p{L}\p{N} _.,:/()+*-]/gu, (char) => `#${char.codePointAt(0) ?? 0};`);
}
