import type { Kysely } from "kysely";
import { registryMigration } from "./0001-registry.ts";
import { failedHealthChecksMigration } from "./0002-failed-health-checks.ts";
import { idempotencyMigration } from "./0003-idempotency.ts";
import { responseCacheMigration } from "./0004-response-cache.ts";
import { apiKeysMigration } from "./0005-api-keys.ts";
import { rateLimitsMigration } from "./0006-rate-limits.ts";
import { eventLogMigration } from "./0007-event-log.ts";
import { testRunsMigration } from "./0008-test-runs.ts";
import { orchestrationMigration } from "./0009-orchestration.ts";

/** One step of the schema. Once released it never changes: a mistake is corrected by a further step. */
export interface Migration {
  /** A four-digit number and a word, such as `0001-registry`; the order of names is the order of steps. */
  readonly name: string;
  /** Runs inside a transaction that it shares with the other pending steps: all of them happen, or none. */
  up(db: Kysely<unknown>): Promise<void>;
}

/** All steps, in order. */
export const migrations: readonly Migration[] = [
  registryMigration,
  failedHealthChecksMigration,
  idempotencyMigration,
  responseCacheMigration,
  apiKeysMigration,
  rateLimitsMigration,
  eventLogMigration,
  testRunsMigration,
  orchestrationMigration,
];
