import type { ColumnType, Generated } from "kysely";

/** Set by the database: the clock of one machine orders what many replicas write. */
type Time = ColumnType<Date, Date | string | undefined, Date | string>;
/** `bigint` is read as text; revisions stay far below 2^53. */
type BigInteger = ColumnType<string, number, number>;

interface ServiceColumns {
  name: string;
  environment: string;
  version: string;
}

export interface RegistryHeadTable {
  one_row: Generated<boolean>;
  revision: BigInteger;
  pruned_revision: BigInteger;
}

export interface RegistryChangesTable extends ServiceColumns {
  revision: BigInteger;
}

export interface RegistryToolSetsTable {
  digest: string;
  schema_digest: string;
  bytes: Buffer;
}

export interface RegistryDefinitionsTable {
  digest: string;
  kind: "descriptors" | "utcp";
  bytes: Buffer;
}

export interface RegistryServicesTable extends ServiceColumns {
  spec: Buffer;
  tool_set: string | null;
  definition: string | null;
  problems: ColumnType<StoredProblem[], string, string>;
  create_time: Time;
  update_time: Time;
  discover_time: ColumnType<Date | null, Date | null, Date | string | null>;
  revision: BigInteger;
}

export interface RegistryInstancesTable extends ServiceColumns {
  id: string;
  spec: Buffer;
  health: number;
  health_message: Generated<string>;
  health_check_time: ColumnType<Date | null, Date | null | undefined, Date | null>;
  register_time: Time;
}

export interface RegistryLeasesTable {
  instance_id: string;
  ttl_ms: number;
  expires_at: Time;
}

export interface RegistryKnownToolSetsTable extends ServiceColumns {
  tool_set: string;
  update_time: Time;
}

export interface RegistryHealthChecksTable extends ServiceColumns {
  id: Generated<string>;
  instance_id: string;
  status: number;
  message: string;
  latency_us: number;
  time: Time;
}

/** The tables of the registry. */
export interface RegistryTables {
  registry_head: RegistryHeadTable;
  registry_changes: RegistryChangesTable;
  registry_tool_sets: RegistryToolSetsTable;
  registry_definitions: RegistryDefinitionsTable;
  registry_services: RegistryServicesTable;
  registry_instances: RegistryInstancesTable;
  registry_leases: RegistryLeasesTable;
  registry_known_tool_sets: RegistryKnownToolSetsTable;
  registry_health_checks: RegistryHealthChecksTable;
}

/** A problem as it is stored. */
export interface StoredProblem {
  readonly tool: string;
  readonly reason: string;
  readonly message: string;
  /** In milliseconds since 1970. */
  readonly time: number;
}
