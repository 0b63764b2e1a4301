import { fromBinary } from "@bufbuild/protobuf";
import { createByteLru } from "@toolplane/framework/policies";
import {
  type HealthStatus,
  type InstanceSpec,
  InstanceSpecSchema,
  type ServiceSpec,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { compareKeys, keyText, type ServiceKey } from "./service-key.ts";
import { createSortedList } from "./sorted-list.ts";
import type { InstanceRow, ServiceRow, Snapshot } from "./store.ts";
import type { StoredProblem } from "./tables.ts";
import { decodeToolSet, type ToolSet } from "./tool-set.ts";
import { compareVersions } from "./version-order.ts";

/** How many characters of unpacked tool summaries are kept at hand. */
const SUMMARY_LENGTH_KEPT = 8_000_000;

/** How many removed services a watcher that comes back can be told about. */
const REMOVALS_KEPT = 10_000;

/** A service as every replica holds it in memory. Replaced as a whole when anything about it changes. */
export interface CatalogueService extends ServiceKey {
  /** `keyText` of the key. */
  readonly id: string;
  /** What all versions of the service in its environment share. */
  readonly lineage: string;
  /** Without descriptors and inline manuals. */
  readonly spec: ServiceSpec;
  readonly instances: readonly CatalogueInstance[];
  /** Undefined until tools were learnt. */
  readonly tools: ToolSet | undefined;
  readonly schemaDigest: string;
  readonly definition: string | undefined;
  readonly problems: readonly StoredProblem[];
  readonly createTime: Date;
  readonly updateTime: Date;
  /** Of the last success that this replica knows of. */
  discoverTime: Date | undefined;
  readonly revision: number;
}

export interface CatalogueInstance {
  readonly id: string;
  readonly spec: InstanceSpec;
  readonly health: HealthStatus;
  readonly healthMessage: string;
  /** Of the last check that this replica knows of. */
  healthCheckTime: Date | undefined;
  readonly registerTime: Date;
}

/** What one application of a snapshot has changed. A service that is new or has changed has `after`. */
export interface CatalogueChange {
  readonly id: string;
  readonly before: CatalogueService | undefined;
  readonly after: CatalogueService | undefined;
}

/**
 * The services and tools that are registered now, in memory. Everything that is read is read from here; it only changes
 * by `apply`, and each application is seen as a whole.
 */
export interface Catalogue {
  readonly revision: number;
  get(key: ServiceKey): CatalogueService | undefined;
  byId(id: string): CatalogueService | undefined;
  /** All services, ordered by name, environment and version. */
  services(): readonly CatalogueService[];
  /** The versions of a service in one environment, highest first. */
  versions(name: string, environment: string): readonly CatalogueService[];
  /** Whether no higher version of the service is registered in its environment. */
  isHighest(service: CatalogueService): boolean;
  /** The services, of all versions and environments, that have a tool whose last segment is `segment`. */
  offering(segment: string): Iterable<CatalogueService>;
  instance(id: string): { service: CatalogueService; instance: CatalogueInstance } | undefined;
  /** The services changed and removed after a revision; undefined when that is not known any more. */
  changedAfter(revision: number): string[] | undefined;
  /** The tool sets of a snapshot that are not in memory yet. */
  missingToolSets(snapshot: Snapshot): string[];
  /**
   * Notes that a check or a discovery has found what is known already. That is no change, so it is not stored, and
   * other replicas do not learn of it.
   */
  noteChecked(instanceId: string, time: Date): void;
  noteLearnt(id: string, time: Date): void;
  apply(snapshot: Snapshot, toolSets: ReadonlyMap<string, Uint8Array>): readonly CatalogueChange[];
}

export function createCatalogue(): Catalogue {
  const summaries = createByteLru<readonly string[]>({ maxBytes: SUMMARY_LENGTH_KEPT });
  const services = new Map<string, CatalogueService>();
  const ordered = createSortedList<CatalogueService>(compareKeys);
  const lineages = new Map<string, readonly CatalogueService[]>();
  const toolSets = new Map<string, { readonly set: ToolSet; users: number }>();
  /** The ids of the services that offer a tool with this last segment. */
  const bySegment = new Map<string, Set<string>>();
  /** The id of each instance's service. */
  const serviceOfInstance = new Map<string, string>();
  /** The revisions at which services were removed, oldest first. */
  const removals = new Map<string, number>();
  let revision = 0;
  let oldestResumable = 0;

  function addTools(service: CatalogueService): void {
    for (const name of service.tools?.names ?? []) {
      const segment = lastSegment(name);
      const offering = bySegment.get(segment);
      if (offering) {
        offering.add(service.id);
      } else {
        bySegment.set(segment, new Set([service.id]));
      }
    }
  }

  function removeTools(service: CatalogueService): void {
    for (const name of service.tools?.names ?? []) {
      const segment = lastSegment(name);
      const offering = bySegment.get(segment);
      if (offering?.delete(service.id) && offering.size === 0) {
        bySegment.delete(segment);
      }
    }
  }

  function changeTools(before: CatalogueService | undefined, after: CatalogueService | undefined): void {
    if (before?.tools === after?.tools) {
      return;
    }
    if (before?.tools) {
      removeTools(before);
      const entry = toolSets.get(before.tools.digest);
      if (entry && --entry.users === 0) {
        toolSets.delete(before.tools.digest);
      }
    }
    if (after?.tools) {
      addTools(after);
      const entry = toolSets.get(after.tools.digest) ?? { set: after.tools, users: 0 };
      entry.users++;
      toolSets.set(after.tools.digest, entry);
    }
  }

  function changeInstances(before: CatalogueService | undefined, after: CatalogueService | undefined): void {
    for (const { id } of before?.instances ?? []) {
      // An instance that has moved may have been entered under its new service already.
      if (serviceOfInstance.get(id) === before?.id) {
        serviceOfInstance.delete(id);
      }
    }
    for (const { id } of after?.instances ?? []) {
      serviceOfInstance.set(id, after?.id ?? "");
    }
  }

  function changeOrder(before: CatalogueService | undefined, after: CatalogueService | undefined): void {
    const changed = after ?? before;
    if (!changed) {
      return;
    }
    const { lineage } = changed;
    const versions = (lineages.get(lineage) ?? []).filter(({ id }) => id !== changed.id);
    if (after) {
      ordered.put(after);
      versions.push(after);
      versions.sort((left, right) => compareVersions(right.version, left.version));
    } else {
      ordered.delete(changed);
    }
    if (versions.length > 0) {
      lineages.set(lineage, versions);
    } else {
      lineages.delete(lineage);
    }
  }

  function replace(id: string, after: CatalogueService | undefined): CatalogueChange {
    const before = services.get(id);
    changeTools(before, after);
    changeInstances(before, after);
    changeOrder(before, after);
    if (after) {
      services.set(id, after);
    } else {
      services.delete(id);
    }
    return { id, before, after };
  }

  function noteRemoval(id: string, at: number): void {
    removals.delete(id);
    removals.set(id, at);
    for (const [oldest, oldestRevision] of removals) {
      if (removals.size <= REMOVALS_KEPT) {
        return;
      }
      removals.delete(oldest);
      oldestResumable = oldestRevision;
    }
  }

  function toService(row: ServiceRow, toToolSet: (digest: string) => ToolSet): CatalogueService {
    const id = keyText(row);
    const before = services.get(id);
    return {
      id,
      lineage: lineageText(row.name, row.environment),
      name: row.name,
      environment: row.environment,
      version: row.version,
      spec: withoutInlineSource(fromBinary(ServiceSpecSchema, row.spec)),
      instances: row.instances.map((instance) => toInstance(instance, before)),
      tools: row.toolSet === undefined ? undefined : toToolSet(row.toolSet),
      schemaDigest: row.schemaDigest,
      definition: row.definition,
      problems: row.problems,
      createTime: row.createTime,
      updateTime: row.updateTime,
      discoverTime: later(row.discoverTime, before?.discoverTime),
      revision: row.revision,
    };
  }

  /** Finds tool sets in memory or among those that were loaded, and decodes each once. */
  function toolSetSource(bytes: ReadonlyMap<string, Uint8Array>): (digest: string) => ToolSet {
    const decoded = new Map<string, ToolSet>();
    return (digest) => {
      const known = toolSets.get(digest)?.set ?? decoded.get(digest);
      if (known) {
        return known;
      }
      const packed = bytes.get(digest);
      if (!packed) {
        throw new Error(`tool set ${digest} was not loaded`);
      }
      const set = decodeToolSet(digest, packed, summaries);
      decoded.set(digest, set);
      return set;
    };
  }

  function findInstance(id: string) {
    const service = services.get(serviceOfInstance.get(id) ?? "");
    const instance = service?.instances.find((candidate) => candidate.id === id);
    return service && instance ? { service, instance } : undefined;
  }

  return {
    get revision() {
      return revision;
    },
    get: (key) => services.get(keyText(key)),
    byId: (id) => services.get(id),
    services: () => ordered.items(),
    versions: (name, environment) => lineages.get(lineageText(name, environment)) ?? [],
    isHighest: (service) => lineages.get(service.lineage)?.[0] === service,
    *offering(segment) {
      for (const id of bySegment.get(segment) ?? []) {
        const service = services.get(id);
        if (service) {
          yield service;
        }
      }
    },
    instance: findInstance,
    noteChecked(instanceId, time) {
      const found = findInstance(instanceId);
      if (found) {
        found.instance.healthCheckTime = time;
      }
    },
    noteLearnt(id, time) {
      const service = services.get(id);
      if (service) {
        service.discoverTime = time;
      }
    },
    changedAfter(since) {
      if (since < oldestResumable || since > revision) {
        return undefined;
      }
      const changed: string[] = [];
      for (const service of ordered.items()) {
        if (service.revision > since) {
          changed.push(service.id);
        }
      }
      for (const [id, removedAt] of removals) {
        if (removedAt > since) {
          changed.push(id);
        }
      }
      return changed;
    },
    missingToolSets(snapshot) {
      const missing = new Set<string>();
      for (const { toolSet } of snapshot.services) {
        if (toolSet !== undefined && !toolSets.has(toolSet)) {
          missing.add(toolSet);
        }
      }
      return [...missing];
    },
    apply(snapshot, bytes) {
      const changes: CatalogueChange[] = [];
      // Tool sets are decoded before anything is changed, so that a corrupt one changes nothing.
      const toToolSet = toolSetSource(bytes);
      const arriving = snapshot.services.map((row) => toService(row, toToolSet));
      const present = new Set(arriving.map(({ id }) => id));
      if (snapshot.complete) {
        oldestResumable = Math.max(oldestResumable, snapshot.prunedRevision);
        for (const { id } of [...ordered.items()]) {
          if (!present.has(id)) {
            changes.push(replace(id, undefined));
          }
        }
      }
      for (const gone of snapshot.removed.toSorted((left, right) => left.revision - right.revision)) {
        const id = keyText(gone);
        if (services.has(id)) {
          changes.push(replace(id, undefined));
        }
        noteRemoval(id, gone.revision);
      }
      for (const service of arriving) {
        // After a backup was restored, an old revision can have new content.
        if (snapshot.complete || services.get(service.id)?.revision !== service.revision) {
          changes.push(replace(service.id, service));
          removals.delete(service.id);
        }
      }
      revision = snapshot.revision;
      return changes;
    },
  };
}

/** Whether both come from one registration, so that what was found about one is true of the other. */
export function isSameRegistration(left: CatalogueInstance, right: CatalogueInstance): boolean {
  return left.registerTime.getTime() === right.registerTime.getTime();
}

function toInstance(row: InstanceRow, service: CatalogueService | undefined): CatalogueInstance {
  const before = service?.instances.find(({ id }) => id === row.id);
  return {
    id: row.id,
    spec: fromBinary(InstanceSpecSchema, row.spec),
    health: row.health,
    healthMessage: row.healthMessage,
    healthCheckTime: later(row.healthCheckTime, before?.healthCheckTime),
    registerTime: row.registerTime,
  };
}

function later(left: Date | undefined, right: Date | undefined): Date | undefined {
  return left && right ? (left > right ? left : right) : (left ?? right);
}

/** Descriptors and manuals can be large, are shown nowhere, and stay in the database. */
function withoutInlineSource(spec: ServiceSpec): ServiceSpec {
  const kind = spec.source?.kind;
  switch (kind?.case) {
    case "descriptors":
      delete kind.value.fileDescriptorSet;
      break;
    case "utcpManual":
      if (kind.value.manual.case === "inline") {
        kind.value.manual = { case: "inline", value: {} };
      }
      break;
    case "grpcReflection":
    case undefined:
      break;
  }
  return spec;
}

/** The part of a dotted name after the last dot. */
export function lastSegment(name: string): string {
  return name.slice(name.lastIndexOf(".") + 1);
}

function lineageText(name: string, environment: string): string {
  return `${name}/${environment}`;
}
