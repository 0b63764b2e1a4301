import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type {
  ToolAction,
  Workflow,
  WorkflowStep,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { ExpressionError } from "../expressions/expression.ts";
import {
  expressionsIn,
  type PlacedExpression,
  parsePlacedExpression,
  parseTree,
  type TemplateTree,
} from "../expressions/template.ts";
import type { Problems } from "./problems.ts";

/** A template of a workflow, parsed, and what may be named in it. */
export interface TemplatePart {
  readonly field: string;
  readonly tree: TemplateTree;
  readonly scope: PartScope;
}

/** An expression of a workflow, parsed, and what may be named in it. */
export interface ExpressionPart {
  readonly field: string;
  readonly expression: PlacedExpression;
  readonly scope: PartScope;
}

interface PartScope {
  /** `item` and `index`. */
  readonly hasItem: boolean;
  readonly hasError: boolean;
}

/** A step with its templates. What could not be parsed is left out, and has been reported. */
export interface StepParts {
  readonly step: WorkflowStep;
  /** Such as `steps[2]`. */
  readonly field: string;
  readonly condition: ExpressionPart | undefined;
  readonly items: ExpressionPart | undefined;
  /** What its action takes; by field within the action, such as `arguments`. */
  readonly action: ReadonlyMap<string, TemplatePart>;
  readonly fallback: TemplatePart | undefined;
}

const PLAIN: PartScope = { hasItem: false, hasError: false };

/** Parses all templates of a step. */
export function stepParts(step: WorkflowStep, index: number, problems: Problems): StepParts {
  const field = `steps[${index}]`;
  const parser = new PartParser(step.id, problems);
  const inside = { hasItem: step.forEach !== undefined, hasError: false };
  const action = new Map<string, TemplatePart>();
  for (const [name, json] of actionTemplates(step)) {
    const at = actionField(step, field);
    const part = parser.template(json, name === "" ? at : `${at}.${name}`, inside);
    if (part !== undefined) action.set(name, part);
  }
  return {
    step,
    field,
    condition:
      step.condition === "" ? undefined : parser.expression(step.condition, `${field}.condition`, PLAIN),
    items:
      step.forEach === undefined || step.forEach.items === ""
        ? undefined
        : parser.expression(step.forEach.items, `${field}.for_each.items`, PLAIN),
    action,
    fallback: fallbackPart(step, field, parser, { ...inside, hasError: true }),
  };
}

/** The template of a workflow's output. Undefined: it has none, or one that has been reported. */
export function outputPart(workflow: Workflow, problems: Problems): TemplatePart | undefined {
  return (
    workflow.output && new PartParser(undefined, problems).template(json(workflow.output), "output", PLAIN)
  );
}

/** All that may hold expressions in a step: texts, and JSON with texts. */
export function stepTemplates(step: WorkflowStep): JsonValue[] {
  const { fallback, forEach } = step;
  const standIn =
    fallback?.kind.case === "value" ? json(fallback.kind.value) : (fallbackTool(step)?.arguments ?? null);
  const expressions = [step.condition, forEach?.items ?? ""].map(withinBraces);
  return [...actionTemplates(step).map(([, template]) => template), standIn, ...expressions];
}

export function workflowOutput({ output }: Workflow): JsonValue {
  return output === undefined ? null : json(output);
}

/** An expression as it could be written in a text; it may be written so, or without the braces. */
function withinBraces(expression: string): string {
  return expression === "" || expression.trimStart().startsWith("${") ? expression : `\${${expression}}`;
}

/** Where a step's action is, such as `steps[2].test_run`. */
export function actionField(step: WorkflowStep, field: string): string {
  return `${field}.${step.action.case === "testRun" ? "test_run" : (step.action.case ?? "")}`;
}

/** All expressions of a step, with their fields. */
export function* stepExpressions(parts: StepParts): Generator<ExpressionPart> {
  if (parts.condition) yield parts.condition;
  if (parts.items) yield parts.items;
  for (const part of parts.action.values()) yield* templateExpressions(part);
  if (parts.fallback) yield* templateExpressions(parts.fallback);
}

export function* templateExpressions({ tree, field, scope }: TemplatePart): Generator<ExpressionPart> {
  if (tree.kind === "list" || tree.kind === "object") {
    const children = tree.kind === "list" ? tree.items : tree.fields.map(([, child]) => child);
    for (const child of children) yield* templateExpressions({ tree: child, field, scope });
    return;
  }
  for (const expression of expressionsIn(tree)) yield { field: join(field, tree.path), expression, scope };
}

/** The field of a path within a template. */
export function join(field: string, path: string): string {
  return path === "" || path.startsWith("[") ? `${field}${path}` : `${field}.${path}`;
}

function actionTemplates({ action }: WorkflowStep): readonly (readonly [string, JsonValue])[] {
  switch (action.case) {
    case "tool":
    case "comparison":
      return [["arguments", action.value.arguments ?? {}]];
    case "agent":
      return [["task", action.value.task]];
    case "requirement":
      return [["text", action.value.text]];
    case "approval":
      return [["message", action.value.message]];
    case "testRun":
      return [
        ["project", action.value.project],
        ["arguments", action.value.arguments ?? {}],
      ];
    case "workflow":
      return [["input", action.value.input ?? {}]];
    case "value":
      return [["", json(action.value)]];
    case "wait":
    case undefined:
      return [];
  }
}

function fallbackPart(
  { fallback }: WorkflowStep,
  field: string,
  parser: PartParser,
  scope: PartScope,
): TemplatePart | undefined {
  switch (fallback?.kind.case) {
    case "value":
      return parser.template(json(fallback.kind.value), `${field}.fallback.value`, scope);
    case "tool":
      return parser.template(fallback.kind.value.arguments ?? {}, `${field}.fallback.tool.arguments`, scope);
    default:
      return undefined;
  }
}

/** The tool that stands in for a step. */
export function fallbackTool({ fallback }: WorkflowStep): ToolAction | undefined {
  return fallback?.kind.case === "tool" ? fallback.kind.value : undefined;
}

class PartParser {
  readonly #stepId: string | undefined;
  readonly #problems: Problems;

  constructor(stepId: string | undefined, problems: Problems) {
    this.#stepId = stepId;
    this.#problems = problems;
  }

  template(value: JsonValue, field: string, scope: PartScope): TemplatePart | undefined {
    return this.#attempt(field, () => ({ field, tree: parseTree(value), scope }));
  }

  expression(text: string, field: string, scope: PartScope): ExpressionPart | undefined {
    return this.#attempt(field, () => ({ field, expression: parsePlacedExpression(text), scope }));
  }

  #attempt<T>(field: string, parse: () => T): T | undefined {
    try {
      return parse();
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error;
      const where = error.offset === undefined ? "" : ` (at character ${error.offset + 1})`;
      this.#problems.add({
        reason: "EXPRESSION",
        field: join(field, error.path),
        stepId: this.#stepId,
        message: `${error.message}${where}`,
      });
      return undefined;
    }
  }
}

function json(value: Value): JsonValue {
  return value.kind.case === undefined ? null : toJson(ValueSchema, value);
}
