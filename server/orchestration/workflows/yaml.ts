import { clone, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Workflow, WorkflowSchema } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { Document, isScalar, visit } from "yaml";
import { shortTrigger } from "./parse.ts";

/** Fields of steps in the order in which they are read best; what is not named comes between, being what the step does. */
const STEP_FIRST = ["id", "description", "depends_on", "trigger", "condition", "for_each"];
const STEP_LAST = ["timeout", "retry", "fallback", "continue_on_failure"];
const WORKFLOW_LAST = ["steps", "output"];

/**
 * A workflow as YAML, as people write it and as `parseWorkflowText` reads it back. What the server sets is left out:
 * the version, when and by whom it was made, and when its schedules start it next.
 */
export function toYaml(workflow: Workflow): string {
  const written = clone(WorkflowSchema, workflow);
  written.version = 0;
  written.createTime = undefined;
  written.createdBy = "";
  written.etag = "";
  for (const schedule of written.schedules) schedule.nextTime = undefined;
  // The JSON of a message is an object.
  const json = toJson(WorkflowSchema, written, { useProtoFieldName: true }) as JsonObject;
  const steps = Array.isArray(json["steps"]) ? json["steps"] : [];
  const ordered = inOrder({ ...json, steps: steps.map(orderedStep) }, [], WORKFLOW_LAST);
  const document = new Document(ordered, { aliasDuplicateObjects: false });
  visit(document, {
    Pair(_, { key }) {
      // Without quotes it would merge maps.
      if (isScalar(key) && key.value === "<<") key.type = "QUOTE_DOUBLE";
    },
  });
  return document.toString({ lineWidth: 0 });
}

function orderedStep(step: JsonValue): JsonValue {
  if (typeof step !== "object" || step === null || Array.isArray(step)) return step;
  const { trigger } = step;
  const written = typeof trigger === "string" ? { ...step, trigger: shortTrigger(trigger) } : step;
  return inOrder(written, STEP_FIRST, STEP_LAST);
}

function inOrder(object: JsonObject, first: readonly string[], last: readonly string[]): JsonObject {
  const rank = (name: string) =>
    first.includes(name) ? first.indexOf(name) - first.length : last.indexOf(name) + 1;
  return Object.fromEntries(Object.entries(object).sort(([a], [b]) => rank(a) - rank(b)));
}
