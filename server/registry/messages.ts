import { create, type JsonObject } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type ListToolsRequest, ToolView } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import {
  HealthStatus,
  type Instance,
  InstanceSchema,
  Lifetime,
  ProblemSchema,
  type Service,
  ServiceSchema,
  ServiceState,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { SchemaProfile, type Tool, ToolSchema } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { toDuration } from "../config/durations.ts";
import { providerName, toProfile } from "../schema/index.ts";
import type { CatalogueInstance, CatalogueService } from "./catalogue.ts";
import type { StoredProblem } from "./tables.ts";
import { effectiveProtocol } from "./target.ts";
import type { ToolSet } from "./tool-set.ts";

export function toService(service: CatalogueService): Service {
  const { spec } = service;
  return create(ServiceSchema, {
    name: service.name,
    environment: service.environment,
    version: service.version,
    title: spec.title,
    description: spec.description,
    tags: spec.tags,
    metadata: spec.metadata,
    ...(spec.source ? { source: spec.source } : {}),
    ...(spec.healthCheck ? { healthCheck: spec.healthCheck } : {}),
    headers: spec.headers,
    state: stateOf(service),
    problems: service.problems.map((problem) => toProblem(service, problem)),
    instances: service.instances.map(toInstance),
    toolCount: service.tools?.names.length ?? 0,
    schemaDigest: service.schemaDigest,
    createTime: timestampFromDate(service.createTime),
    updateTime: timestampFromDate(service.updateTime),
    ...optionalTime("discoverTime", service.discoverTime),
    revision: BigInt(service.revision),
  });
}

/** A service is down when every instance failed its check; one that was not checked yet counts as working. */
function stateOf({ instances, problems }: CatalogueService): ServiceState {
  if (instances.every(({ health }) => health === HealthStatus.UNHEALTHY)) {
    return ServiceState.DOWN;
  }
  return problems.length > 0 ? ServiceState.DEGRADED : ServiceState.READY;
}

function toInstance(instance: CatalogueInstance): Instance {
  const { spec } = instance;
  return create(InstanceSchema, {
    id: instance.id,
    endpoint: spec.endpoint,
    protocol: effectiveProtocol(spec.protocol),
    lifetime: spec.lifetime === Lifetime.PERMANENT ? Lifetime.PERMANENT : Lifetime.LEASED,
    ...(spec.leaseTtl ? { leaseTtl: spec.leaseTtl } : {}),
    metadata: spec.metadata,
    health: instance.health,
    healthMessage: instance.healthMessage,
    ...optionalTime("healthCheckTime", instance.healthCheckTime),
    registerTime: timestampFromDate(instance.registerTime),
  });
}

function toProblem(service: CatalogueService, { tool, reason, message, time }: StoredProblem) {
  return create(ProblemSchema, {
    tool: tool && toolName(service, tool),
    reason,
    message,
    time: timestampFromMs(time),
  });
}

/** A tool's stable name. */
export function toolName(service: CatalogueService, name: string): string {
  return `${service.name}.${name}`;
}

/** How a tool is to be returned: unset, without schemas, and with exact ones. */
export type ToolShape = Partial<Pick<ListToolsRequest, "view" | "schemaProfile">>;

export function toTool(
  service: CatalogueService,
  tools: ToolSet,
  index: number,
  { view, schemaProfile = SchemaProfile.UNSPECIFIED }: ToolShape,
): Tool {
  const summary = tools.summary(index);
  const tool = create(ToolSchema, {
    name: toolName(service, summary.name),
    alias: toolName(service, tools.shortName(index)),
    service: service.name,
    environment: service.environment,
    version: service.version,
    title: summary.title,
    description: summary.description,
    tags: tagsOf(service, summary.tags),
    kind: summary.kind,
    streaming: summary.streaming,
    idempotency: summary.idempotency,
    sourceName: summary.sourceName,
    providerName: providerName(toolName(service, summary.name)),
    deprecated: summary.deprecated,
    ...(summary.cacheTtlMs === undefined ? {} : { cacheTtl: toDuration(summary.cacheTtlMs) }),
  });
  if (summary.problem) {
    const { reason, message } = summary.problem;
    tool.problem = create(ProblemSchema, {
      tool: tool.name,
      reason,
      message,
      ...optionalTime("time", service.discoverTime),
    });
  }
  if (view === ToolView.FULL) {
    const { inputSchema, outputSchema } = tools.schemas(index);
    tool.inputSchema = inProfile(inputSchema, schemaProfile);
    tool.outputSchema = inProfile(outputSchema, schemaProfile);
  }
  return tool;
}

function inProfile(schema: JsonObject, profile: SchemaProfile): JsonObject {
  switch (profile) {
    case SchemaProfile.UNSPECIFIED:
      return schema;
    case SchemaProfile.ANTHROPIC:
      return toProfile(schema, "anthropic");
    case SchemaProfile.OPENAI:
      return toProfile(schema, "openai");
    case SchemaProfile.GEMINI:
      return toProfile(schema, "gemini");
  }
}

/** A tool's own tags and those of its service, each once. */
function tagsOf(service: CatalogueService, own: readonly string[]): string[] {
  return [...new Set([...own, ...service.spec.tags])];
}

function optionalTime<K extends string>(field: K, date: Date | undefined): { [field in K]?: Timestamp } {
  const fields: { [field in K]?: Timestamp } = {};
  if (date) {
    fields[field] = timestampFromDate(date);
  }
  return fields;
}
