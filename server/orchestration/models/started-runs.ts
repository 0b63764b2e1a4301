import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, type FieldViolation, invalidArgument } from "@toolplane/framework";
import {
  type StartRunRequest,
  StartRunRequestSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { Workflow, WorkflowStep } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { OWN_SERVICE } from "../../registry/registry.ts";
import { parseWorkflowText } from "../workflows/parse.ts";
import type { AllowedTools } from "./tool-choice.ts";

const START_RUN = `${OWN_SERVICE}.start-run`;
/** What steps call that run tests and compare them. */
const TESTS = `${OWN_SERVICE}.run-unit-tests`;
const COMPARISONS = `${OWN_SERVICE}.compare-test-runs`;
/** Of what is listed in an error. */
const MAX_LISTED = 20;

type Scope = Pick<AllowedTools, "find" | "covers" | "environment">;

/**
 * A model that may start runs may start kept workflows and agents, which are as their authors made them. What it makes up
 * itself, calls, requirements and workflows, may use the model's own tools and no others: else whatever talks it into
 * starting a run would have widened its scope. Throws what the model can repair the call from.
 */
export function checkStartedRun(tool: Pick<Tool, "name">, given: JsonObject, scope: Scope): void {
  if (tool.name !== START_RUN) {
    return;
  }
  const outside = outsideOf(parse(given), scope);
  if (outside.length > 0) {
    throw new DomainError({
      code: Code.PermissionDenied,
      reason: "RUN_OUTSIDE_SCOPE",
      message:
        "A run that you start can use your own tools and no others, so none was started: " +
        outside.map(({ field, description }) => `${field}: ${description}`).join("; "),
      fields: outside,
    });
  }
}

function parse(given: JsonObject): StartRunRequest {
  try {
    return fromJson(StartRunRequestSchema, given, { ignoreUnknownFields: true });
  } catch (error) {
    const why = error instanceof Error ? error.message : "it cannot be understood";
    throw invalidArgument([{ field: "arguments", description: why.slice(0, 500), reason: "WRONG_TYPE" }]);
  }
}

function outsideOf({ source }: StartRunRequest, scope: Scope): readonly FieldViolation[] {
  const found: FieldViolation[] = [];
  const at = collector(scope, found);
  switch (source?.kind.case) {
    case "toolBatch":
      for (const [index, call] of source.kind.value.calls.entries()) {
        at.tool(`source.tool_batch.calls[${index}].tool`, call.tool, call.environment);
      }
      break;
    case "requirement":
      at.tools("source.requirement.tools", source.kind.value.tools);
      break;
    case "workflow": {
      const { workflow } = source.kind.value;
      const made = workflow.case === "text" ? parseWorkflowText(workflow.value).workflow : workflow.value;
      // One that is kept is named; a text that is none is refused by whoever starts runs.
      if (typeof made === "object") {
        checkSteps(made, `source.workflow.${workflow.case}`, at);
      }
      break;
    }
    case "agentTasks":
    case undefined:
      break;
  }
  return found.slice(0, MAX_LISTED);
}

interface Collector {
  tool(field: string, name: string, environment: string): void;
  tools(field: string, scope: Parameters<AllowedTools["covers"]>[0]): void;
}

function collector(scope: Scope, found: FieldViolation[]): Collector {
  const add = (field: string, description: string) =>
    found.push({ field, description, reason: "OUTSIDE_SCOPE" });
  return {
    tool(field, name, environment) {
      if ((environment || "default") !== scope.environment || scope.find(name) === undefined) {
        const where = environment === "" ? "" : ` in environment "${environment.slice(0, 63)}"`;
        add(field, `"${name.slice(0, 128)}"${where} is none of your tools`);
      }
    },
    tools(field, wanted) {
      if (!scope.covers(wanted)) {
        add(field, "it is to name tools that are yours, or patterns that are part of your own, or `none`");
      }
    },
  };
}

function checkSteps({ steps }: Workflow, field: string, at: Collector): void {
  for (const [index, step] of steps.entries()) {
    checkStep(step, `${field}.steps[${index}]`, at);
  }
}

function checkStep({ action, fallback }: WorkflowStep, field: string, at: Collector): void {
  if (fallback?.kind.case === "tool") {
    at.tool(`${field}.fallback.tool.name`, fallback.kind.value.name, fallback.kind.value.environment);
  }
  switch (action.case) {
    case "tool":
      at.tool(`${field}.tool.name`, action.value.name, action.value.environment);
      return;
    case "requirement":
      at.tools(`${field}.requirement.tools`, action.value.tools);
      return;
    case "testRun":
      at.tool(`${field}.test_run`, TESTS, "");
      return;
    case "comparison":
      at.tool(`${field}.comparison`, COMPARISONS, "");
      return;
    // As they are kept.
    case "agent":
    case "workflow":
    // What calls nothing.
    case "approval":
    case "value":
    case "wait":
    case undefined:
      return;
  }
}
