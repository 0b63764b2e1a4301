import { type DescMessage, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { DurationSchema, ListValueSchema, StructSchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  StepTriggerSchema,
  type Workflow,
  type WorkflowProblem,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { checkMessageJson } from "../../schema/check-message.ts";
import { Violations } from "../../schema/violations.ts";
import { type FindPlace, Problems, toProblem } from "./problems.ts";
import { readText } from "./text.ts";

export interface ParsedText {
  /** Undefined: the text cannot be understood as one; the problems say why. Its rules are not yet checked. */
  readonly workflow: Workflow | undefined;
  readonly problems: readonly WorkflowProblem[];
  readonly place: FindPlace;
}

/**
 * Reads a workflow from YAML or JSON. Fields may be written in both of their names, `for_each` and `forEach`. Durations
 * may be written as `90s` and also as `500ms`, `5m`, `1h30m` or `2d`, and triggers as `on_failure` and `always`. Fields of
 * the workflow whose names begin with `x-` are left out: they are for anchors and notes.
 */
export function parseWorkflowText(text: string): ParsedText {
  const { json: read, findings, place } = readText(text);
  if (read === undefined) {
    return { workflow: undefined, problems: findings.map((each) => toProblem(each, each.place)), place };
  }
  const problems = new Problems(place);
  const json = isObject(read) ? withoutExtensions(read) : read;
  if (!isObject(json)) {
    problems.add({
      reason: "SYNTAX",
      field: "",
      message: "must be an object with the fields name and steps",
    });
    return { workflow: undefined, problems: problems.all, place };
  }
  const plain = plainFields(WorkflowSchema, json);
  const malformed = Violations.of("", (found) =>
    checkMessageJson(WorkflowSchema, plain, undefined, found, "proto"),
  );
  for (const { field, reason, description } of malformed) {
    problems.add({
      reason: reason ?? "INVALID_VALUE",
      field,
      stepId: stepIdAt(json, field),
      message: field.endsWith(".trigger") ? shortTriggers(description) : description,
    });
  }
  if (malformed.length > 0) return { workflow: undefined, problems: problems.all, place };
  return { workflow: fromJson(WorkflowSchema, plain), problems: [], place };
}

/** The step that a field is in, for people: what the text gives as its id. */
function stepIdAt(json: JsonObject, field: string): string | undefined {
  const index = /^steps\[(\d+)\]/.exec(field)?.[1];
  const steps = json["steps"];
  const step = index !== undefined && Array.isArray(steps) ? steps[Number(index)] : undefined;
  const id = isObject(step) ? step["id"] : undefined;
  return typeof id === "string" ? id : undefined;
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 };

function withoutExtensions(json: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(json).filter(([name]) => !name.startsWith("x-")));
}

function shortTriggers(description: string): string {
  return description
    .replace(`"${TRIGGER_PREFIX}UNSPECIFIED", `, "")
    .replaceAll(/STEP_TRIGGER_[A-Z_]+/g, (name) => shortTrigger(name));
}

const TRIGGER_PREFIX = "STEP_TRIGGER_";

/** `on_failure` for `STEP_TRIGGER_ON_FAILURE`. */
export function shortTrigger(name: string): string {
  return name.slice(TRIGGER_PREFIX.length).toLowerCase();
}

function longTrigger(value: JsonValue): JsonValue {
  if (typeof value !== "string") return value;
  const name = `${TRIGGER_PREFIX}${value.toUpperCase().replaceAll("-", "_")}`;
  return StepTriggerSchema.values.some((each) => each.name === name) ? name : value;
}

/**
 * The same with every duration and trigger as Protobuf JSON has it. What is none is left for others to refuse.
 */
function plainFields(desc: DescMessage, json: JsonObject): JsonObject {
  const fields = new Map(
    desc.fields.flatMap((field) => [[field.name, field] as const, [field.jsonName, field] as const]),
  );
  const entries = Object.entries(json).map(([name, value]): [string, JsonValue] => {
    const field = fields.get(name);
    if (field?.enum?.typeName === StepTriggerSchema.typeName) return [name, longTrigger(value)];
    const message = field?.message;
    if (message === undefined) return [name, value];
    if (Array.isArray(value)) return [name, value.map((item) => plainMessage(message, item))];
    return [name, plainMessage(message, value)];
  });
  return Object.fromEntries(entries);
}

function plainMessage(desc: DescMessage, value: JsonValue): JsonValue {
  if (desc.typeName === DurationSchema.typeName)
    return typeof value === "string" ? plainDuration(value) : value;
  const isJson = [ValueSchema, StructSchema, ListValueSchema].some(
    ({ typeName }) => typeName === desc.typeName,
  );
  return isJson || !isObject(value) ? value : plainFields(desc, value);
}

function plainDuration(text: string): string {
  if (text.length > 64 || !/^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/.test(text) || /^[\d.]+s$/.test(text))
    return text;
  let seconds = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)(ms|s|m|h|d)/g)) {
    seconds += Number(amount) * (UNIT_SECONDS[unit ?? ""] ?? 0);
  }
  return `${Number(seconds.toFixed(9))}s`;
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
