import { counterTableSql } from "@toolplane/framework/policies";
import { type Kysely, sql } from "kysely";
import type { Migration } from "./index.ts";

/** Counters of rate limits that replicas share. */
export const rateLimitsMigration: Migration = {
  name: "0006-rate-limits",
  async up(db: Kysely<unknown>) {
    for (const statement of counterTableSql()) {
      await sql.raw(statement).execute(db);
    }
  },
};
