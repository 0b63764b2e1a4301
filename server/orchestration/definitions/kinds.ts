import { equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Agent, AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  ListAgentsRequestSchema,
  ListWorkflowsRequestSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import {
  type Schedule,
  type Workflow,
  WorkflowSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { type PageTokens, pageTokens } from "../../page-token.ts";

/** One kind of what is kept in versions. */
export interface DefinitionKind<T> {
  /** As it is stored. */
  readonly number: number;
  /** As people call it. */
  readonly noun: "workflow" | "agent";
  /** The definition without what the server sets. */
  bare(definition: T): T;
  isSame(one: T, other: T): boolean;
  encode(definition: T): Uint8Array;
  decode(bytes: Uint8Array): T;
  /** Of the list of all names, or of the versions of one. */
  pageTokens(name: string): PageTokens;
}

export const workflowKind: DefinitionKind<Workflow> = {
  number: 1,
  noun: "workflow",
  bare: (workflow) => ({
    ...withoutVersion(workflow),
    schedules: workflow.schedules.map(withoutNextTime),
  }),
  isSame: (one, other) => equals(WorkflowSchema, one, other),
  encode: (workflow) => toBinary(WorkflowSchema, workflow),
  decode: (bytes) => fromBinary(WorkflowSchema, bytes),
  pageTokens: (name) => pageTokens(`workflows/${name}`, 1, ListWorkflowsRequestSchema, undefined),
};

export const agentKind: DefinitionKind<Agent> = {
  number: 2,
  noun: "agent",
  bare: withoutVersion,
  isSame: (one, other) => equals(AgentSchema, one, other),
  encode: (agent) => toBinary(AgentSchema, agent),
  decode: (bytes) => fromBinary(AgentSchema, bytes),
  pageTokens: (name) => pageTokens(`agents/${name}`, 1, ListAgentsRequestSchema, undefined),
};

function withoutVersion<T extends Workflow | Agent>(definition: T): T {
  const bare: T = { ...definition, version: 0, createdBy: "", etag: "" };
  delete bare.createTime;
  return bare;
}

function withoutNextTime(schedule: Schedule): Schedule {
  const bare: Schedule = { ...schedule };
  delete bare.nextTime;
  return bare;
}
