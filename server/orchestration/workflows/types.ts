import type { JsonObject } from "@bufbuild/protobuf";
import type { ToolAction, Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  CompareTestRunsRequestSchema,
  StartTestRunRequestSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { messageSchema } from "../../schema/index.ts";
import type { TemplateTree } from "../expressions/template.ts";
import { misfits, type Target } from "./fit.ts";
import { ERROR, inferExpression, inferTemplate, type Report, type Surroundings } from "./infer.ts";
import type { KnownTool, WorkflowLookup } from "./lookup.ts";
import {
  actionField,
  type ExpressionPart,
  fallbackTool,
  join,
  type StepParts,
  type TemplatePart,
} from "./parts.ts";
import type { Problems } from "./problems.ts";
import {
  ANY,
  listOf,
  mayBe,
  objectOf,
  type Shape,
  scalar,
  shapeOfSchema,
  union,
  wordShape,
} from "./shape.ts";

/** Finds the tool of an action. Undefined: it is not known, which has been reported. */
export type FindTool = (action: ToolAction) => KnownTool | undefined;

export interface TypeCheckParts {
  readonly workflow: Workflow;
  readonly byId: ReadonlyMap<string, StepParts>;
  readonly findTool: FindTool;
  readonly workflows: WorkflowLookup | undefined;
  readonly problems: Problems;
}

const STRING = scalar("string");
const RUN = objectOf(
  new Map([
    ["id", STRING],
    ["attempt", scalar("integer")],
    ["start_time", STRING],
  ]),
);
const ANSWER = objectOf(
  new Map([
    ["text", STRING],
    ["json", ANY],
  ]),
  ["json"],
);
const APPROVAL = objectOf(
  new Map([
    ["approved", scalar("boolean")],
    ["comment", STRING],
    ["by", STRING],
  ]),
);

/** Checks the types along the edges. The steps have to be checked each after those that it comes after. */
export class TypeCheck {
  readonly #parts: TypeCheckParts;
  readonly #outputs = new Map<string, Shape>();
  readonly #variables: ReadonlyMap<string, Shape>;

  constructor(parts: TypeCheckParts) {
    this.#parts = parts;
    const { inputSchema } = parts.workflow;
    this.#variables = new Map([
      ["input", inputSchema === undefined ? ANY : shapeOfSchema(inputSchema, inputSchema)],
      ["run", RUN],
      ["index", scalar("integer")],
      ["error", ERROR],
    ]);
  }

  /** Checks a step and keeps what its output is. */
  step(parts: StepParts): void {
    const { step, condition, items } = parts;
    const id = step.id;
    const outside = this.#surroundings(ANY);
    if (condition !== undefined) {
      this.#expect(condition, this.#infer(condition, outside, id), "boolean", "must be true or false", id);
    }
    const list = items === undefined ? ANY : this.#infer(items, outside, id);
    if (items !== undefined) this.#expect(items, list, "list", "must be a list", id);
    const around = this.#surroundings(list.items?.() ?? ANY);
    const given = new Map(
      Array.from(parts.action, ([name, part]) => [name, this.#template(part, around, id)] as const),
    );
    this.#checkAction(parts, around);
    const output = union([this.#output(parts, given), ...this.#fallback(parts, around)]);
    this.#outputs.set(id, step.forEach === undefined ? output : listOf(this.#item(parts, output)));
  }

  /** Checks the output of the workflow. */
  output(part: TemplatePart): void {
    this.#template(part, this.#surroundings(ANY), undefined);
  }

  #item(parts: StepParts, output: Shape): Shape {
    return parts.step.forEach?.continueOnFailure ? union([output, scalar("null")]) : output;
  }

  #surroundings(item: Shape): Surroundings {
    return {
      variables: new Map([...this.#variables, ["item", item]]),
      output: (id) => this.#outputs.get(id) ?? ANY,
    };
  }

  #report(field: string, stepId: string | undefined): Report {
    return ({ reason, message, isWarning, offset }) =>
      this.#parts.problems.add({
        reason,
        field,
        stepId,
        message: `${message} (at character ${offset + 1})`,
        isWarning,
      });
  }

  #infer(part: ExpressionPart, around: Surroundings, stepId: string): Shape {
    return inferExpression(part.expression, around, this.#report(part.field, stepId));
  }

  #template(part: TemplatePart, around: Surroundings, stepId: string | undefined): Shape {
    return inferTemplate(part.tree, around, (path) => this.#report(join(part.field, path), stepId));
  }

  #expect(part: ExpressionPart, shape: Shape, kind: "boolean" | "list", must: string, stepId: string): void {
    if (mayBe(shape, kind)) return;
    const message = `${must}, and is ${wordShape(shape)}`;
    this.#parts.problems.add({ reason: "TYPE_MISMATCH", field: part.field, stepId, message });
  }

  /** Checks what the action is given. */
  #checkAction(parts: StepParts, around: Surroundings): void {
    const { action } = parts.step;
    const field = actionField(parts.step, parts.field);
    const fit = (name: string, target: Target | undefined) =>
      this.#fit(parts.action.get(name), `${field}.${name}`, target, around, parts.step.id);
    switch (action.case) {
      case "tool":
        fit("arguments", toolTarget(this.#parts.findTool(action.value)));
        break;
      case "testRun":
        fit("arguments", messageTarget(StartTestRunRequestSchema));
        break;
      case "comparison":
        fit("arguments", messageTarget(CompareTestRunsRequestSchema));
        break;
      case "workflow":
        fit("input", this.#workflowTarget(action.value.name, action.value.version));
        break;
      case "agent":
      case "requirement":
      case "approval":
      case "value":
      case "wait":
      case undefined:
        break;
    }
  }

  #workflowTarget(name: string, version: number): Target | undefined {
    const { workflow, workflows } = this.#parts;
    const found = name === workflow.name && version === 0 ? workflow : workflows?.(name, version);
    const schema = found !== undefined && "inputSchema" in found ? found.inputSchema : undefined;
    return schema && { shape: shapeOfSchema(schema, schema), isProtobuf: false };
  }

  #fit(
    part: TemplatePart | undefined,
    field: string,
    target: Target | undefined,
    around: Surroundings,
    stepId: string,
  ): void {
    if (part === undefined || target === undefined) return;
    const silent = () => () => {};
    const infer = (tree: TemplateTree) => inferTemplate(tree, around, silent);
    for (const { path, ...found } of misfits(part.tree, target, infer)) {
      this.#parts.problems.add({ ...found, field: join(field, path), stepId });
    }
  }

  /** What comes of the action, each time that it is done. */
  #output({ step: { action } }: StepParts, given: ReadonlyMap<string, Shape>): Shape {
    switch (action.case) {
      case "tool":
        return toolOutput(this.#parts.findTool(action.value));
      case "agent":
      case "requirement":
        return ANSWER;
      case "approval":
        return APPROVAL;
      case "testRun": {
        const schema = messageSchema(TestRunSchema, { rules: false });
        return shapeOfSchema(schema, schema);
      }
      case "value":
        return given.get("") ?? ANY;
      case "comparison":
      case "workflow":
      case "wait":
      case undefined:
        return ANY;
    }
  }

  #fallback(parts: StepParts, around: Surroundings): Shape[] {
    const { fallback, step, field } = parts;
    if (fallback === undefined) return [];
    const shape = this.#template(fallback, around, step.id);
    const action = fallbackTool(step);
    if (action === undefined) return [shape];
    const tool = this.#parts.findTool(action);
    this.#fit(fallback, `${field}.fallback.tool.arguments`, toolTarget(tool), around, step.id);
    return [toolOutput(tool)];
  }
}

function toolTarget(tool: KnownTool | undefined): Target | undefined {
  const schema = tool?.inputSchema;
  return schema && { shape: shapeOfSchema(schema, schema), isProtobuf: tool.isProtobuf };
}

function toolOutput(tool: KnownTool | undefined): Shape {
  const schema = tool?.outputSchema;
  const shape = schema === undefined ? ANY : shapeOfSchema(schema, schema);
  return tool?.streams ? listOf(shape) : shape;
}

function messageTarget(desc: Parameters<typeof messageSchema>[0]): Target {
  const schema: JsonObject = messageSchema(desc, { rules: false });
  return { shape: shapeOfSchema(schema, schema), isProtobuf: true };
}
