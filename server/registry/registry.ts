import type { Clock } from "@toolplane/framework";
import type { BatcherStats } from "@toolplane/framework/policies";
import {
  type ListServicesRequest,
  type ListToolsRequest,
  type SearchToolsRequest,
  type ServiceFilter,
  ToolView,
  type WatchServicesResponse,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { InstanceSpec, Service, ServiceSpec } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { SchemaProfile, Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Logger } from "pino";
import type { SecretResolver } from "../config/secrets.ts";
import type { ConnectionPool } from "../pool/connection-pool.ts";
import type { Database } from "../storage/database.ts";
import { createCatalogue } from "./catalogue.ts";
import { createDefinitions } from "./definitions.ts";
import { createDiscoverer } from "./discovery.ts";
import { createDrift } from "./drift.ts";
import { createDuties } from "./duties.ts";
import { toolPredicate } from "./filter.ts";
import { createChecker } from "./health/checker.ts";
import { createHealthChecks, type HealthChecksRequest } from "./health/health-checks.ts";
import { createHealthHistoryStore, type HealthRecord } from "./health/history-store.ts";
import { startMonitor } from "./health/monitor.ts";
import { createSuspects } from "./health/suspects.ts";
import { keepHouse } from "./housekeeping.ts";
import { startKeeper } from "./keeper.ts";
import { createLeaseStore } from "./lease-store.ts";
import { createLeases } from "./leases.ts";
import { listServices, listTools, type Page } from "./listings.ts";
import { type LocalService, registerLocalService } from "./local-service.ts";
import { type ToolShape, toService, toTool } from "./messages.ts";
import { startRefresher } from "./refresher.ts";
import {
  createRegistrar,
  type DeregisterTarget,
  type RefreshResult,
  type RegisterResult,
} from "./registrar.ts";
import { startReplication } from "./replication.ts";
import { callableInstances, findService, findTool, type ToolScope } from "./resolve.ts";
import { type ResolvedTool, resolveLocation } from "./resolved-tool.ts";
import { createToolSearch } from "./search/tool-search.ts";
import type { ServiceKey } from "./service-key.ts";
import { createStore } from "./store.ts";
import { createSuggest } from "./suggestions.ts";
import { createWatchers } from "./watch.ts";

export type { HealthRecord } from "./health/history-store.ts";
export type { LocalService } from "./local-service.ts";
export { OWN_SERVICE } from "./refusals.ts";
export type { DeregisterTarget, RefreshResult, RegisterResult } from "./registrar.ts";
export type { ToolScope } from "./resolve.ts";
export type { ResolvedInstance, ResolvedTool } from "./resolved-tool.ts";

/** All times in milliseconds. */
export interface RegistryOptions {
  /** The lease of a registration that names none. */
  readonly defaultLeaseTtlMs: number;
  /** How long learning a service's tools may take. */
  readonly discoveryTimeoutMs: number;
  /** How often tools are learnt again. */
  readonly refreshIntervalMs: number;
  /** The most tools that one service may offer. */
  readonly maxToolsPerService: number;
  /** Health checks: how often, how long each may take, and how long results are kept. */
  readonly health: { readonly intervalMs: number; readonly timeoutMs: number; readonly retentionMs: number };
}

export interface RegistryParts {
  readonly database: Database;
  /** Used for discovery and health checks, and warmed for the services that are known at the start. */
  readonly pool: ConnectionPool;
  readonly secrets: SecretResolver;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Draws from [0, 1). Default: `Math.random`. */
  readonly random?: () => number;
  readonly options: RegistryOptions;
}

/**
 * The services and their tools. This is the one module of the registry that other domains use.
 *
 * Everything that reads answers from memory; everything that writes is durable, and visible to this replica's readers,
 * when it returns. Errors are DomainErrors.
 */
export interface Registry {
  /**
   * Registers an instance and learns its service's tools. A source that cannot be read does not fail. Nothing is
   * registered for a caller who has left, which aborts `signal`: nobody would renew it. Throws ALREADY_EXISTS when
   * another service has an instance with this id.
   */
  register(service: ServiceSpec, instance: InstanceSpec, signal?: AbortSignal): Promise<RegisterResult>;
  /** Renews a lease; returns how long it lasts from now, or undefined for a permanent instance. Throws NOT_FOUND. */
  renew(instanceId: string): Promise<number | undefined>;
  /** Returns how many instances were removed. Throws NOT_FOUND. */
  deregister(target: DeregisterTarget): Promise<number>;
  /** Learns a service's tools again. */
  refresh(service: ServiceKey): Promise<RefreshResult>;

  /** Empty environment and version stand for `default` and the highest version. Throws NOT_FOUND. */
  getService(service: ServiceKey): Service;
  listServices(request: Pick<ListServicesRequest, "filter" | "pageSize" | "pageToken">): Page<Service>;
  /** Ends when `signal` is aborted or the registry closes. */
  watch(
    filter: ServiceFilter | undefined,
    resumeRevision: number | undefined,
    signal: AbortSignal,
  ): AsyncIterable<WatchServicesResponse>;

  /** Throws NOT_FOUND with suggestions, or INVALID_ARGUMENT with the candidates of an ambiguous name. */
  getTool(name: string, scope: ToolScope, schemaProfile?: SchemaProfile): Tool;
  listTools(request: Pick<ListToolsRequest, "filter" | "pageSize" | "pageToken"> & ToolShape): Page<Tool>;
  searchTools(
    request: Pick<SearchToolsRequest, "query" | "filter" | "pageSize"> & ToolShape,
  ): Promise<{ readonly tool: Tool; readonly score: number }[]>;
  /** What is needed to call a tool. Throws as `getTool` does. */
  resolveTool(name: string, scope: ToolScope): ResolvedTool;
  /**
   * Tells that a call could not reach an instance. It is checked at once, and until then calls go to others, if there
   * are any.
   */
  reportUnreachable(instanceId: string): void;
  /** How what health checks find is being written. */
  batchWriters(): readonly BatcherStats[];

  /** Checks instances now. */
  checkHealth(filter: ServiceFilter | undefined, signal: AbortSignal): Promise<HealthRecord[]>;
  listHealthChecks(
    request: HealthChecksRequest,
  ): Promise<{ readonly items: HealthRecord[]; readonly nextPageToken: string }>;

  /** Registers the process's own services until the registry closes. */
  registerLocal(service: LocalService): Promise<void>;
  counts(): { readonly services: number; readonly tools: number };
  /** Deregisters what is local, and ends all watches and those to come: their clients go on at another server. */
  drain(): Promise<void>;
  /** Drains, ends background work, and writes what waits to be written. */
  close(): Promise<void>;
}

const DEFAULT_SEARCH_SIZE = 10;

/** Loads the registry into memory and follows the database from then on. */
export async function createRegistry(parts: RegistryParts): Promise<Registry> {
  const { database, pool, secrets, clock, logger, options, random = Math.random } = parts;
  const local: { readonly instanceId: string; close(): Promise<void> }[] = [];
  const isLocal = (id: string) => local.some(({ instanceId }) => instanceId === id);
  const store = createStore(database);
  const leaseStore = createLeaseStore(database);
  const history = createHealthHistoryStore(database);
  const catalogue = createCatalogue();
  const watchers = createWatchers(catalogue, clock);
  const search = createToolSearch(catalogue, logger);
  const suggest = createSuggest(catalogue, search);
  const definitions = createDefinitions(store);
  const discoverer = createDiscoverer({
    pool,
    secrets,
    clock,
    logger,
    timeoutMs: options.discoveryTimeoutMs,
    maxTools: options.maxToolsPerService,
  });
  const checker = createChecker({
    catalogue,
    pool,
    secrets,
    history,
    clock,
    logger,
    timeoutMs: options.health.timeoutMs,
    isLocal,
    record: (updates) => store.recordHealth(updates),
  });
  const suspects = createSuspects({ catalogue, checker, clock, logger });
  const health = createHealthChecks(catalogue, checker, history);
  const duties = createDuties({
    leases: leaseStore,
    clock,
    logger,
    startMonitor: () =>
      startMonitor({ catalogue, checker, clock, logger, random, intervalMs: options.health.intervalMs }),
    startRefresher: () =>
      startRefresher({
        catalogue,
        discoverer,
        clock,
        logger,
        random,
        refreshIntervalMs: options.refreshIntervalMs,
        record: (service, outcome) => registrar.record(service, service.spec, outcome),
      }),
    keepHouse: () => keepHouse({ database, history, logger, healthRetentionMs: options.health.retentionMs }),
  });
  const replication = await startReplication({
    database,
    store,
    catalogue,
    clock,
    logger,
    onChanges(changes) {
      watchers.notify(changes);
      search.follow(changes);
      duties.follow(changes);
    },
  });
  const registrar = createRegistrar({
    store,
    catalogue,
    replication,
    discoverer,
    drift: createDrift(store, logger),
    defaultLeaseTtlMs: options.defaultLeaseTtlMs,
  });
  const leases = createLeases({ catalogue, store: leaseStore, replication, clock, logger });
  const keeper = startKeeper({ kysely: database.kysely, clock, logger, duties });
  // In the background: a service that cannot be reached must not hold up the start.
  void pool.warm(
    catalogue
      .services()
      .flatMap(callableInstances)
      .map(({ spec: { endpoint, protocol } }) => ({ endpoint, protocol, headers: new Headers() })),
  );
  let closing: Promise<void> | undefined;

  async function drain(): Promise<void> {
    watchers.close();
    await Promise.all(local.splice(0).map((service) => service.close()));
  }

  async function close(): Promise<void> {
    await drain();
    discoverer.close();
    await Promise.all([keeper.close(), suspects.close()]);
    await Promise.all([search.close(), leases.close(), checker.flush()]);
    await replication.close();
  }

  const registry: Registry = {
    register: registrar.register,
    renew: leases.renew,
    deregister: registrar.deregister,
    refresh: registrar.refresh,

    getService: (service) => toService(findService(catalogue, service)),
    listServices: (request) => listServices(catalogue, request),
    watch: watchers.watch,

    getTool(name, scope, schemaProfile) {
      const { service, tools, index } = findTool(catalogue, name, scope, suggest);
      return toTool(service, tools, index, { view: ToolView.FULL, ...(schemaProfile && { schemaProfile }) });
    },
    listTools: (request) => listTools(catalogue, request),
    async searchTools({ query, filter, pageSize, ...shape }) {
      const hits = await search.search(
        query,
        toolPredicate(catalogue, filter),
        pageSize || DEFAULT_SEARCH_SIZE,
      );
      return hits.map(({ location: { service, tools, index }, score }) => ({
        tool: toTool(service, tools, index, shape),
        score,
      }));
    },
    resolveTool(name, scope) {
      const tool = resolveLocation(findTool(catalogue, name, scope, suggest), definitions, secrets);
      // What the process can do itself, it does itself.
      const own = tool.instances.filter(({ id }) => isLocal(id));
      if (own.length > 0) {
        return { ...tool, instances: own };
      }
      const reachable = tool.instances.filter(({ id }) => !suspects.has(id));
      return reachable.length > 0 ? { ...tool, instances: reachable } : tool;
    },
    reportUnreachable: suspects.report,
    batchWriters: checker.writers,

    checkHealth: health.check,
    listHealthChecks: health.list,

    async registerLocal(service) {
      local.push(await registerLocalService(registry, service, clock, logger));
    },
    counts() {
      const services = catalogue.services();
      return {
        services: services.length,
        tools: services.reduce((sum, { tools }) => sum + (tools?.names.length ?? 0), 0),
      };
    },
    drain,
    close() {
      closing ??= close();
      return closing;
    },
  };
  return registry;
}
