import type { AccessTables } from "../access/tables.ts";
import type { CacheTables } from "../cache/tables.ts";
import type { EventLogTables } from "../event-log/tables.ts";
import type { IdempotencyTables } from "../idempotency/tables.ts";
import type { OrchestrationTables } from "../orchestration/tables.ts";
import type { RegistryTables } from "../registry/tables.ts";
import type { TestRunTables } from "../test-runs/tables.ts";

/**
 * Every table, by name. Each domain declares its row types beside its store and adds them here by extending this
 * interface, so that `Kysely<Tables>` knows them all.
 */
export interface Tables
  extends AccessTables,
    CacheTables,
    EventLogTables,
    IdempotencyTables,
    OrchestrationTables,
    RegistryTables,
    TestRunTables {}
