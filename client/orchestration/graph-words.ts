import type { WorkflowGraphNode } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";

/** What a step does and with what: `tool weather.GetForecast`. */
export function workOf({ kind, target }: WorkflowGraphNode): string {
  return `${kind.replaceAll("_", " ")} ${target}`.trim();
}

/** What is special about a step, in words. */
export function marksOf({ fanOut, conditional }: WorkflowGraphNode): string[] {
  return [...(fanOut ? ["for each"] : []), ...(conditional ? ["if"] : [])];
}
