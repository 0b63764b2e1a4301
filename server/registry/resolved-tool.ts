import type { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Definition, SourceProblem } from "../backends/source.ts";
import type { SecretResolver } from "../config/secrets.ts";
import type { Target } from "../pool/target.ts";
import type { Definitions } from "./definitions.ts";
import { toolName } from "./messages.ts";
import { callableInstances, type ToolLocation } from "./resolve.ts";
import { createTarget } from "./target.ts";

/** A tool that is about to be called. */
export interface ResolvedTool {
  /** The whole name. */
  readonly name: string;
  readonly service: string;
  readonly environment: string;
  readonly version: string;
  /** The key that the definition knows the tool by. */
  readonly sourceName: string;
  readonly kind: ToolKind;
  readonly streaming: Streaming;
  readonly idempotency: Idempotency;
  /** How long an answer may be reused, in milliseconds; undefined means never. */
  readonly cacheTtlMs: number | undefined;
  /** Why it cannot be called. */
  readonly problem: Pick<SourceProblem, "reason" | "message"> | undefined;
  /** What is needed to call it. */
  definition(): Promise<Definition>;
  /**
   * Where calls can be sent now, healthy instances before those not checked yet. When every instance has failed its
   * check, these are all of them.
   */
  readonly instances: readonly ResolvedInstance[];
}

export interface ResolvedInstance {
  readonly id: string;
  readonly health: HealthStatus;
  /** Reads the secrets that the service needs; throws a DomainError when one is missing. */
  target(): Target;
}

export function resolveLocation(
  { service, tools, index }: ToolLocation,
  definitions: Definitions,
  secrets: SecretResolver,
): ResolvedTool {
  const summary = tools.summary(index);
  return {
    name: toolName(service, summary.name),
    service: service.name,
    environment: service.environment,
    version: service.version,
    sourceName: summary.sourceName,
    kind: summary.kind,
    streaming: summary.streaming,
    idempotency: summary.idempotency,
    cacheTtlMs: summary.cacheTtlMs,
    problem: summary.problem,
    definition: () => definitions.get(service),
    instances: callableInstances(service).map(({ id, health, spec }) => ({
      id,
      health,
      target: () => createTarget(service.spec, spec, secrets),
    })),
  };
}
