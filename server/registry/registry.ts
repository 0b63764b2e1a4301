import type { Clock } from "@toolplane/framework";
import { notFound } from "@toolplane/framework";
import { ToolView } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type {
  HealthStatus,
  InstanceSpec,
  Service,
  ServiceSpec,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type {
  Idempotency,
  SchemaChange,
  Streaming,
  Tool,
  ToolKind,
} from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Logger } from "pino";
import type { SecretResolver } from "../config/secrets.ts";
import type { Database } from "../storage/database.ts";
import type { ConnectionPool } from "../tools/pool/connection-pool.ts";
import { createCatalogue } from "./catalogue.ts";
import { createDefinitions } from "./definitions.ts";
import { createDiscoverer } from "./discovery.ts";
import { toolName, toService, toTool } from "./messages.ts";
import { completeRegistration, toWrite } from "./registration.ts";
import { startReplication } from "./replication.ts";
import { callableInstances, findService, findTool, type ToolScope } from "./resolve.ts";
import type { ServiceKey } from "./service-key.ts";
import type { Definition, SourceProblem, Target } from "./sources/source.ts";
import { createStore } from "./store.ts";
import { createTarget } from "./target.ts";

export interface RegistryOptions {
  /** The lease of a registration that names none, in milliseconds. */
  readonly defaultLeaseTtlMs: number;
  /** How long learning a service's tools may take, in milliseconds. */
  readonly discoveryTimeoutMs: number;
  /** How often tools are learnt again, in milliseconds. */
  readonly refreshIntervalMs: number;
  readonly maxToolsPerService: number;
}

export interface RegistryParts {
  readonly database: Database;
  readonly pool: ConnectionPool;
  readonly secrets: SecretResolver;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly options: RegistryOptions;
}

export interface RegisterResult {
  readonly service: Service;
  readonly instanceId: string;
  /** Undefined: permanent. */
  readonly leaseTtlMs: number | undefined;
  readonly changes: readonly SchemaChange[];
}

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
  readonly cacheTtlMs: number | undefined;
  /** Why it cannot be called. */
  readonly problem: Pick<SourceProblem, "reason" | "message"> | undefined;
  /** What is needed to call it. */
  definition(): Promise<Definition>;
  /** Where calls can be sent now, healthy instances first. */
  readonly instances: readonly ResolvedInstance[];
}

export interface ResolvedInstance {
  readonly id: string;
  readonly health: HealthStatus;
  /** Throws a DomainError when a secret that the service needs is missing. */
  target(): Target;
}

/** The services and their tools. The one module of the registry that other domains use. */
export interface Registry {
  register(service: ServiceSpec, instance: InstanceSpec): Promise<RegisterResult>;
  deregister(target: { instanceId: string } | { service: ServiceKey }): Promise<number>;
  getService(key: ServiceKey): Service;
  getTool(name: string, scope: ToolScope): Tool;
  resolveTool(name: string, scope: ToolScope): ResolvedTool;
  close(): Promise<void>;
}

export async function createRegistry(parts: RegistryParts): Promise<Registry> {
  const { database, pool, secrets, clock, logger, options } = parts;
  const store = createStore(database);
  const catalogue = createCatalogue();
  const definitions = createDefinitions(store);
  const discoverer = createDiscoverer({
    pool,
    secrets,
    clock,
    logger,
    timeoutMs: options.discoveryTimeoutMs,
    maxTools: options.maxToolsPerService,
  });
  const replication = await startReplication({
    database,
    store,
    catalogue,
    clock,
    logger,
    onChanges: () => {},
  });
  const suggest = () => [];

  return {
    async register(service, instance) {
      const registration = completeRegistration(service, instance, options.defaultLeaseTtlMs);
      const outcome = await discoverer.discover(registration.key, registration.spec, registration.instance);
      const { revision } = await store.register(toWrite(registration, outcome));
      await replication.reach(revision);
      return {
        service: toService(findService(catalogue, registration.key)),
        instanceId: registration.instance.id,
        leaseTtlMs: registration.leaseTtlMs,
        changes: [],
      };
    },

    async deregister(target) {
      const result = await store.deregister(
        "service" in target ? { service: findService(catalogue, target.service) } : target,
      );
      if (!result) {
        throw notFound("instance", "instanceId" in target ? target.instanceId : target.service.name);
      }
      await replication.reach(result.revision);
      return result.removed;
    },

    getService: (key) => toService(findService(catalogue, key)),

    getTool(name, scope) {
      const { service, tools, index } = findTool(catalogue, name, scope, suggest);
      return toTool(service, tools, index, ToolView.FULL);
    },

    resolveTool(name, scope) {
      const { service, tools, index } = findTool(catalogue, name, scope, suggest);
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
    },

    async close() {
      await replication.close();
    },
  };
}
