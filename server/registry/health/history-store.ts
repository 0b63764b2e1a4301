import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { sql } from "kysely";
import type { Database } from "../../storage/database.ts";
import type { ServiceKey } from "../service-key.ts";

/** One health check that was done. */
export interface HealthRecord extends ServiceKey {
  readonly instanceId: string;
  readonly status: HealthStatus;
  readonly message: string;
  readonly latencyMs: number;
  readonly time: Date;
}

/** Which records are meant. What is unset matches everything. */
export interface HealthRecordFilter {
  /** Part of the name, in any case. */
  readonly name?: string | undefined;
  readonly environment?: string | undefined;
  readonly version?: string | undefined;
  readonly instanceId?: string | undefined;
  readonly status?: HealthStatus | undefined;
  /** Only those that ended at this time or later. */
  readonly start?: Date | undefined;
  /** Only those that ended before. */
  readonly end?: Date | undefined;
  /** Only those of these services. */
  readonly services?: readonly ServiceKey[] | undefined;
}

/** The health checks of the past. */
export interface HealthHistoryStore {
  append(records: readonly HealthRecord[]): Promise<void>;
  /** Newest first, older than the record with the id `before`. */
  list(
    filter: HealthRecordFilter,
    limit: number,
    before: string | undefined,
  ): Promise<(HealthRecord & { readonly id: string })[]>;
  /** Forgets some of what is older; returns how many. 0: nothing is left to forget. */
  prune(retentionMs: number): Promise<number>;
}

/** What an `integer` of PostgreSQL holds at most. A check lasts longer than that while the machine sleeps. */
const MAX_INTEGER = 2 ** 31 - 1;

/** A statement that deletes more than this may hold others up. */
const PRUNED_AT_ONCE = 10_000;

export function createHealthHistoryStore({ kysely }: Pick<Database, "kysely">): HealthHistoryStore {
  return {
    async append(records) {
      await sql`
        INSERT INTO registry_health_checks
          (name, environment, version, instance_id, status, message, latency_us, time)
        SELECT * FROM unnest(
          ${records.map(({ name }) => name)}::text[],
          ${records.map(({ environment }) => environment)}::text[],
          ${records.map(({ version }) => version)}::text[],
          ${records.map(({ instanceId }) => instanceId)}::text[],
          ${records.map(({ status }) => status)}::smallint[],
          ${records.map(({ message }) => message)}::text[],
          ${records.map(({ latencyMs }) => Math.min(Math.round(latencyMs * 1_000), MAX_INTEGER))}::integer[],
          ${records.map(({ time }) => time.toISOString())}::timestamptz[]
        )
      `.execute(kysely);
    },

    async list(filter, limit, before) {
      let query = kysely.selectFrom("registry_health_checks").selectAll();
      if (filter.name) {
        query = query.where(sql<boolean>`strpos(lower(name), ${filter.name.toLowerCase()}) > 0`);
      }
      if (filter.environment) {
        query = query.where("environment", "=", filter.environment);
      }
      if (filter.version) {
        query = query.where("version", "=", filter.version);
      }
      if (filter.instanceId) {
        query = query.where("instance_id", "=", filter.instanceId);
      }
      if (filter.status) {
        query = query.where("status", "=", filter.status);
        if (filter.status !== HealthStatus.HEALTHY) {
          // Said in the words of an index, which the planner does not conclude by itself.
          query = query.where(sql<boolean>`status <> 2`);
        }
      }
      if (filter.start) {
        query = query.where("time", ">=", filter.start);
      }
      if (filter.end) {
        query = query.where("time", "<", filter.end);
      }
      if (filter.services) {
        query = query.where(sql<boolean>`(name, environment, version) IN (SELECT * FROM unnest(
          ${filter.services.map(({ name }) => name)}::text[],
          ${filter.services.map(({ environment }) => environment)}::text[],
          ${filter.services.map(({ version }) => version)}::text[]
        ))`);
      }
      if (before !== undefined) {
        query = query.where("id", "<", before);
      }
      const rows = await query.orderBy("id", "desc").limit(limit).execute();
      return rows.map((row) => ({
        id: row.id,
        name: row.name,
        environment: row.environment,
        version: row.version,
        instanceId: row.instance_id,
        status: row.status,
        message: row.message,
        latencyMs: row.latency_us / 1_000,
        time: row.time,
      }));
    },

    async prune(retentionMs) {
      // By place rather than by id: nobody else deletes or changes rows, and a join would read the whole table.
      const { numAffectedRows } = await sql`
        DELETE FROM registry_health_checks WHERE ctid = ANY (ARRAY(
          SELECT ctid FROM registry_health_checks
          WHERE time < now() - ${retentionMs} * interval '1 ms'
          LIMIT ${PRUNED_AT_ONCE}
        ))
      `.execute(kysely);
      return Number(numAffectedRows ?? 0);
    },
  };
}
