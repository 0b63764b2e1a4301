import type { JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import {
  type Expression,
  ExpressionError,
  type Scope,
  type StepScope,
  type Template,
} from "../expressions/expression.ts";
import type { PlanAction, PlanStep } from "../plan.ts";
import type { ClaimedRun } from "./journal.ts";
import { errorScope } from "./statuses.ts";
import type { StepEnd } from "./step.ts";

/** What expressions see of the run itself. */
export function runScope(run: ClaimedRun): Pick<Scope, "input" | "run"> {
  const { kind } = run.source;
  return {
    input: kind.case === "workflow" ? (kind.value.input ?? {}) : {},
    run: {
      id: run.id,
      attempt: run.takeovers + 1,
      start_time: new Date(run.startTime).toISOString(),
    },
  };
}

/** A step that has ended, as expressions see it. */
export function stepScope(end: StepEnd): StepScope {
  return {
    output: end.state === "succeeded" ? end.output : null,
    state: end.state,
    error: end.state === "failed" ? errorScope(end.error) : null,
  };
}

/** What the expressions of a step see: of the steps, those that it comes after. */
export function scopeOf(
  step: PlanStep,
  base: Pick<Scope, "input" | "run">,
  steps: ReadonlyMap<string, StepScope>,
): Scope {
  const seen: Record<string, StepScope> = {};
  for (const id of step.dependsOn) {
    const ended = steps.get(id);
    if (ended !== undefined) {
      seen[id] = ended;
    }
  }
  return { ...base, steps: seen };
}

/** Evaluates what is written in a field. Throws INVALID_ARGUMENT, reason `EXPRESSION`, that names the field. */
export function evaluateField(field: string, written: Expression | Template, scope: Scope): JsonValue {
  try {
    return written.evaluate(scope);
  } catch (error) {
    throw error instanceof ExpressionError ? badExpression(field, error) : error;
  }
}

/** A condition must be true or false. */
export function evaluateCondition(condition: Expression, scope: Scope): boolean {
  const value = evaluateField("condition", condition, scope);
  if (typeof value !== "boolean") {
    throw badExpression(
      "condition",
      new ExpressionError(`must be true or false, and is ${typeName(value)}`, {
        path: "",
        source: condition.source,
      }),
    );
  }
  return value;
}

export function badExpression(field: string, { path, source, message }: ExpressionError): DomainError {
  const place = path === "" || path.startsWith("[") ? `${field}${path}` : `${field}.${path}`;
  const written = source === "" ? "" : ` in \${${source}}`;
  return new DomainError({
    code: Code.InvalidArgument,
    reason: "EXPRESSION",
    message: `${place}: ${message}${written}`,
    metadata: { field: place, expression: source },
    fields: [{ field: place, description: message, reason: "EXPRESSION" }],
  });
}

/** What a type of JSON is called. */
export function typeName(value: JsonValue): string {
  if (value === null) {
    return "null";
  }
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** What the templates of an action come to, by field. */
export function evaluateInputs(
  action: PlanAction,
  scope: Scope,
  /** The field that the action is in. */
  within = "",
): Readonly<Record<string, JsonValue>> {
  return Object.fromEntries(
    Object.entries(templatesOf(action)).map(([name, template]) => [
      name,
      evaluateField(within + fieldOf(action, name), template, scope),
    ]),
  );
}

function templatesOf(action: PlanAction): Readonly<Record<string, Template>> {
  switch (action.kind) {
    case "tool":
    case "comparison":
      return { arguments: action.arguments };
    case "agent":
      return { task: action.task };
    case "requirement":
      return { text: action.text };
    case "test_run":
      return { project: action.project, arguments: action.arguments };
    case "workflow":
      return { input: action.input };
    case "approval":
      return { message: action.message };
    case "value":
      return { value: action.value };
    case "wait":
      return {};
  }
}

/** As in the definition of a workflow. */
function fieldOf({ kind }: PlanAction, name: string): string {
  return kind === name ? name : `${kind}.${name}`;
}

/** As in `RunStep.target`. */
export function targetOf(action: PlanAction, inputs: Readonly<Record<string, JsonValue>>): string {
  switch (action.kind) {
    case "tool":
      return action.tool;
    case "agent":
      return action.agent.name;
    case "requirement":
      return action.model;
    case "test_run":
      return typeof inputs["project"] === "string" ? inputs["project"] : "";
    case "workflow":
      return action.name;
    case "comparison":
    case "approval":
    case "value":
    case "wait":
      return "";
  }
}
