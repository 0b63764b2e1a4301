import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { principalOf } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { toYaml } from "../workflows/yaml.ts";
import type { Definitions } from "./definitions.ts";
import { workflowKind } from "./kinds.ts";
import {
  type CheckedWorkflow,
  isError,
  refuseProblems,
  type WorkflowChecks,
  type WorkflowSource,
} from "./workflow-checks.ts";

export interface DefinitionHandlersOptions {
  readonly workflows: Definitions<Workflow>;
  readonly agents: Definitions<Agent>;
  readonly validator: WorkflowChecks;
  /** When each schedule of the newest version starts the next run, in milliseconds since 1970, by its position. */
  readonly nextTimes: (workflow: string) => Promise<ReadonlyMap<number, number>>;
}

type DefinitionMethod =
  | "putWorkflow"
  | "getWorkflow"
  | "listWorkflows"
  | "deleteWorkflow"
  | "validateWorkflow"
  | "putAgent"
  | "getAgent"
  | "listAgents"
  | "deleteAgent";

/** The RPC handlers of `toolplane.orchestration.v1.OrchestrationService` for workflows and agents. */
export function definitionHandlers(
  options: DefinitionHandlersOptions,
): Pick<ServiceImpl<typeof OrchestrationService>, DefinitionMethod> {
  const { workflows, agents, validator, nextTimes } = options;

  /** Only the newest version has schedules that start anything. */
  async function withNextTimes(newest: Workflow): Promise<Workflow> {
    if (newest.schedules.length === 0) {
      return newest;
    }
    const times = await nextTimes(newest.name);
    const schedules = newest.schedules.map((schedule, position) => {
      const time = times.get(position);
      return time === undefined ? schedule : { ...schedule, nextTime: timestampFromMs(time) };
    });
    return { ...newest, schedules };
  }

  return {
    async putWorkflow({ source, etag, allowUnknownTools }, { values }) {
      const given = required(source);
      const checked = await validator.validate(given);
      const tolerated = allowUnknownTools ? toleratingUnknownTools(checked) : checked;
      const valid = refuseProblems(tolerated, given.case);
      const { definition, changed } = await workflows.put(valid, principalOf(values), etag);
      return {
        workflow: await withNextTimes(definition),
        warnings: checked.problems.filter((problem) => !isError(problem) || isUnknownTool(problem)),
        changed,
      };
    },

    async getWorkflow({ name, version }) {
      const newest = await workflows.get(name, 0);
      const isNewest = version === 0 || version === newest.version;
      const workflow = isNewest ? await withNextTimes(newest) : await workflows.get(name, version);
      const { graph } = await validator.validate({ case: "workflow", value: workflowKind.bare(workflow) });
      return { workflow, ...(graph && { graph }), yaml: toYaml(workflow) };
    },

    async listWorkflows({ name, pageSize, pageToken }) {
      const { items, nextPageToken } = await workflows.list(name, { pageSize, pageToken });
      const shown: Workflow[] = [];
      for (const [index, workflow] of items.entries()) {
        const isNewest = name === "" || (pageToken === "" && index === 0);
        shown.push({ ...(isNewest ? await withNextTimes(workflow) : workflow), steps: [] });
      }
      return { workflows: shown, nextPageToken };
    },

    async deleteWorkflow({ name }) {
      await workflows.delete(name);
      return {};
    },

    async validateWorkflow({ source }) {
      const { problems, workflow, graph } = await validator.validate(required(source));
      return {
        valid: workflow !== undefined && !problems.some(isError),
        problems: [...problems],
        ...(workflow && { workflow }),
        ...(graph && { graph }),
      };
    },

    async putAgent({ agent, etag }, { values }) {
      if (agent === undefined) {
        throw new Error("a request without an agent passed validation");
      }
      const { definition, changed } = await agents.put(agent, principalOf(values), etag);
      return { agent: definition, changed };
    },

    getAgent: async ({ name, version }) => ({ agent: await agents.get(name, version) }),

    async listAgents({ name, pageSize, pageToken }) {
      const { items, nextPageToken } = await agents.list(name, { pageSize, pageToken });
      return { agents: [...items], nextPageToken };
    },

    async deleteAgent({ name }) {
      await agents.delete(name);
      return {};
    },
  };
}

/** Validation has refused requests without a workflow before a handler sees them. */
function required(source: WorkflowSource | { readonly case: undefined }): WorkflowSource {
  if (source.case === undefined) {
    throw new Error("a request without a workflow passed validation");
  }
  return source;
}

function isUnknownTool({ reason }: CheckedWorkflow["problems"][number]): boolean {
  return reason === "UNKNOWN_TOOL";
}

function toleratingUnknownTools(checked: CheckedWorkflow): CheckedWorkflow {
  return { ...checked, problems: checked.problems.filter((problem) => !isUnknownTool(problem)) };
}
