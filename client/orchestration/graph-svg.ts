import type {
  WorkflowGraph,
  WorkflowGraphNode,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { layoutGraph, type PlacedEdge, type PlacedNode, type Point } from "./graph-layout.ts";
import { marksOf, workOf } from "./graph-words.ts";

/** Sizes of text, in pixels. Widths of letters are guessed: a picture does not know the fonts of who looks at it. */
const LINE = 17;
const LETTER = 7.1;
const PADDING = 12;
const MIN_WIDTH = 120;
const MAX_LETTERS = 34;

/** Greys that can be told from a light and a dark page; steps bring a ground of their own for their text. */
const STYLE = `
.edge { fill: none; stroke: #818b98; stroke-width: 1.5 }
.order { stroke-dasharray: 4 4 }
.arrow { fill: #818b98 }
.step { fill: #f6f8fa; stroke: #818b98; stroke-width: 1.5 }
.approval { fill: #fff8c5 }
.conditional { stroke-dasharray: 6 3 }
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328 }
.id { font-weight: 600 }
.work { fill: #59636e }
.mark { fill: #0550ae; font-style: italic }`;

/**
 * The graph as a picture that stands for itself. Solid edges carry data, dashed ones only order; steps with a shadow run for
 * each item of a list, dashed frames have a condition.
 */
export function graphToSvg(graph: WorkflowGraph, title: string): string {
  const { width, height, nodes, edges } = layoutGraph(graph, (node) => {
    const lines = linesOf(node);
    const letters = lines.reduce((most, { text }) => Math.max(most, text.length), 0);
    return {
      width: Math.max(MIN_WIDTH, Math.ceil(letters * LETTER) + 2 * PADDING),
      height: lines.length * LINE + PADDING,
    };
  });
  const [w, h] = [Math.ceil(width), Math.ceil(height)];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    `<style>${STYLE}</style>`,
    '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
    '<path class="arrow" d="M0 0L8 4L0 8z"/></marker></defs>',
    ...edges.map(drawEdge),
    ...nodes.map(drawNode),
    "</svg>",
    "",
  ].join("\n");
}

interface Line {
  readonly text: string;
  readonly style: "id" | "work" | "mark";
}

function linesOf(node: WorkflowGraphNode): Line[] {
  const marks = marksOf(node).join(", ");
  return [
    { text: short(node.stepId), style: "id" },
    { text: short(workOf(node)), style: "work" },
    ...(marks === "" ? [] : [{ text: marks, style: "mark" } as const]),
  ];
}

function drawNode({ node, x, y, width, height }: PlacedNode): string {
  const classes = [
    "step",
    ...(node.kind === "approval" ? ["approval"] : []),
    ...(node.conditional ? ["conditional"] : []),
  ].join(" ");
  const box = (shift: number) =>
    `<rect class="${classes}" x="${round(x + shift)}" y="${round(y + shift)}" width="${round(width)}" height="${round(height)}" rx="6"/>`;
  const lines = linesOf(node);
  return [
    `<g><title>${escapeXml(`${node.stepId}: ${[workOf(node), ...marksOf(node)].join(", ")}`)}</title>`,
    ...(node.fanOut ? [box(5)] : []),
    box(0),
    ...lines.map(
      ({ text, style }, index) =>
        `<text class="${style}" x="${round(x + PADDING)}" y="${round(y + PADDING / 2 + LINE * (index + 0.72))}">${escapeXml(text)}</text>`,
    ),
    "</g>",
  ].join("");
}

function drawEdge({ edge, points }: PlacedEdge): string {
  const [first, ...rest] = points;
  if (first === undefined) return "";
  let previous = first;
  const path = rest.map((point) => {
    const curve = bend(previous, point);
    previous = point;
    return curve;
  });
  return `<path class="edge${edge.data ? "" : " order"}" marker-end="url(#end)" d="M${round(first.x)} ${round(first.y)}${path.join("")}"/>`;
}

/** Leaves and arrives level. */
function bend(from: Point, to: Point): string {
  if (from.y === to.y) return `L${round(to.x)} ${round(to.y)}`;
  const middle = round((from.x + to.x) / 2);
  return `C${middle} ${round(from.y)} ${middle} ${round(to.y)} ${round(to.x)} ${round(to.y)}`;
}

function short(text: string): string {
  const letters = [...text];
  return letters.length <= MAX_LETTERS ? text : `${letters.slice(0, MAX_LETTERS - 1).join("")}…`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Text as XML has it; characters that XML does not know at all are left out. */
function escapeXml(text: string): string {
  return text
    .replaceAll(/[^\t\n\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
