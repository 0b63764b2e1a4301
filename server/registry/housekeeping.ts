import { sql } from "kysely";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import type { HealthHistoryStore } from "./health/history-store.ts";

/** So many of the last revisions can be resumed from. */
const REVISIONS_KEPT = 10_000;
/** Old health checks are removed in so many parts at a time. */
const MAX_PARTS = 20;
/** How long the tools of a service that is gone are remembered, to compare with when it comes back. */
const KNOWN_TOOLS_KEPT = "30 days";

export interface HousekeepingOptions {
  readonly database: Pick<Database, "kysely">;
  readonly history: HealthHistoryStore;
  readonly logger: Logger;
  /** How long results of health checks are kept, in milliseconds. */
  readonly healthRetentionMs: number;
}

/** Forgets what nobody needs any more. */
export async function keepHouse({
  database: { kysely },
  history,
  logger,
  healthRetentionMs,
}: HousekeepingOptions): Promise<void> {
  await kysely.transaction().execute(async (tx) => {
    // With the head locked, no registration is about to use what looks unused now.
    await sql`SELECT revision FROM registry_head FOR UPDATE`.execute(tx);
    await sql`
      WITH pruned AS (
        UPDATE registry_head SET pruned_revision = greatest(pruned_revision, revision - ${REVISIONS_KEPT}::bigint)
        RETURNING pruned_revision
      )
      DELETE FROM registry_changes WHERE revision <= (SELECT pruned_revision FROM pruned)
    `.execute(tx);
    await sql`
      DELETE FROM registry_known_tool_sets AS known
      WHERE update_time < now() - ${KNOWN_TOOLS_KEPT}::interval AND NOT EXISTS (
        SELECT FROM registry_services AS service
        WHERE (service.name, service.environment, service.version) = (known.name, known.environment, known.version)
      )
    `.execute(tx);
    await sql`
      DELETE FROM registry_tool_sets AS tools
      WHERE NOT EXISTS (SELECT FROM registry_services WHERE tool_set = tools.digest)
        AND NOT EXISTS (SELECT FROM registry_known_tool_sets WHERE tool_set = tools.digest)
    `.execute(tx);
    await sql`
      DELETE FROM registry_definitions AS definition
      WHERE NOT EXISTS (SELECT FROM registry_services AS service WHERE service.definition = definition.digest)
    `.execute(tx);
  });
  // What is left is for the next time: the keeper has other duties.
  for (let part = 0; part < MAX_PARTS; part++) {
    const pruned = await history.prune(healthRetentionMs);
    if (pruned === 0) {
      break;
    }
    logger.debug({ pruned }, "forgot old health checks");
  }
}
