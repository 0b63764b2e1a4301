import type {
  WorkflowGraph,
  WorkflowGraphEdge,
  WorkflowGraphNode,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";

/** A graph with places, in pixels. */
export interface GraphLayout {
  readonly width: number;
  readonly height: number;
  readonly nodes: readonly PlacedNode[];
  readonly edges: readonly PlacedEdge[];
}

export interface PlacedNode {
  readonly node: WorkflowGraphNode;
  /** The upper left corner. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface PlacedEdge {
  readonly edge: WorkflowGraphEdge;
  /** Where it passes, from the right side of one step to the left side of the other. */
  readonly points: readonly Point[];
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

const MARGIN = 24;
const COLUMN_GAP = 64;
const ROW_GAP = 20;
/** What an edge that passes a column takes of it. */
const LANE = 8;
/** How often columns are ordered, and places moved towards their neighbours. More changes little. */
const ORDERINGS = 6;
const PLACINGS = 8;
/** Beyond so many lanes, edges cross columns without one: the picture is too full to tell. */
const MAX_LANES = 5_000;

/** A step, or the lane of an edge, in a column. */
interface Slot {
  readonly node: WorkflowGraphNode | undefined;
  readonly level: number;
  readonly size: Size;
  readonly before: Slot[];
  readonly after: Slot[];
  /** Its place in its column, from 0. */
  order: number;
  /** The middle of its height. */
  y: number;
}

/**
 * Places steps in columns by their level, from left to right, in the manner of Sugiyama: edges get lanes through the
 * columns that they pass, columns are ordered by the mean place of their neighbours, and then moved towards them.
 */
export function layoutGraph(graph: WorkflowGraph, sizeOf: (node: WorkflowGraphNode) => Size): GraphLayout {
  const slots = new Map<string, Slot>();
  const columns: Slot[][] = [];
  const put = (node: WorkflowGraphNode | undefined, level: number, size: Size): Slot => {
    while (columns.length <= level) columns.push([]);
    const column = columns[level] ?? [];
    const slot: Slot = { node, level, size, before: [], after: [], order: column.length, y: 0 };
    column.push(slot);
    return slot;
  };
  const levels = compactLevels(graph.nodes);
  for (const node of graph.nodes) {
    slots.set(node.stepId, put(node, levels.get(node.level) ?? 0, sizeOf(node)));
  }
  const routes: { edge: WorkflowGraphEdge; route: Slot[] }[] = [];
  let lanes = 0;
  for (const edge of graph.edges) {
    const [from, to] = [slots.get(edge.from), slots.get(edge.to)];
    if (from === undefined || to === undefined) continue;
    const route = [from];
    for (let level = from.level + 1; level < to.level && lanes < MAX_LANES; level++, lanes++) {
      route.push(put(undefined, level, { width: 0, height: LANE }));
    }
    route.push(to);
    for (const [index, slot] of route.slice(1).entries()) {
      const previous = route[index];
      if (previous === undefined) continue;
      previous.after.push(slot);
      slot.before.push(previous);
    }
    routes.push({ edge, route });
  }
  orderColumns(columns);
  placeRows(columns);
  return toLayout(columns, routes);
}

/** Levels without holes: a server of another version may leave some. */
function compactLevels(nodes: readonly WorkflowGraphNode[]): ReadonlyMap<number, number> {
  const used = [...new Set(nodes.map(({ level }) => level))].sort((a, b) => a - b);
  return new Map(used.map((level, index) => [level, index]));
}

/** Lessens crossings: every slot goes where its neighbours in the column beside it are on average. */
function orderColumns(columns: readonly Slot[][]): void {
  for (let round = 0; round < ORDERINGS; round++) {
    const isForward = round % 2 === 0;
    for (const column of isForward ? columns : columns.toReversed()) {
      const weight = new Map(
        column.map((slot) => [
          slot,
          mean(isForward ? slot.before : slot.after, ({ order }) => order) ?? slot.order,
        ]),
      );
      column.sort((a, b) => (weight.get(a) ?? 0) - (weight.get(b) ?? 0));
      for (const [order, slot] of column.entries()) slot.order = order;
    }
  }
}

/** Moves slots towards their neighbours; within a column they keep their order and distance. */
function placeRows(columns: readonly Slot[][]): void {
  for (const column of columns) spread(column, () => 0);
  for (let round = 0; round < PLACINGS; round++) {
    const isForward = round % 2 === 0;
    for (const column of isForward ? columns : columns.toReversed()) {
      spread(column, (slot) => {
        const near = isForward ? slot.before : slot.after;
        return mean(near, ({ y }) => y) ?? slot.y;
      });
    }
  }
}

/**
 * Puts the slots of a column as near as can be (by least squares) to where they want to be, without overlaps: with the
 * distances taken out this is isotonic regression, solved by pooling adjacent violators.
 */
function spread(column: readonly Slot[], wish: (slot: Slot) => number): void {
  const offsets: number[] = [];
  let offset = 0;
  for (const [index, slot] of column.entries()) {
    const previous = column[index - 1];
    if (previous !== undefined) offset += (previous.size.height + slot.size.height) / 2 + ROW_GAP;
    offsets.push(offset);
  }
  // Without wishes, a column is centred around 0.
  const pools: { sum: number; count: number }[] = [];
  for (const [index, slot] of column.entries()) {
    let pool = { sum: wish(slot) - (offsets[index] ?? 0), count: 1 };
    for (
      let last = pools.at(-1);
      last !== undefined && last.sum / last.count > pool.sum / pool.count;
      last = pools.at(-1)
    ) {
      pool = { sum: last.sum + pool.sum, count: last.count + pool.count };
      pools.pop();
    }
    pools.push(pool);
  }
  let index = 0;
  for (const { sum, count } of pools) {
    for (let n = 0; n < count; n++, index++) {
      const slot = column[index];
      if (slot !== undefined) slot.y = sum / count + (offsets[index] ?? 0);
    }
  }
}

function toLayout(
  columns: readonly Slot[][],
  routes: readonly { readonly edge: WorkflowGraphEdge; readonly route: readonly Slot[] }[],
): GraphLayout {
  const all = columns.flat();
  const top = all.reduce((least, { y, size }) => Math.min(least, y - size.height / 2), 0);
  const bottom = all.reduce((most, { y, size }) => Math.max(most, y + size.height / 2), 0);
  const lefts: number[] = [];
  const widths = columns.map((column) => column.reduce((most, { size }) => Math.max(most, size.width), 0));
  let left = MARGIN;
  for (const width of widths) {
    lefts.push(left);
    left += width + COLUMN_GAP;
  }
  const middleOf = ({ y }: Slot) => y - top + MARGIN;
  const leftOf = ({ level }: Slot) => lefts[level] ?? 0;
  // A step fills its column, so that edges of neighbours end on one line.
  const rightOf = (slot: Slot) => leftOf(slot) + (widths[slot.level] ?? 0);
  return {
    width: columns.length === 0 ? 2 * MARGIN : left - COLUMN_GAP + MARGIN,
    height: bottom - top + 2 * MARGIN,
    nodes: all.flatMap((slot) =>
      slot.node === undefined
        ? []
        : [
            {
              node: slot.node,
              x: leftOf(slot),
              y: middleOf(slot) - slot.size.height / 2,
              width: widths[slot.level] ?? 0,
              height: slot.size.height,
            },
          ],
    ),
    edges: routes.map(({ edge, route }) => ({
      edge,
      points: route.flatMap((slot, index) => {
        const y = middleOf(slot);
        if (index === 0) return [{ x: rightOf(slot), y }];
        if (index === route.length - 1) return [{ x: leftOf(slot), y }];
        return [
          { x: leftOf(slot), y },
          { x: rightOf(slot), y },
        ];
      }),
    })),
  };
}

function mean(slots: readonly Slot[], value: (slot: Slot) => number): number | undefined {
  return slots.length === 0 ? undefined : slots.reduce((sum, slot) => sum + value(slot), 0) / slots.length;
}
