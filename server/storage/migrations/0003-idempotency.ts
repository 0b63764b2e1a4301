import { sql } from "kysely";
import type { Migration } from "./index.ts";

const statements = [
  // Claims are numbered in the order in which they are made: what an older one writes is not taken.
  `CREATE SEQUENCE idempotency_tokens`,
  `CREATE TABLE idempotency_requests (
    -- SHA-256 of scope and request id.
    key bytea PRIMARY KEY,
    fingerprint text COLLATE "C" NOT NULL,
    token bigint NOT NULL DEFAULT nextval('idempotency_tokens'),
    -- working, success, failure, or too-large: ended, without an outcome.
    state text NOT NULL,
    outcome bytea,
    -- Whether somebody wants to be notified of the end.
    awaited boolean NOT NULL DEFAULT false,
    lease_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
  ) WITH (fillfactor = 80)`,
  `ALTER SEQUENCE idempotency_tokens OWNED BY idempotency_requests.token`,
  `CREATE INDEX idempotency_requests_expires ON idempotency_requests (expires_at)`,
];

/** Which requests with an id were made, and how they ended. */
export const idempotencyMigration: Migration = {
  name: "0003-idempotency",
  async up(db) {
    for (const statement of statements) {
      await sql.raw(statement).execute(db);
    }
  },
};
