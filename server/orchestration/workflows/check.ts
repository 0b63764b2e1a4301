import { setImmediate } from "node:timers/promises";
import type { JsonObject } from "@bufbuild/protobuf";
import { DomainError } from "@toolplane/framework";
import type { ToolScope } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type ToolAction,
  type Workflow,
  type WorkflowGraph,
  type WorkflowProblem,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { createJsonSchemaCheck, type JsonSchemaCheck } from "../../schema/index.ts";
import { checkRules } from "../../schema/validate-rules.ts";
import { Violations } from "../../schema/violations.ts";
import { checkBounds } from "./bounds.ts";
import { type LinkedStep, toGraph } from "./graph.ts";
import type {
  AgentLookup,
  KnownTool,
  ScheduleCheck,
  ToolLookup,
  ToolPatternLookup,
  Unknown,
  WorkflowLookup,
} from "./lookup.ts";
import { checkCycles, checkOutputReferences, checkVariables, indexSteps, linkSteps } from "./order.ts";
import {
  fallbackTool,
  outputPart,
  type StepParts,
  stepExpressions,
  stepParts,
  templateExpressions,
} from "./parts.ts";
import { type FindPlace, MAX_PROBLEMS, Problems } from "./problems.ts";
import { checkReach } from "./reach.ts";
import { TypeCheck } from "./types.ts";

export interface CheckOptions {
  readonly tools: ToolLookup;
  /** Undefined: names of tools that models may use are taken as they are. */
  readonly toolPatterns?: ToolPatternLookup | undefined;
  /** Undefined: agents, workflows and schedules are taken as they are. */
  readonly agents?: AgentLookup | undefined;
  readonly workflows?: WorkflowLookup | undefined;
  readonly checkSchedule?: ScheduleCheck | undefined;
  /** Of the text that the workflow comes from. */
  readonly place?: FindPlace | undefined;
}

export interface WorkflowFindings {
  /** In the order of the steps, as far as they belong to one; at most `MAX_PROBLEMS`. */
  readonly problems: readonly WorkflowProblem[];
  /** Undefined: the steps go in a circle, or some have the same id. */
  readonly graph: WorkflowGraph | undefined;
}

/** Finds all that is wrong with a workflow. Takes time in proportion to its size. */
export function checkWorkflow(workflow: Workflow, options: CheckOptions): WorkflowFindings {
  const slices = new Check(workflow, options).run();
  for (;;) {
    const { done, value } = slices.next();
    if (done) return value;
  }
}

/** For so long it keeps the process from other work, in milliseconds; and then for as long as one more step takes. */
const SLICE_MS = 20;

/** Like `checkWorkflow`, letting others work in between. */
export async function checkWorkflowInSlices(
  workflow: Workflow,
  options: CheckOptions,
): Promise<WorkflowFindings> {
  const slices = new Check(workflow, options).run();
  let start = performance.now();
  for (;;) {
    const { done, value } = slices.next();
    if (done) return value;
    if (performance.now() - start > SLICE_MS) {
      await setImmediate();
      start = performance.now();
    }
  }
}

/** So many names of tools that a model may use are looked up. */
const MAX_PATTERNS = 100;

class Check {
  readonly #workflow: Workflow;
  readonly #options: CheckOptions;
  readonly #problems: Problems;
  readonly #tools = new Map<string, KnownTool | Unknown>();

  constructor(workflow: Workflow, options: CheckOptions) {
    this.#workflow = workflow;
    this.#options = options;
    this.#problems = new Problems(options.place);
  }

  /** Pauses after each step. */
  *run(): Generator<undefined, WorkflowFindings> {
    const problems = this.#problems;
    this.#rules();
    yield;
    const inputCheck = this.#inputSchema();
    this.#schedules(inputCheck);
    if (!checkBounds(this.#workflow, problems)) return { problems: sorted(problems.all), graph: undefined };
    yield;
    const steps: StepParts[] = [];
    // More cannot be kept; what is wrong with them does not matter.
    for (const [index, step] of this.#workflow.steps.slice(0, MAX_PROBLEMS).entries()) {
      steps.push(stepParts(step, index, problems));
      yield;
    }
    const output = outputPart(this.#workflow, problems);
    const byId = indexSteps(steps, problems);
    const linked = linkSteps(byId, problems);
    if (output !== undefined) {
      checkOutputReferences(output, byId, problems);
      for (const part of templateExpressions(output)) checkVariables(part, undefined, problems);
    }
    const isFree = checkCycles(linked, byId, problems);
    const graph = isFree ? toGraph(linked) : undefined;
    const types = new TypeCheck({
      workflow: this.#workflow,
      byId,
      problems,
      findTool: (action) => this.#findTool(action),
      workflows: this.#options.workflows,
    });
    for (const each of inOrder(linked, graph)) {
      const parts = byId.get(each.step.id);
      if (parts !== undefined) this.#step(each, parts, byId, types);
      yield;
    }
    if (output !== undefined) types.output(output);
    return { problems: sorted(problems.all), graph: byId.size === steps.length ? graph : undefined };
  }

  /** The rules of the contract: patterns, lengths, counts. */
  #rules(): void {
    const broken = Violations.of("", (found) =>
      checkRules(WorkflowSchema, this.#workflow, undefined, found, undefined, "proto"),
    );
    for (const { field, reason, description } of broken) {
      this.#problems.add({
        reason: reason ?? "INVALID_VALUE",
        field,
        stepId: this.#stepIdAt(field),
        message: description,
      });
    }
  }

  #stepIdAt(field: string): string | undefined {
    const index = /^steps\[(\d+)\]/.exec(field)?.[1];
    return index === undefined ? undefined : this.#workflow.steps[Number(index)]?.id;
  }

  #inputSchema(): JsonSchemaCheck | undefined {
    const schema = this.#workflow.inputSchema;
    if (schema === undefined) return undefined;
    const add = (message: string) =>
      this.#problems.add({ reason: "INVALID_SCHEMA", field: "input_schema", message });
    if (!takesObjects(schema)) {
      add('the input of a run is an object; write "type": "object"');
      return undefined;
    }
    try {
      const check = createJsonSchemaCheck(schema);
      // Compiles it.
      check.check({}, "");
      return check;
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      add(error.message);
      return undefined;
    }
  }

  #schedules(inputCheck: JsonSchemaCheck | undefined): void {
    for (const [index, { cron, timeZone, input }] of this.#workflow.schedules.entries()) {
      const field = `schedules[${index}]`;
      const message = cron === "" ? undefined : this.#options.checkSchedule?.({ cron, timeZone });
      if (message !== undefined) {
        this.#problems.add({ reason: "INVALID_SCHEDULE", field: `${field}.cron`, message });
      }
      for (const wrong of inputCheck?.check(input ?? {}, `${field}.input`) ?? []) {
        const { reason = "INVALID_VALUE", description } = wrong;
        this.#problems.add({
          reason,
          field: wrong.field,
          message: `${description}, as input_schema demands`,
        });
      }
    }
  }

  #step(linked: LinkedStep, parts: StepParts, byId: ReadonlyMap<string, StepParts>, types: TypeCheck): void {
    for (const part of stepExpressions(parts)) checkVariables(part, parts.step.id, this.#problems);
    checkReach(linked, parts, byId, this.#problems);
    this.#targets(parts);
    types.step(parts);
  }

  /** Reports tools, agents and workflows that there are not. */
  #targets({ step, field }: StepParts): void {
    const { action } = step;
    const { agents, workflows } = this.#options;
    const fallback = fallbackTool(step);
    if (fallback !== undefined) this.#checkTool(fallback, `${field}.fallback.tool.name`, step.id);
    if (action.case === "tool") this.#checkTool(action.value, `${field}.tool.name`, step.id);
    if (action.case === "requirement") {
      this.#checkScope(action.value.tools, `${field}.requirement.tools`, step.id);
    }
    if (action.case === "agent") {
      const unknown = agents?.(action.value.name, action.value.version);
      if (unknown !== undefined) this.#unknown("UNKNOWN_AGENT", `${field}.agent.name`, step.id, unknown);
    }
    if (action.case === "workflow") {
      const { name, version } = action.value;
      if (name === this.#workflow.name) {
        this.#problems.add({
          reason: "RECURSION",
          field: `${field}.workflow.name`,
          stepId: step.id,
          message: "the workflow starts itself; see to it that a condition ends this",
          isWarning: true,
        });
      } else {
        const found = workflows?.(name, version);
        if (found !== undefined && "unknown" in found) {
          this.#unknown("UNKNOWN_WORKFLOW", `${field}.workflow.name`, step.id, found);
        }
      }
    }
  }

  /** Tools may yet come, so that these are warnings. */
  #checkScope(scope: ToolScope | undefined, field: string, stepId: string): void {
    const { toolPatterns } = this.#options;
    if (scope === undefined || scope.none || toolPatterns === undefined) return;
    for (const [index, pattern] of scope.names.slice(0, MAX_PATTERNS).entries()) {
      if (toolPatterns(pattern, scope.environment)) continue;
      this.#problems.add({
        reason: "UNKNOWN_TOOL",
        field: `${field}.names[${index}]`,
        stepId,
        message: `no tool is named ${JSON.stringify(pattern)} now; list tools to see their names, or register the service`,
        isWarning: true,
      });
    }
  }

  #checkTool(action: ToolAction, field: string, stepId: string): void {
    const found = this.#lookUp(action);
    if ("unknown" in found) this.#unknown("UNKNOWN_TOOL", field, stepId, found);
  }

  #unknown(reason: string, field: string, stepId: string, { unknown }: Unknown): void {
    this.#problems.add({ reason, field, stepId, message: unknown });
  }

  #findTool(action: ToolAction): KnownTool | undefined {
    const found = this.#lookUp(action);
    return "unknown" in found ? undefined : found;
  }

  #lookUp({ name, environment, version }: ToolAction): KnownTool | Unknown {
    const key = JSON.stringify([name, environment, version]);
    let found = this.#tools.get(key);
    if (found === undefined) {
      found = this.#options.tools(name, environment, version);
      this.#tools.set(key, found);
    }
    return found;
  }
}

/** Each step after those that it comes after; in a circle, as they are. */
function inOrder(linked: readonly LinkedStep[], graph: WorkflowGraph | undefined): readonly LinkedStep[] {
  if (graph === undefined) return linked;
  const levels = new Map(graph.nodes.map(({ stepId, level }) => [stepId, level]));
  const level = ({ step }: LinkedStep) => levels.get(step.id) ?? 0;
  return [...linked].sort((a, b) => level(a) - level(b));
}

/** In the order of the text, and then of the steps. */
function sorted(problems: readonly WorkflowProblem[]): WorkflowProblem[] {
  const step = ({ field }: WorkflowProblem) => Number(/^steps\[(\d+)\]/.exec(field)?.[1] ?? -1);
  return [...problems].sort((a, b) => a.line - b.line || step(a) - step(b));
}

function takesObjects({ type }: JsonObject): boolean {
  return type === undefined || type === "object" || (Array.isArray(type) && type.includes("object"));
}
