import { sql } from "kysely";
import type { Migration } from "./index.ts";

/** Keys that callers show. What is kept of a key's secret part is its SHA-256. */
export const apiKeysMigration: Migration = {
  name: "0005-api-keys",
  async up(db) {
    await sql`
      CREATE TABLE api_keys (
        id text COLLATE "C" PRIMARY KEY,
        name text COLLATE "C" NOT NULL,
        role text NOT NULL CHECK (role IN ('reader', 'caller', 'operator')),
        secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
        created_by text NOT NULL,
        create_time timestamptz NOT NULL,
        expire_time timestamptz,
        revoke_time timestamptz,
        last_use_time timestamptz
      )
    `.execute(db);
    // The order of listings.
    await sql`CREATE INDEX api_keys_name ON api_keys (name, create_time DESC, id)`.execute(db);
  },
};
