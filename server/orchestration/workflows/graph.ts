import { create } from "@bufbuild/protobuf";
import {
  type WorkflowGraph,
  WorkflowGraphEdgeSchema,
  WorkflowGraphNodeSchema,
  WorkflowGraphSchema,
  type WorkflowStep,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";

/** A step and the steps that it comes after. */
export interface LinkedStep {
  readonly step: WorkflowStep;
  /** By id; true: an expression names it, false: `depends_on` alone does. Only steps that there are. */
  readonly after: ReadonlyMap<string, boolean>;
}

/** The steps in levels: on level 0 those that come after none. The steps must be free of cycles. */
export function toGraph(linked: readonly LinkedStep[]): WorkflowGraph {
  const levels = levelsOf(linked);
  const nodes = linked
    .map(({ step }) =>
      create(WorkflowGraphNodeSchema, {
        stepId: step.id,
        kind: kindOf(step),
        target: targetOf(step),
        level: levels.get(step.id) ?? 0,
        fanOut: step.forEach !== undefined,
        conditional: step.condition !== "",
      }),
    )
    .sort((a, b) => a.level - b.level);
  const edges = linked.flatMap(({ step, after }) =>
    Array.from(after, ([from, data]) => create(WorkflowGraphEdgeSchema, { from, to: step.id, data })),
  );
  return create(WorkflowGraphSchema, { nodes, edges, depth: Math.max(-1, ...levels.values()) + 1 });
}

/** How many steps come before each in the longest chain. */
function levelsOf(linked: readonly LinkedStep[]): Map<string, number> {
  const levels = new Map<string, number>();
  const waiting = new Map(linked.map(({ step, after }) => [step.id, after.size]));
  const next = new Map<string, string[]>();
  for (const { step, after } of linked) {
    for (const from of after.keys()) {
      const list = next.get(from);
      if (list === undefined) next.set(from, [step.id]);
      else list.push(step.id);
    }
  }
  const ready = linked.filter(({ after }) => after.size === 0).map(({ step }) => step.id);
  for (const id of ready) levels.set(id, 0);
  // The list grows while it is gone through.
  for (const id of ready) {
    for (const later of next.get(id) ?? []) {
      levels.set(later, Math.max(levels.get(later) ?? 0, (levels.get(id) ?? 0) + 1));
      const left = (waiting.get(later) ?? 0) - 1;
      waiting.set(later, left);
      if (left === 0) ready.push(later);
    }
  }
  return levels;
}

/** What a step does, as the graph names it. */
export function kindOf({ action }: WorkflowStep): string {
  return action.case === "testRun" ? "test_run" : (action.case ?? "");
}

function targetOf({ action }: WorkflowStep): string {
  switch (action.case) {
    case "tool":
    case "agent":
    case "workflow":
      return action.value.name;
    case "testRun":
      return action.value.project;
    case "requirement":
      return action.value.model;
    default:
      return "";
  }
}
