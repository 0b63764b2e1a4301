import { create, type JsonObject } from "@bufbuild/protobuf";
import { type FieldViolation, invalidArgument } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type AgentTasks,
  type RunSource,
  RunSourceSchema,
  type ToolBatch,
  type WorkflowStart,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { RequirementAction, Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { optionalMilliseconds } from "../../config/durations.ts";
import { createJsonSchemaCheck } from "../../schema/index.ts";
import { jsonBytes } from "../engine/json-bytes.ts";
import type { ModelGateway } from "../models/model.ts";
import type { PreparedRun } from "../starter.ts";
import { createAgentPins } from "./agent-pins.ts";
import type { Definitions } from "./definitions.ts";
import { workflowKind } from "./kinds.ts";
import { firstWords, namesTitle } from "./titles.ts";
import { refuseProblems, type WorkflowChecks } from "./workflow-checks.ts";

export interface PrepareOptions {
  readonly workflows: Pick<Definitions<Workflow>, "get">;
  readonly agents: Pick<Definitions<Agent>, "get">;
  readonly validator: WorkflowChecks;
  readonly gateway: Pick<ModelGateway, "find">;
  /** The largest input of a run, as JSON. */
  readonly maxValueBytes: number;
}

/**
 * Checks what a run is to do and finds what it names: the run then does the same whatever is put or deleted meanwhile.
 *
 * Throws INVALID_ARGUMENT with fields below `source`, NOT_FOUND for a workflow or an agent, and FAILED_PRECONDITION,
 * `NO_MODEL_PROVIDER`, for what needs a model where there is none. Tools of a batch are not looked for: a call of one that
 * is not there fails, and the others go on.
 */
export async function prepareRun(source: RunSource, options: PrepareOptions): Promise<PreparedRun> {
  const { kind } = source;
  switch (kind.case) {
    case "toolBatch":
      return prepareBatch(source, kind.value, options);
    case "workflow":
      return await prepareWorkflow(kind.value, options);
    case "requirement":
      return prepareRequirement(source, kind.value, options);
    case "agentTasks":
      return await prepareTasks(kind.value, options);
    case undefined:
      throw invalidArgument([
        { field: "source", description: "set tool_batch, workflow, requirement or agent_tasks" },
      ]);
  }
}

/** What most sources do not say. */
const plain = { agents: [], workflowVersion: 0, timeoutMs: undefined, labels: {} } as const;

function prepareBatch(
  source: RunSource,
  { calls }: ToolBatch,
  { maxValueBytes }: PrepareOptions,
): PreparedRun {
  const field = "source.tool_batch.calls";
  const violations: FieldViolation[] = [];
  let bytes = 0;
  for (const [index, { requestId, input, argumentStream }] of calls.entries()) {
    if (requestId !== "") {
      violations.push({
        field: `${field}[${index}].request_id`,
        description: "a run gives its calls ids of its own: leave it out",
        reason: "REQUEST_ID_IN_RUN",
      });
    }
    if (input.case === "message" || argumentStream.length > 0) {
      violations.push({
        field: `${field}[${index}].${input.case === "message" ? "message" : "argument_stream"}`,
        description: "a run calls tools with JSON arguments only: use `arguments`",
        reason: "ONLY_JSON_ARGUMENTS",
      });
    }
    bytes += input.case === "arguments" ? jsonBytes(input.value) : 0;
  }
  if (violations.length > 0) {
    throw invalidArgument(violations);
  }
  refuseLarge(field, bytes, maxValueBytes);
  return { ...plain, source, title: namesTitle(calls.map(({ tool }) => tool)) };
}

function prepareRequirement(
  source: RunSource,
  { text, model }: RequirementAction,
  { gateway }: PrepareOptions,
): PreparedRun {
  gateway.find(model);
  return { ...plain, source, title: firstWords(text) };
}

async function prepareTasks(
  { tasks, maxConcurrency }: AgentTasks,
  { agents, gateway }: PrepareOptions,
): Promise<PreparedRun> {
  const pins = createAgentPins(agents, gateway);
  const pinned: AgentTasks["tasks"] = [];
  for (const task of tasks) {
    const { version } = await pins.pin(task.agent, task.version);
    pinned.push({ ...task, version });
  }
  return {
    ...plain,
    source: create(RunSourceSchema, {
      kind: { case: "agentTasks", value: { tasks: pinned, maxConcurrency } },
    }),
    agents: pins.all(),
    title: namesTitle([...new Set(tasks.map(({ agent }) => agent))]),
  };
}

async function prepareWorkflow(start: WorkflowStart, options: PrepareOptions): Promise<PreparedRun> {
  const { agents, gateway, maxValueBytes } = options;
  const found = await findWorkflow(start, options);
  const input = start.input ?? {};
  checkInput(input, found, maxValueBytes);
  const pins = createAgentPins(agents, gateway);
  const steps: Workflow["steps"] = [];
  for (const step of found.steps) {
    if (step.action.case === "requirement") {
      gateway.find(step.action.value.model);
    }
    if (step.action.case === "agent") {
      const { name, version } = step.action.value;
      const agent = await pins.pin(name, version);
      steps.push({
        ...step,
        action: { case: "agent", value: { ...step.action.value, version: agent.version } },
      });
    } else {
      steps.push(step);
    }
  }
  return {
    source: create(RunSourceSchema, {
      kind: {
        case: "workflow",
        value: { workflow: { case: "inline", value: { ...found, steps } }, version: found.version, input },
      },
    }),
    agents: pins.all(),
    title: found.name,
    workflowVersion: found.version,
    timeoutMs: optionalMilliseconds(found.timeout),
    labels: found.labels,
  };
}

/** One that is kept was checked when it was put; tools that have gone or changed since fail their steps, and no others. */
async function findWorkflow(
  { workflow, version }: WorkflowStart,
  { workflows, validator }: PrepareOptions,
): Promise<Workflow> {
  switch (workflow.case) {
    case "name":
      return await workflows.get(workflow.value, version);
    case "inline": {
      const checked = await validator.validate({ case: "workflow", value: workflow.value });
      return workflowKind.bare(refuseProblems(checked, "source.workflow.inline"));
    }
    case "text": {
      const checked = await validator.validate({ case: "text", value: workflow.value });
      return workflowKind.bare(refuseProblems(checked, "source.workflow.text"));
    }
    case undefined:
      throw invalidArgument([{ field: "source.workflow", description: "set name, inline or text" }]);
  }
}

function checkInput(input: JsonObject, { inputSchema }: Workflow, maxValueBytes: number): void {
  const field = "source.workflow.input";
  refuseLarge(field, jsonBytes(input), maxValueBytes);
  const violations = inputSchema ? createJsonSchemaCheck(inputSchema).check(input, field) : [];
  if (violations.length > 0) {
    throw invalidArgument(violations);
  }
}

function refuseLarge(field: string, bytes: number, maxBytes: number): void {
  if (bytes > maxBytes) {
    throw invalidArgument([
      {
        field,
        description: `it is ${bytes} bytes as JSON, and the input of a run may have ${maxBytes}: give references to large data instead, or raise orchestration.max_value_bytes`,
        reason: "INPUT_TOO_LARGE",
      },
    ]);
  }
}
