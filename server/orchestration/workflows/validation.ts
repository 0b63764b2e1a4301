import { create, type JsonObject } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { ToolFilterSchema, ToolView } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Registry } from "../../registry/registry.ts";
import type { Definitions } from "../definitions/definitions.ts";
import type { CheckedWorkflow, WorkflowChecks } from "../definitions/workflow-checks.ts";
import { globMatches } from "../models/glob.ts";
import { checkWorkflowInSlices } from "./check.ts";
import type { KnownTool, ScheduleCheck, ToolLookup, ToolPatternLookup, Unknown } from "./lookup.ts";
import { parseWorkflowText } from "./parse.ts";
import type { FindPlace } from "./problems.ts";

export interface ValidatorParts {
  readonly registry: Pick<Registry, "getTool" | "listTools">;
  readonly workflows: Pick<Definitions<Workflow>, "get">;
  readonly agents: Pick<Definitions<Agent>, "get">;
  readonly checkSchedule: ScheduleCheck;
}

/** Checks workflows against the tools, agents and workflows that there are now. */
export function createWorkflowValidator(parts: ValidatorParts): WorkflowChecks {
  const tools = toolLookup(parts.registry);

  async function check(workflow: Workflow, place: FindPlace | undefined): Promise<CheckedWorkflow> {
    const [agents, workflows] = await Promise.all([
      lookUpAll(targetsOf(workflow, "agent"), parts.agents),
      lookUpAll(targetsOf(workflow, "workflow"), parts.workflows),
    ]);
    const checked = await checkWorkflowInSlices(workflow, {
      tools,
      toolPatterns: toolPatternLookup(parts.registry),
      agents(name, version) {
        const found = agents.get(keyOf({ name, version }));
        return found !== undefined && "unknown" in found ? found : undefined;
      },
      workflows(name, version) {
        const found = workflows.get(keyOf({ name, version }));
        if (found === undefined || "unknown" in found) return found ?? { inputSchema: undefined };
        return { inputSchema: found.inputSchema };
      },
      checkSchedule: parts.checkSchedule,
      place,
    });
    return { workflow, ...checked };
  }

  return {
    async validate(source) {
      if (source.case === "workflow") return check(source.value, undefined);
      const { workflow, problems, place } = parseWorkflowText(source.value);
      return workflow === undefined ? { workflow, problems, graph: undefined } : check(workflow, place);
    },
  };
}

function toolLookup(registry: Pick<Registry, "getTool">): ToolLookup {
  return (name, environment, version): KnownTool | Unknown => {
    try {
      const tool = registry.getTool(name, {
        environment: environment || undefined,
        version: version || undefined,
      });
      return {
        inputSchema: orAny(tool.inputSchema),
        outputSchema: orAny(tool.outputSchema),
        streams: tool.streaming === Streaming.SERVER || tool.streaming === Streaming.BIDI,
        isProtobuf: tool.kind === ToolKind.RPC,
      };
    } catch (error) {
      return unknown(error);
    }
  };
}

const PAGE_SIZE = 1_000;

/** Lists the tools of an environment once, when a pattern is first asked about. */
function toolPatternLookup(registry: Pick<Registry, "getTool" | "listTools">): ToolPatternLookup {
  const known = new Map<string, readonly string[]>();
  const lookUp = toolLookup(registry);
  return (pattern, environment) => {
    if (!pattern.includes("*")) return !("unknown" in lookUp(pattern, environment, ""));
    let names = known.get(environment);
    if (names === undefined) {
      names = toolNames(registry, environment || "default");
      known.set(environment, names);
    }
    return names.some((name) => globMatches(pattern, name));
  };
}

/** Names and aliases. */
function toolNames(registry: Pick<Registry, "listTools">, environment: string): string[] {
  const names: string[] = [];
  const filter = create(ToolFilterSchema, { environment });
  let pageToken = "";
  do {
    const page = registry.listTools({ filter, pageSize: PAGE_SIZE, pageToken, view: ToolView.BASIC });
    for (const { name, alias } of page.items) names.push(name, ...(alias === "" ? [] : [alias]));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return names;
}

function orAny(schema: JsonObject | undefined): JsonObject | undefined {
  return schema === undefined || Object.keys(schema).length === 0 ? undefined : schema;
}

/** What an error says to people. Throws what is no such error. */
function unknown(error: unknown): Unknown {
  if (error instanceof DomainError) return { unknown: error.message };
  throw error;
}

interface Target {
  readonly name: string;
  readonly version: number;
}

function targetsOf({ steps, name }: Workflow, kind: "agent" | "workflow"): Target[] {
  const targets = steps.flatMap(({ action }) => (action.case === kind ? [action.value] : []));
  return targets.filter((target) => target.name !== "" && !(kind === "workflow" && target.name === name));
}

function keyOf({ name, version }: Target): string {
  return `${name}@${version}`;
}

/** So many are looked up at once. */
const AT_ONCE = 16;

async function lookUpAll<T extends Workflow | Agent>(
  targets: readonly Target[],
  definitions: Pick<Definitions<T>, "get">,
): Promise<Map<string, T | Unknown>> {
  const distinct = [...new Map(targets.map((target) => [keyOf(target), target])).values()];
  const found = new Map<string, T | Unknown>();
  for (let start = 0; start < distinct.length; start += AT_ONCE) {
    await Promise.all(
      distinct.slice(start, start + AT_ONCE).map(async (target) => {
        found.set(keyOf(target), await definitions.get(target.name, target.version).catch(missing));
      }),
    );
  }
  return found;
}

function missing(error: unknown): Unknown {
  if (error instanceof DomainError && error.init.code === Code.NotFound) return { unknown: error.message };
  throw error;
}
