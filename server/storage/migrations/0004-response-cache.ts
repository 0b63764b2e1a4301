import { sql } from "kysely";
import type { Migration } from "./index.ts";

const statements = [
  // Logged, although answers can be had again and unlogged rows are written some 20 % faster (measured): an unlogged
  // table is empty after a crash and on every standby, and answers of language models cost money. Writes do not wait for
  // the disk instead.
  `CREATE TABLE response_cache (
    cache text COLLATE "C" NOT NULL,
    -- SHA-256: keys may be of any length, and nobody has to read them.
    key_digest bytea NOT NULL CHECK (octet_length(key_digest) = 32),
    -- Signed, with everything that matters inside; the other columns only serve to find rows.
    sealed bytea NOT NULL,
    tags text[] NOT NULL,
    -- How far the writer had seen the purges before the answer was asked for.
    position bigint NOT NULL,
    keep_until timestamptz NOT NULL,
    PRIMARY KEY (cache, key_digest)
  )`,
  `CREATE INDEX response_cache_keep_until ON response_cache (keep_until)`,
  `CREATE INDEX response_cache_tags ON response_cache USING gin (tags)`,

  // A row hides all entries that it matches and whose position is before its sequence, also those that are written later.
  `CREATE TABLE response_cache_purges (
    cache text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL CHECK (scope IN ('all', 'tag', 'key')),
    -- The tag, or the digest of the key in hexadecimal.
    subject text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cache, scope, subject)
  )`,
  `CREATE SEQUENCE response_cache_purge_sequence`,
];

/** Answers that are kept beyond the process, and what of them was purged. */
export const responseCacheMigration: Migration = {
  name: "0004-response-cache",
  async up(db) {
    for (const statement of statements) {
      await sql.raw(statement).execute(db);
    }
  },
};
