import type { Clock } from "@toolplane/framework";
import type { ToolCalling, Works } from "./action.ts";
import { createComparisonWork } from "./comparison.ts";
import { createOwnTools } from "./own-tools.ts";
import { createTestRunWork } from "./test-run.ts";
import { createToolWork } from "./tool.ts";
import { type Children, createWorkflowWork } from "./workflow.ts";

export interface WorksOptions {
  readonly toolCalling: ToolCalling;
  /** Of this server, whose own tools some steps call. */
  readonly version: string;
  readonly children: Children;
  /** What asks models. */
  readonly modelWorks: Pick<Works, "agent" | "requirement">;
  /** How deep runs may start runs. */
  readonly maxDepth: number;
  readonly clock: Clock;
}

/** How each kind of step is done. */
export function createWorks({
  toolCalling,
  version,
  children,
  modelWorks,
  maxDepth,
  clock,
}: WorksOptions): Works {
  const ownTools = createOwnTools(toolCalling, version);
  return {
    tool: createToolWork(toolCalling),
    agent: modelWorks.agent,
    requirement: modelWorks.requirement,
    test_run: createTestRunWork(ownTools, clock),
    comparison: createComparisonWork(ownTools),
    workflow: createWorkflowWork({ children, maxDepth }),
  };
}
