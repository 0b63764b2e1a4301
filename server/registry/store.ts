import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { sql } from "kysely";
import pLimit from "p-limit";
import type { Definition } from "../backends/source.ts";
import type { Database } from "../storage/database.ts";
import type { ServiceKey } from "./service-key.ts";
import { loadSnapshot } from "./store-snapshot.ts";
import {
  changeRegistry,
  type RegistryChange,
  readService,
  refuseTakenId,
  sameService,
  touchOrRemoveServices,
  writeInstance,
  writeService,
} from "./store-writes.ts";
import type { StoredProblem } from "./tables.ts";
import type { EncodedToolSet } from "./tool-set.ts";

/** How many tool sets one query returns: `pg` holds an answer twice while it reads it. */
const TOOL_SETS_PER_QUERY = 500;

/** What learning a service's tools has led to. */
export type DiscoveryOutcome =
  | {
      readonly kind: "learnt";
      readonly tools: EncodedToolSet;
      readonly definition: Definition | undefined;
      readonly problems: readonly StoredProblem[];
    }
  /** Nothing was learnt: what was known before stays callable. */
  | { readonly kind: "failed"; readonly problems: readonly StoredProblem[] };

export interface RegistrationWrite {
  readonly key: ServiceKey;
  /** A serialized ServiceSpec. */
  readonly spec: Uint8Array;
  readonly instanceId: string;
  /** A serialized InstanceSpec. */
  readonly instanceSpec: Uint8Array;
  /** Undefined: permanent. */
  readonly leaseTtlMs: number | undefined;
  /** The health that the instance starts with. */
  readonly health: HealthStatus;
  readonly outcome: DiscoveryOutcome;
  /** Whether tools learnt from the stored spec can be kept when discovery failed: both name the same source. */
  keepsTools(storedSpec: Uint8Array): boolean;
}

export interface WriteResult {
  /** What the local catalogue has to reach before the write can be read. */
  readonly revision: number;
  /** The tool set that the service offered before; undefined when it is new or its tools are the same. */
  readonly previousToolSet: string | undefined;
}

export interface HealthWrite {
  readonly instanceId: string;
  readonly status: HealthStatus;
  readonly message: string;
  readonly time: Date;
}

export interface InstanceRow extends ServiceKey {
  readonly id: string;
  readonly spec: Uint8Array;
  readonly health: HealthStatus;
  readonly healthMessage: string;
  readonly healthCheckTime: Date | undefined;
  readonly registerTime: Date;
}

export interface ServiceRow extends ServiceKey {
  readonly spec: Uint8Array;
  readonly toolSet: string | undefined;
  readonly schemaDigest: string;
  readonly definition: string | undefined;
  readonly problems: readonly StoredProblem[];
  readonly createTime: Date;
  readonly updateTime: Date;
  readonly discoverTime: Date | undefined;
  readonly revision: number;
  readonly instances: readonly InstanceRow[];
}

/** The registry, or what has changed in it, at one moment. */
export interface Snapshot {
  readonly revision: number;
  /** Whether `services` is everything there is, rather than what has changed. */
  readonly complete: boolean;
  /** Removals up to this revision are forgotten. */
  readonly prunedRevision: number;
  readonly services: readonly ServiceRow[];
  /** Services that have changed and are gone, with the revision of the change. */
  readonly removed: readonly (ServiceKey & { readonly revision: number })[];
}

export interface Store {
  /** Everything that has changed after `revision`; everything when that is not known any more, or undefined. */
  load(revision: number | undefined): Promise<Snapshot>;
  /** Reads tool sets in small groups; unknown digests are left out. */
  toolSets(
    digests: readonly string[],
  ): AsyncIterable<{ readonly digest: string; readonly bytes: Uint8Array }>;
  definition(digest: string): Promise<Definition | undefined>;
  /**
   * Throws `signal`'s reason when it is aborted before it is this change's turn, and ALREADY_EXISTS when an instance of
   * another service has the id.
   */
  register(registration: RegistrationWrite, signal?: AbortSignal): Promise<WriteResult>;
  /** Records what a discovery has led to. Undefined: the service is gone, or not what `isCurrent` wants. */
  discovered(
    key: ServiceKey,
    outcome: DiscoveryOutcome,
    isCurrent: (stored: Pick<ServiceRow, "spec" | "toolSet">) => boolean,
  ): Promise<WriteResult | undefined>;
  deregister(
    target: { readonly instanceId: string } | { readonly service: ServiceKey },
  ): Promise<{ readonly revision: number; readonly removed: number } | undefined>;
  recordHealth(updates: readonly HealthWrite[]): Promise<number | undefined>;
  serviceSpec(key: ServiceKey): Promise<Uint8Array | undefined>;
}

/** Changes take turns anyway. Few at once leave the database's connections to others. */
const WRITES_AT_ONCE = 3;
/** How many changes may wait for their turn: a few seconds' worth. */
const MAX_WAITING_WRITES = 1_000;

export function createStore({ kysely }: Pick<Database, "kysely">): Store {
  const limit = pLimit(WRITES_AT_ONCE);

  function write<T>(work: RegistryChange<T>): Promise<T> {
    if (limit.pendingCount >= MAX_WAITING_WRITES) {
      throw new DomainError({
        code: Code.ResourceExhausted,
        reason: "TOO_MANY_CHANGES",
        message: "Too many changes of the registry wait to be stored; try again",
        retryAfterMs: 1_000,
      });
    }
    return limit(() => changeRegistry(kysely, work));
  }

  return {
    load: (revision) =>
      kysely
        .transaction()
        .setIsolationLevel("repeatable read")
        .setAccessMode("read only")
        .execute((tx) => loadSnapshot(tx, revision)),

    async *toolSets(digests) {
      for (let start = 0; start < digests.length; start += TOOL_SETS_PER_QUERY) {
        yield* await kysely
          .selectFrom("registry_tool_sets")
          .select(["digest", "bytes"])
          .where("digest", "=", sql<string>`any(${digests.slice(start, start + TOOL_SETS_PER_QUERY)})`)
          .execute();
      }
    },

    async definition(digest) {
      return await kysely
        .selectFrom("registry_definitions")
        .select(["kind", "bytes"])
        .where("digest", "=", digest)
        .executeTakeFirst();
    },

    register: (registration, signal) =>
      write(async (tx, revision, changed) => {
        // Changes take turns, so one that follows, such as the caller's deregistration, finds what is decided here.
        signal?.throwIfAborted();
        const { key, instanceId } = registration;
        await refuseTakenId(tx, key, instanceId);
        changed.add(key);
        const previous = await readService(tx, key);
        const keepsTools = previous !== undefined && registration.keepsTools(previous.spec);
        const previousToolSet = await writeService(tx, {
          key,
          revision,
          spec: registration.spec,
          outcome: registration.outcome,
          previous: keepsTools ? previous : undefined,
        });
        const moved = await tx
          .deleteFrom("registry_instances")
          .where("id", "=", instanceId)
          .where((where) => where.not(where.and(sameService(key))))
          .returning(["name", "environment", "version"])
          .executeTakeFirst();
        if (moved) {
          changed.add(moved);
          await touchOrRemoveServices(tx, revision, [moved]);
        }
        await writeInstance(tx, registration);
        return { revision, previousToolSet };
      }),

    async discovered(key, outcome, isCurrent) {
      return await write(async (tx, revision, changed) => {
        const previous = await readService(tx, key);
        if (!previous || !isCurrent({ spec: previous.spec, toolSet: previous.tool_set ?? undefined })) {
          return undefined;
        }
        changed.add(key);
        const previousToolSet = await writeService(tx, {
          key,
          revision,
          spec: previous.spec,
          outcome,
          previous,
        });
        return { revision, previousToolSet };
      });
    },

    deregister: (target) =>
      write(async (tx, revision, changed) => {
        const removed = await tx
          .deleteFrom("registry_instances")
          .where((where) =>
            "instanceId" in target
              ? where("id", "=", target.instanceId)
              : where.and(sameService(target.service)),
          )
          .returning(["name", "environment", "version"])
          .execute();
        if (removed.length === 0) {
          return undefined;
        }
        for (const key of removed) {
          changed.add(key);
        }
        await touchOrRemoveServices(tx, revision, changed.keys());
        return { revision, removed: removed.length };
      }),

    async recordHealth(updates) {
      return await write(async (tx, revision, changed) => {
        for (const { instanceId, status, message, time } of updates) {
          const updated = await tx
            .updateTable("registry_instances")
            .set({ health: status, health_message: message, health_check_time: time })
            .where("id", "=", instanceId)
            .where(sql<boolean>`(health, health_message) IS DISTINCT FROM (${status}::smallint, ${message})`)
            .returning(["name", "environment", "version"])
            .executeTakeFirst();
          if (updated) {
            changed.add(updated);
          }
        }
        await touchOrRemoveServices(tx, revision, changed.keys());
        return revision;
      });
    },

    async serviceSpec(key) {
      const row = await kysely
        .selectFrom("registry_services")
        .select("spec")
        .where((where) => where.and(sameService(key)))
        .executeTakeFirst();
      return row?.spec;
    },
  };
}
