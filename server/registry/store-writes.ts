import { createHash } from "node:crypto";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { type Kysely, type Selectable, sql, type Transaction } from "kysely";
import type { Definition } from "../backends/source.ts";
import type { Tables } from "../storage/tables.ts";
import { describeKey, keyText, type ServiceKey } from "./service-key.ts";
import type { DiscoveryOutcome, RegistrationWrite } from "./store.ts";
import type { RegistryServicesTable, StoredProblem } from "./tables.ts";

/** The channel that every change of the registry is announced on; the payload is the revision. */
export const CHANGES_CHANNEL = "toolplane_registry";

export type StoredService = Selectable<RegistryServicesTable>;

/** The services that one revision changes, each once. */
export interface ChangedServices {
  add(key: ServiceKey): void;
  keys(): ServiceKey[];
}

/** A change of the registry. It adds the services that it changes to `changed`. */
export type RegistryChange<T> = (
  tx: Transaction<Tables>,
  revision: number,
  changed: ChangedServices,
) => Promise<T>;

/** Runs a change under the next revision, and announces it when the transaction commits. */
export async function changeRegistry<T>(kysely: Kysely<Tables>, work: RegistryChange<T>): Promise<T> {
  return await kysely.transaction().execute(async (tx) => {
    const head = await tx
      .updateTable("registry_head")
      .set({ revision: sql<number>`revision + 1` })
      .returning("revision")
      .executeTakeFirstOrThrow();
    const revision = Number(head.revision);
    const changed = createChangedServices();
    const result = await work(tx, revision, changed);
    await recordChanges(tx, revision, changed.keys());
    return result;
  });
}

function createChangedServices(): ChangedServices {
  const changed = new Map<string, ServiceKey>();
  return {
    add: ({ name, environment, version }) => {
      const key = { name, environment, version };
      changed.set(keyText(key), key);
    },
    keys: () => [...changed.values()],
  };
}

/** The columns that name a service, as a condition. */
export function sameService({ name, environment, version }: ServiceKey): ServiceKey {
  return { name, environment, version };
}

export async function readService(
  tx: Transaction<Tables>,
  key: ServiceKey,
): Promise<StoredService | undefined> {
  return await tx
    .selectFrom("registry_services")
    .selectAll()
    .where((where) => where.and(sameService(key)))
    .executeTakeFirst();
}

export interface ServiceWrite {
  readonly key: ServiceKey;
  readonly revision: number;
  readonly spec: Uint8Array;
  readonly outcome: DiscoveryOutcome;
  /** The stored service whose tools are kept when nothing was learnt. */
  readonly previous: StoredService | undefined;
}

/** Writes a service and returns the tool set that it offered before, when its tools have changed. */
export async function writeService(
  tx: Transaction<Tables>,
  write: ServiceWrite,
): Promise<string | undefined> {
  const { key, revision, outcome, previous } = write;
  const learnt = outcome.kind === "learnt" ? await writeLearnt(tx, key, outcome) : undefined;
  const values = {
    spec: Buffer.from(write.spec),
    tool_set: learnt ? learnt.toolSet : (previous?.tool_set ?? null),
    definition: learnt ? learnt.definition : (previous?.definition ?? null),
    problems: JSON.stringify(learnt ? outcome.problems : withStaleness(outcome.problems, previous)),
    discover_time: learnt ? sql<Date>`now()` : (previous?.discover_time ?? null),
    revision,
  };
  await tx
    .insertInto("registry_services")
    .values({ ...sameService(key), ...values })
    .onConflict((conflict) =>
      conflict
        .columns(["name", "environment", "version"])
        .doUpdateSet({ ...values, update_time: sql`now()` }),
    )
    .execute();
  return learnt?.previousToolSet;
}

/** Says that the tools shown are old ones, before the reasons why no newer ones are known. */
function withStaleness(
  problems: readonly StoredProblem[],
  previous: StoredService | undefined,
): readonly StoredProblem[] {
  if (!previous?.tool_set || !previous.discover_time) {
    return problems;
  }
  const stale: StoredProblem = {
    tool: "",
    reason: "STALE_TOOLS",
    message: `The tools are those learnt at ${previous.discover_time.toISOString()}; learning them again failed`,
    time: problems[0]?.time ?? previous.discover_time.getTime(),
  };
  return [stale, ...problems];
}

async function writeLearnt(
  tx: Transaction<Tables>,
  key: ServiceKey,
  { tools, definition }: Extract<DiscoveryOutcome, { kind: "learnt" }>,
): Promise<{ toolSet: string; definition: string | null; previousToolSet: string | undefined }> {
  await tx
    .insertInto("registry_tool_sets")
    .values({ digest: tools.digest, schema_digest: tools.schemaDigest, bytes: Buffer.from(tools.bytes) })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const definitionDigest = definition ? digestOf(definition) : null;
  if (definition && definitionDigest) {
    await tx
      .insertInto("registry_definitions")
      .values({ digest: definitionDigest, kind: definition.kind, bytes: Buffer.from(definition.bytes) })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
  const known = await tx
    .selectFrom("registry_known_tool_sets")
    .select("tool_set")
    .where((where) => where.and(sameService(key)))
    .executeTakeFirst();
  await tx
    .insertInto("registry_known_tool_sets")
    .values({ ...sameService(key), tool_set: tools.digest })
    .onConflict((conflict) =>
      conflict
        .columns(["name", "environment", "version"])
        .doUpdateSet({ tool_set: tools.digest, update_time: sql`now()` }),
    )
    .execute();
  return {
    toolSet: tools.digest,
    definition: definitionDigest,
    previousToolSet: known && known.tool_set !== tools.digest ? known.tool_set : undefined,
  };
}

/** The name that a definition is stored under. */
export function digestOf(definition: Definition): string {
  return createHash("sha256").update(definition.kind).update("\0").update(definition.bytes).digest("hex");
}

/** An id that two services use by mistake must not let them push each other out. */
export async function refuseTakenId(
  tx: Transaction<Tables>,
  { name, environment }: ServiceKey,
  instanceId: string,
): Promise<void> {
  const owner = await tx
    .selectFrom("registry_instances")
    .select(["name", "environment", "version"])
    .where("id", "=", instanceId)
    .executeTakeFirst();
  if (owner && (owner.name !== name || owner.environment !== environment)) {
    throw new DomainError({
      code: Code.AlreadyExists,
      reason: "INSTANCE_ID_TAKEN",
      message: `Instance "${instanceId}" is registered for ${describeKey(owner)}: use another id, or deregister it first`,
      resource: { type: "instance", name: instanceId },
    });
  }
}

/** Writes an instance. What is known about the health of one that has not changed is better than UNKNOWN. */
export async function writeInstance(tx: Transaction<Tables>, registration: RegistrationWrite): Promise<void> {
  const { instanceId, key, health, leaseTtlMs } = registration;
  const spec = Buffer.from(registration.instanceSpec);
  const keepsHealth = sql<boolean>`
    registry_instances.spec = ${spec} AND ${health} = ${HealthStatus.UNKNOWN}::integer
  `;
  await tx
    .insertInto("registry_instances")
    .values({ id: instanceId, ...sameService(key), spec, health })
    .onConflict((conflict) =>
      conflict.column("id").doUpdateSet({
        spec,
        health: sql<number>`CASE WHEN ${keepsHealth} THEN registry_instances.health ELSE ${health}::smallint END`,
        health_message: sql<string>`CASE WHEN ${keepsHealth} THEN registry_instances.health_message ELSE '' END`,
        register_time: sql`now()`,
      }),
    )
    .execute();
  if (health === HealthStatus.HEALTHY) {
    // Without checks every instance counts as healthy, also one that has failed a check when there were some.
    await tx
      .updateTable("registry_instances")
      .set({ health, health_message: "" })
      .where((where) => where.and(sameService(key)))
      .where("health", "!=", health)
      .execute();
  }
  if (leaseTtlMs === undefined) {
    await tx.deleteFrom("registry_leases").where("instance_id", "=", instanceId).execute();
    return;
  }
  const lease = { ttl_ms: leaseTtlMs, expires_at: sql<Date>`now() + ${leaseTtlMs} * interval '1 ms'` };
  await tx
    .insertInto("registry_leases")
    .values({ instance_id: instanceId, ...lease })
    .onConflict((conflict) => conflict.column("instance_id").doUpdateSet(lease))
    .execute();
}

/** After instances have changed: a service without any is removed, the others take the revision. */
export async function touchOrRemoveServices(
  tx: Transaction<Tables>,
  revision: number,
  keys: readonly ServiceKey[],
): Promise<void> {
  if (keys.length === 0) {
    return;
  }
  const among = sql<boolean>`(name, environment, version) IN (${keyList(keys)})`;
  await tx
    .deleteFrom("registry_services")
    .where(among)
    .where((where) =>
      where.not(
        where.exists(
          where
            .selectFrom("registry_instances as instance")
            .select("instance.id")
            .whereRef("instance.name", "=", "registry_services.name")
            .whereRef("instance.environment", "=", "registry_services.environment")
            .whereRef("instance.version", "=", "registry_services.version"),
        ),
      ),
    )
    .execute();
  await tx.updateTable("registry_services").set({ revision, update_time: sql`now()` }).where(among).execute();
}

async function recordChanges(
  tx: Transaction<Tables>,
  revision: number,
  keys: readonly ServiceKey[],
): Promise<void> {
  if (keys.length === 0) {
    return;
  }
  await sql`
    INSERT INTO registry_changes (revision, name, environment, version)
    SELECT ${revision}::bigint, * FROM (${keyList(keys)}) AS changed
  `.execute(tx);
  await sql`SELECT pg_notify(${CHANGES_CHANNEL}, ${String(revision)})`.execute(tx);
}

/** Many services as rows, in three parameters whatever their number. */
function keyList(keys: readonly ServiceKey[]) {
  return sql`SELECT * FROM unnest(
    ${keys.map(({ name }) => name)}::text[],
    ${keys.map(({ environment }) => environment)}::text[],
    ${keys.map(({ version }) => version)}::text[]
  )`;
}
