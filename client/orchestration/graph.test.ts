import { create } from "@bufbuild/protobuf";
import {
  type WorkflowGraph,
  WorkflowGraphSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { layoutGraph } from "./graph-layout.ts";
import { graphToLines, graphToMermaid, graphToSvg } from "./index.ts";

const graph = create(WorkflowGraphSchema, {
  nodes: [
    { stepId: "fetch", kind: "tool", target: "weather.GetForecast", level: 0 },
    { stepId: "end", kind: "approval", level: 1, conditional: true },
    { stepId: "notify", kind: "tool", target: `mail."Send"<b>&#`, level: 2, fanOut: true },
  ],
  edges: [
    { from: "fetch", to: "end", data: true },
    { from: "end", to: "notify" },
    { from: "fetch", to: "notify", data: true },
  ],
  depth: 3,
});

/** A graph of `size` steps, of which each comes after some before it. */
function aGraph(size: number, edges: readonly (readonly [number, number])[]): WorkflowGraph {
  const level = Array.from({ length: size }, () => 0);
  const forward = edges.filter(([from, to]) => from < to && to < size).toSorted((a, b) => a[1] - b[1]);
  for (const [from, to] of forward) level[to] = Math.max(level[to] ?? 0, (level[from] ?? 0) + 1);
  return create(WorkflowGraphSchema, {
    nodes: level.map((each, n) => ({ stepId: `s${n}`, kind: "value", level: each })),
    edges: forward.map(([from, to]) => ({ from: `s${from}`, to: `s${to}` })),
  });
}

const size = () => ({ width: 120, height: 40 });

describe("a graph as Mermaid", () => {
  it("shows what each step is, and what comes after what", () => {
    expect(graphToMermaid(graph)).toBe(
      [
        "flowchart LR",
        '  s0["<b>fetch</b><br/>tool weather.GetForecast"]',
        '  s1{{"<b>end</b><br/>approval<br/><i>if</i>"}}',
        '  s2[["<b>notify</b><br/>tool mail.#34;Send#34;#60;b#62;#38;#35;<br/><i>for each</i>"]]',
        "  s0 --> s1",
        "  s1 -.-> s2",
        "  s0 --> s2",
        "",
      ].join("\n"),
    );
  });
});

describe("a graph as text", () => {
  it("has every step once, also where branches meet and chains are long", () => {
    const edges = fc.array(fc.tuple(fc.nat(29), fc.nat(29)), { maxLength: 60 });
    fc.assert(
      fc.property(edges, (chosen) => {
        const ids = graphToLines(aGraph(30, chosen)).map(({ stepId }) => stepId);
        expect(ids).toHaveLength(30);
        expect(new Set(ids).size).toBe(30);
      }),
    );
    const chain = Array.from({ length: 999 }, (_, n): [number, number] => [n, n + 1]);
    expect(graphToLines(aGraph(1_000, chain))).toHaveLength(1_000);
  });

  it("has each step below one that it comes after", () => {
    expect(graphToLines(graph)).toEqual([
      { indent: "", stepId: "fetch", work: "tool weather.GetForecast", marks: "", after: [] },
      { indent: "  ", stepId: "end", work: "approval", marks: "if", after: ["fetch"] },
      {
        indent: "    ",
        stepId: "notify",
        work: `tool mail."Send"<b>&#`,
        marks: "for each",
        after: ["end", "fetch"],
      },
    ]);
  });
});

describe("a graph as a picture", () => {
  it("is XML whatever the names are, and says what a step is", () => {
    const svg = graphToSvg(graph, "nightly <v1> \u0000");
    expect(svg).toContain("<title>nightly &lt;v1&gt; </title>");
    expect(svg).toContain("tool mail.&quot;Send&quot;&lt;b&gt;&amp;#");
    expect(svg.match(/<rect/g)).toHaveLength(4);
    expect(svg.match(/marker-end/g)).toHaveLength(3);
    expect(svg.match(/class="edge order"/g)).toHaveLength(1);
    expect(svg).toMatch(/class="step approval conditional"/);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it("of nothing is empty, and not broken", () => {
    const svg = graphToSvg(create(WorkflowGraphSchema), "empty");
    expect(svg).toContain('width="48" height="48"');
  });

  it("no two steps overlap, edges go from left to right, and all is within the frame", () => {
    const edges = fc.array(fc.tuple(fc.nat(39), fc.nat(39)), { maxLength: 120 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), edges, (count, chosen) => {
        const layout = layoutGraph(aGraph(count, chosen), size);
        expect(layout.nodes).toHaveLength(count);
        for (const [index, a] of layout.nodes.entries()) {
          expect(Math.min(a.x, a.y)).toBeGreaterThanOrEqual(0);
          expect(a.x + a.width).toBeLessThanOrEqual(layout.width);
          expect(a.y + a.height).toBeLessThanOrEqual(layout.height);
          for (const b of layout.nodes.slice(index + 1)) {
            const apart =
              a.x + a.width <= b.x ||
              b.x + b.width <= a.x ||
              a.y + a.height <= b.y + 1e-6 ||
              b.y + b.height <= a.y + 1e-6;
            expect(apart).toBe(true);
          }
        }
        for (const { points } of layout.edges) {
          for (const [index, point] of points.slice(1).entries()) {
            expect(point.x).toBeGreaterThanOrEqual(points[index]?.x ?? 0);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("a chain is a straight line, and a fork is symmetric", () => {
    const chain = layoutGraph(
      aGraph(4, [
        [0, 1],
        [1, 2],
        [2, 3],
      ]),
      size,
    );
    expect(new Set(chain.nodes.map(({ y }) => Math.round(y))).size).toBe(1);
    const fork = layoutGraph(
      aGraph(3, [
        [0, 1],
        [0, 2],
      ]),
      size,
    );
    const [root, first, second] = fork.nodes.map(({ y }) => y);
    expect(((first ?? 0) + (second ?? 0)) / 2).toBeCloseTo(root ?? Number.NaN);
  });

  it("of a thousand steps is drawn whole", () => {
    const wide = Array.from({ length: 998 }, (_, n): [number, number][] => [
      [0, n + 1],
      [n + 1, 999],
    ]).flat();
    expect(graphToSvg(aGraph(1_000, wide), "wide").match(/<rect/g)).toHaveLength(1_000);
    // Every step after all before it: more lanes than a picture can hold.
    const dense = Array.from({ length: 120 }, (_, to) =>
      Array.from({ length: to }, (_, from): [number, number] => [from, to]),
    ).flat();
    expect(graphToSvg(aGraph(120, dense), "dense").match(/marker-end/g)).toHaveLength(dense.length);
  });
});
