import { fromBinary } from "@bufbuild/protobuf";
import { notFound } from "@toolplane/framework";
import {
  type InstanceSpec,
  type Service,
  type ServiceSpec,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { SchemaChange } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Catalogue, CatalogueService } from "./catalogue.ts";
import type { Discoverer } from "./discovery.ts";
import type { Drift } from "./drift.ts";
import { toService } from "./messages.ts";
import { completeRegistration, hasSameSource, toWrite } from "./registration.ts";
import type { Replication } from "./replication.ts";
import { callableInstances, findService } from "./resolve.ts";
import { describeKey, type ServiceKey } from "./service-key.ts";
import type { DiscoveryOutcome, Store } from "./store.ts";

/** How often a service is asked again whose tools are changed by others meanwhile. */
const REFRESH_ATTEMPTS = 3;

export interface RegisterResult {
  /** The service as registered. */
  readonly service: Service;
  readonly instanceId: string;
  /** Undefined: permanent. */
  readonly leaseTtlMs: number | undefined;
  /** How the tools differ from those that this version of the service offered before. */
  readonly changes: readonly SchemaChange[];
}

export interface RefreshResult {
  readonly service: Service;
  readonly changes: readonly SchemaChange[];
}

/** What is removed: an instance, or a version of a service with all of its instances. */
export type DeregisterTarget = { readonly instanceId: string } | { readonly service: ServiceKey };

export interface RegistrarOptions {
  readonly store: Store;
  readonly catalogue: Catalogue;
  readonly replication: Replication;
  readonly discoverer: Discoverer;
  readonly drift: Drift;
  readonly defaultLeaseTtlMs: number;
}

/** Changes the registry. Whatever it returns can be read at once. */
export interface Registrar {
  register(service: ServiceSpec, instance: InstanceSpec, signal?: AbortSignal): Promise<RegisterResult>;
  /** Returns how many instances were removed. Throws NOT_FOUND when there was none. */
  deregister(target: DeregisterTarget): Promise<number>;
  /** Learns a service's tools again, whatever its source is. */
  refresh(key: ServiceKey): Promise<RefreshResult>;
  /**
   * Stores what a discovery by `spec` has led to and returns how the tools have changed. The outcome is dropped, which
   * returns undefined, when the service has another source by now, or other tools than `service`, which was read before
   * the discovery: those were learnt later.
   */
  record(
    service: CatalogueService,
    spec: ServiceSpec,
    outcome: DiscoveryOutcome,
  ): Promise<readonly SchemaChange[] | undefined>;
}

export function createRegistrar(options: RegistrarOptions): Registrar {
  const { store, catalogue, replication, discoverer, drift, defaultLeaseTtlMs } = options;

  /** The service as it is after a change; NOT_FOUND when another change has removed it since. */
  function current(key: ServiceKey): CatalogueService {
    const service = catalogue.get(key);
    if (!service) {
      throw notFound("service", describeKey(key), "it was removed a moment ago");
    }
    return service;
  }

  const registrar: Registrar = {
    async register(serviceSpec, instanceSpec, signal) {
      const registration = completeRegistration(serviceSpec, instanceSpec, defaultLeaseTtlMs);
      const { key, spec, instance, leaseTtlMs } = registration;
      const outcome = await discoverer.discover(key, spec, instance);
      const { revision, previousToolSet } = await store.register(toWrite(registration, outcome), signal);
      await replication.reach(revision);
      const service = current(key);
      return {
        service: toService(service),
        instanceId: instance.id,
        leaseTtlMs,
        changes: await drift.compare(service, previousToolSet),
      };
    },

    async deregister(target) {
      const result = await store.deregister(
        "service" in target ? { service: findService(catalogue, target.service) } : target,
      );
      if (!result) {
        throw "service" in target
          ? notFound("service", describeKey(target.service))
          : notFound("instance", target.instanceId, "it is not registered, or not any more");
      }
      await replication.reach(result.revision);
      return result.removed;
    },

    async refresh(key) {
      for (let attempt = 1; ; attempt++) {
        const service = findService(catalogue, key);
        const [instance] = callableInstances(service);
        // The catalogue leaves descriptors and inline manuals out.
        const stored = await store.serviceSpec(service);
        if (!instance || !stored) {
          throw notFound("service", describeKey(service), "it was removed a moment ago");
        }
        const spec = fromBinary(ServiceSpecSchema, stored);
        const outcome = await discoverer.discover(service, spec, instance.spec);
        const changes = await registrar.record(service, spec, outcome);
        if (changes || attempt === REFRESH_ATTEMPTS) {
          return { service: toService(current(service)), changes: changes ?? [] };
        }
        await replication.pull();
      }
    },

    async record(service, spec, outcome) {
      const written = await store.discovered(
        service,
        outcome,
        (stored) =>
          stored.toolSet === service.tools?.digest &&
          hasSameSource(spec, fromBinary(ServiceSpecSchema, stored.spec)),
      );
      if (!written) {
        return undefined;
      }
      await replication.reach(written.revision);
      return await drift.compare(catalogue.byId(service.id), written.previousToolSet);
    },
  };
  return registrar;
}
