import { sql } from "kysely";
import type { Migration } from "./index.ts";

/** Failed checks are what people look for in the history of health, and few among many: they are found without the others. */
export const failedHealthChecksMigration: Migration = {
  name: "0002-failed-health-checks",
  async up(db) {
    // 2 is HealthStatus.HEALTHY.
    await sql`CREATE INDEX registry_health_checks_failed ON registry_health_checks (id) WHERE status <> 2`.execute(
      db,
    );
  },
};
