import { type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Duration, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { invalidArgument, notFound } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type AgentTasks,
  RunKind,
  type RunSource,
  type ToolBatch,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import {
  type Fallback,
  type RequirementAction,
  type RetryPolicy,
  StepTrigger,
  type ToolAction,
  type Workflow,
  type WorkflowStep,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { milliseconds, optionalMilliseconds } from "../config/durations.ts";
import type { Expression, References, Template } from "./expressions/expression.ts";
import { constantTemplate, parseExpression, parseTemplate } from "./expressions/template.ts";
import type { PlanAction, PlanFallback, PlanRetry, PlanStep, RunPlan, ToolPlanAction } from "./plan.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DEFAULT_RUN_TIMEOUT_MS = 24 * HOUR_MS;
const DEFAULT_TOOL_TIMEOUT_MS = MINUTE_MS;
const DEFAULT_MODEL_TIMEOUT_MS = 10 * MINUTE_MS;
const BUDGET_GRACE_MS = 10_000;
const DEFAULT_TASK_TIMEOUT_MS = 30 * SECOND_MS;
const DEFAULT_TEST_RUN_TIMEOUT_MS = HOUR_MS;
const DEFAULT_TASK_ATTEMPTS = 3;

const once: PlanRetry = { attempts: 1, initialBackoffMs: SECOND_MS, maxBackoffMs: MINUTE_MS };

/** What most steps have none of. */
const plain = {
  description: "",
  dependsOn: [],
  trigger: "success",
  condition: undefined,
  fanOut: undefined,
  retry: once,
  fallback: undefined,
  continueOnFailure: false,
} as const satisfies Partial<PlanStep>;

/**
 * What a run does, of what it was started with: workflows in it are pinned, that is, inline. Expressions are only looked
 * for in workflows; what a caller gives directly is taken as it is.
 *
 * Throws an `ExpressionError` for what cannot be parsed, INVALID_ARGUMENT for what no run can do, and NOT_FOUND for an
 * agent that is not among `agents`.
 */
export function compileRun(source: RunSource, agents: readonly Agent[]): RunPlan {
  switch (source.kind.case) {
    case "toolBatch":
      return compileBatch(source.kind.value);
    case "workflow": {
      const { workflow } = source.kind.value;
      if (workflow.case !== "inline") {
        throw new TypeError("the workflow of a run is not pinned");
      }
      return compileWorkflow(workflow.value, agents);
    }
    case "requirement":
      return compileRequirement(source.kind.value);
    case "agentTasks":
      return compileTasks(source.kind.value, agents);
    case undefined:
      throw invalidArgument([
        { field: "source", description: "set tool_batch, workflow, requirement or agent_tasks" },
      ]);
  }
}

function compileBatch({ calls, maxConcurrency, timeout, retry }: ToolBatch): RunPlan {
  return {
    kind: RunKind.TOOL_BATCH,
    maxConcurrency: maxConcurrency || 5,
    timeoutMs: DEFAULT_RUN_TIMEOUT_MS,
    output: { kind: "list", name: "result" },
    steps: calls.map((call, index) => {
      const { tool, environment, version, input, argumentStream } = call;
      if (input.case === "message" || argumentStream.length > 0) {
        throw invalidArgument([
          {
            field: `tool_batch.calls[${index}].${input.case === "message" ? "message" : "argument_stream"}`,
            description: "a run calls tools with JSON arguments only: set arguments",
          },
        ]);
      }
      return {
        ...plain,
        id: `call${index}`,
        timeoutMs: milliseconds(call.timeout ?? timeout, DEFAULT_TOOL_TIMEOUT_MS),
        retry: compileRetry(retry),
        action: {
          kind: "tool",
          tool,
          environment,
          version,
          arguments: constantTemplate(input.value ?? {}),
        },
      };
    }),
  };
}

function compileRequirement(requirement: RequirementAction): RunPlan {
  return {
    kind: RunKind.REQUIREMENT,
    maxConcurrency: 1,
    timeoutMs: DEFAULT_RUN_TIMEOUT_MS,
    output: { kind: "single" },
    steps: [
      {
        ...plain,
        id: "main",
        timeoutMs: requirementTimeoutMs(requirement),
        action: requirementAction(requirement, constantTemplate),
      },
    ],
  };
}

function compileTasks({ tasks, maxConcurrency }: AgentTasks, agents: readonly Agent[]): RunPlan {
  return {
    kind: RunKind.AGENT_TASKS,
    maxConcurrency: maxConcurrency || 10,
    timeoutMs: DEFAULT_RUN_TIMEOUT_MS,
    output: { kind: "list", name: undefined },
    steps: tasks.map((task, index) => {
      const agent = pinned(agents, task.agent, task.version);
      return {
        ...plain,
        id: `task${index}`,
        timeoutMs: milliseconds(agent.timeout, DEFAULT_TASK_TIMEOUT_MS),
        retry: agentRetry(agent),
        action: { kind: "agent", agent, task: constantTemplate(task.task) },
      };
    }),
  };
}

function compileWorkflow(workflow: Workflow, agents: readonly Agent[]): RunPlan {
  return {
    kind: RunKind.WORKFLOW,
    maxConcurrency: workflow.maxConcurrency || 10,
    timeoutMs: milliseconds(workflow.timeout, DEFAULT_RUN_TIMEOUT_MS),
    output: workflow.output
      ? { kind: "template", template: parseTemplate(jsonOf(workflow.output)) }
      : { kind: "leaves" },
    steps: workflow.steps.map((step) => compileStep(step, agents)),
  };
}

/** Parses what may hold expressions, and notes which steps they name. */
interface Parser {
  readonly template: (json: JsonValue) => Template;
  readonly expression: (text: string) => Expression;
  readonly named: ReadonlySet<string>;
}

function createParser(): Parser {
  const named = new Set<string>();
  const noting = <T extends { readonly references: References }>(parsed: T): T => {
    for (const step of parsed.references.steps) {
      named.add(step);
    }
    return parsed;
  };
  return {
    template: (json) => noting(parseTemplate(json)),
    expression: (text) => noting(parseExpression(text)),
    named,
  };
}

function compileStep(step: WorkflowStep, agents: readonly Agent[]): PlanStep {
  const parser = createParser();
  const action = compileAction(step, agents, parser);
  const condition = step.condition === "" ? undefined : parser.expression(step.condition);
  const fanOut = step.forEach && {
    items: parser.expression(step.forEach.items),
    maxConcurrency: step.forEach.maxConcurrency || undefined,
    continueOnFailure: step.forEach.continueOnFailure,
  };
  const fallback = step.fallback && compileFallback(step.fallback, parser);
  return {
    id: step.id,
    description: step.description,
    dependsOn: [...new Set([...step.dependsOn, ...parser.named])],
    trigger: triggerOf(step.trigger),
    condition,
    fanOut,
    timeoutMs: optionalMilliseconds(step.timeout) ?? defaultTimeoutMs(action),
    retry: step.retry || action.kind !== "agent" ? compileRetry(step.retry) : agentRetry(action.agent),
    fallback,
    continueOnFailure: step.continueOnFailure,
    action,
  };
}

function compileAction({ id, action }: WorkflowStep, agents: readonly Agent[], parser: Parser): PlanAction {
  const fields = (json: JsonObject | undefined) => parser.template(json ?? {});
  switch (action.case) {
    case "tool":
      return toolAction(action.value, parser);
    case "agent": {
      const { name, version, task } = action.value;
      return { kind: "agent", agent: pinned(agents, name, version), task: parser.template(task) };
    }
    case "requirement":
      return requirementAction(action.value, parser.template);
    case "approval":
      return {
        kind: "approval",
        message: parser.template(action.value.message),
        approveOnTimeout: action.value.approveOnTimeout,
      };
    case "testRun":
      return {
        kind: "test_run",
        project: parser.template(action.value.project),
        arguments: fields(action.value.arguments),
        allowFailures: action.value.allowFailures,
      };
    case "comparison":
      return {
        kind: "comparison",
        arguments: fields(action.value.arguments),
        failOnRegression: action.value.failOnRegression,
      };
    case "workflow":
      return {
        kind: "workflow",
        name: action.value.name,
        version: action.value.version,
        input: fields(action.value.input),
      };
    case "value":
      return { kind: "value", value: parser.template(jsonOf(action.value)) };
    case "wait":
      return { kind: "wait", ms: waitMs(id, action.value) };
    case undefined:
      throw invalidArgument([{ field: `steps.${id}`, description: "say what the step does, such as tool" }]);
  }
}

function toolAction({ name, environment, version, arguments: json }: ToolAction, parser: Parser) {
  return {
    kind: "tool",
    tool: name,
    environment,
    version,
    arguments: parser.template(json ?? {}),
  } as const satisfies ToolPlanAction;
}

function requirementAction(
  { text, model, instructions, tools, budget }: RequirementAction,
  parse: (text: string) => Template,
): PlanAction {
  return { kind: "requirement", text: parse(text), model, instructions, tools, budget };
}

function compileFallback({ kind }: Fallback, parser: Parser): PlanFallback | undefined {
  switch (kind.case) {
    case "value":
      return { kind: "value", value: parser.template(jsonOf(kind.value)) };
    case "tool":
      return { kind: "tool", action: toolAction(kind.value, parser) };
    case undefined:
      return undefined;
  }
}

function compileRetry(policy: RetryPolicy | undefined): PlanRetry {
  return {
    attempts: policy?.attempts || once.attempts,
    initialBackoffMs: milliseconds(policy?.initialBackoff, once.initialBackoffMs),
    maxBackoffMs: milliseconds(policy?.maxBackoff, once.maxBackoffMs),
  };
}

function agentRetry({ attempts }: Agent): PlanRetry {
  return { ...once, attempts: attempts || DEFAULT_TASK_ATTEMPTS };
}

function triggerOf(trigger: StepTrigger): PlanStep["trigger"] {
  switch (trigger) {
    case StepTrigger.UNSPECIFIED:
      return "success";
    case StepTrigger.ON_FAILURE:
      return "failure";
    case StepTrigger.ALWAYS:
      return "always";
  }
}

/** Of an attempt of a step that names no timeout. */
function defaultTimeoutMs(action: PlanAction): number | undefined {
  switch (action.kind) {
    case "tool":
    case "comparison":
      return DEFAULT_TOOL_TIMEOUT_MS;
    case "agent":
      return milliseconds(action.agent.timeout, DEFAULT_MODEL_TIMEOUT_MS);
    case "requirement":
      return requirementTimeoutMs(action);
    case "test_run":
      return DEFAULT_TEST_RUN_TIMEOUT_MS;
    // A run has its own timeout.
    case "workflow":
    case "approval":
    case "wait":
    case "value":
      return undefined;
  }
}

/** A little more than the budget of time, which says better what was used up. */
function requirementTimeoutMs({ budget }: { readonly budget?: RequirementAction["budget"] }): number {
  return (milliseconds(budget?.maxTime, 0) || DEFAULT_MODEL_TIMEOUT_MS) + BUDGET_GRACE_MS;
}

function waitMs(id: string, duration: Duration): number {
  const ms = milliseconds(duration, 0);
  if (ms < 0) {
    throw invalidArgument([{ field: `steps.${id}.wait`, description: "must not be negative" }]);
  }
  return ms;
}

function pinned(agents: readonly Agent[], name: string, version: number): Agent {
  const agent = agents.find((each) => each.name === name && (version === 0 || each.version === version));
  if (agent === undefined) {
    throw notFound("agent", version === 0 ? name : `${name}@${version}`);
  }
  return agent;
}

function jsonOf(value: Value): JsonValue {
  return toJson(ValueSchema, value);
}
