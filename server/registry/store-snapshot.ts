import { type SqlBool, sql, type Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import { keyText } from "./service-key.ts";
import type { InstanceRow, ServiceRow, Snapshot } from "./store.ts";

/** Reads what has changed after `revision`, or everything. The transaction has to be a repeatable read. */
export async function loadSnapshot(tx: Transaction<Tables>, since: number | undefined): Promise<Snapshot> {
  const head = await tx.selectFrom("registry_head").selectAll().executeTakeFirstOrThrow();
  const revision = Number(head.revision);
  const prunedRevision = Number(head.pruned_revision);
  // A revision from the future was given out by another database, or by this one before a backup was restored.
  const from = since !== undefined && since >= prunedRevision && since <= revision ? since : undefined;
  const services = from === revision ? [] : await loadServices(tx, from);
  const existing = new Set(services.map(keyText));
  return {
    revision,
    prunedRevision,
    complete: from === undefined,
    services,
    removed:
      from === revision
        ? []
        : (await loadChanges(tx, from ?? prunedRevision)).filter((change) => !existing.has(keyText(change))),
  };
}

async function loadChanges(tx: Transaction<Tables>, since: number) {
  const rows = await tx
    .selectFrom("registry_changes")
    .select(["name", "environment", "version", (fn) => fn.fn.max("revision").as("revision")])
    .where("revision", ">", String(since))
    .groupBy(["name", "environment", "version"])
    .execute();
  return rows.map(({ revision, ...key }) => ({ ...key, revision: Number(revision) }));
}

async function loadServices(tx: Transaction<Tables>, since: number | undefined): Promise<ServiceRow[]> {
  const changed = (table: "service" | "instance") =>
    since === undefined
      ? sql<SqlBool>`true`
      : sql<SqlBool>`(${sql.ref(`${table}.name`)}, ${sql.ref(`${table}.environment`)}, ${sql.ref(`${table}.version`)}) IN
          (SELECT name, environment, version FROM registry_changes WHERE revision > ${since})`;
  const rows = await tx
    .selectFrom("registry_services as service")
    .leftJoin("registry_tool_sets as tools", "tools.digest", "service.tool_set")
    .selectAll("service")
    .select("tools.schema_digest")
    .where(changed("service"))
    .execute();
  const instances = await tx
    .selectFrom("registry_instances as instance")
    .selectAll()
    .where(changed("instance"))
    .orderBy("id")
    .execute();

  const byService = new Map<string, InstanceRow[]>();
  for (const row of instances) {
    const instance: InstanceRow = {
      id: row.id,
      name: row.name,
      environment: row.environment,
      version: row.version,
      spec: row.spec,
      health: row.health,
      healthMessage: row.health_message,
      healthCheckTime: row.health_check_time ?? undefined,
      registerTime: row.register_time,
    };
    const key = keyText(row);
    const siblings = byService.get(key);
    if (siblings) {
      siblings.push(instance);
    } else {
      byService.set(key, [instance]);
    }
  }
  return rows.map((row) => ({
    name: row.name,
    environment: row.environment,
    version: row.version,
    spec: row.spec,
    toolSet: row.tool_set ?? undefined,
    schemaDigest: row.schema_digest ?? "",
    definition: row.definition ?? undefined,
    problems: row.problems,
    createTime: row.create_time,
    updateTime: row.update_time,
    discoverTime: row.discover_time ?? undefined,
    revision: Number(row.revision),
    instances: byService.get(keyText(row)) ?? [],
  }));
}
