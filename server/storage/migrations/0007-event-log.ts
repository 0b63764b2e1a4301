import { sql } from "kysely";
import type { Migration } from "./index.ts";

const statements = [
  `CREATE TABLE event_streams (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    -- The number of the last event; 0: there is none yet.
    last_sequence bigint NOT NULL DEFAULT 0,
    closed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
  ) WITH (fillfactor = 50)`,
  // Not a foreign key, which would be looked up for every event: whoever writes here holds the lock of the stream.
  `CREATE TABLE event_log (
    stream_id bigint NOT NULL,
    sequence bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (stream_id, sequence)
  )`,
  // How many events each writer of a stream has appended.
  `CREATE TABLE event_writers (
    stream_id bigint NOT NULL,
    writer text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (stream_id, writer)
  ) WITH (fillfactor = 50)`,
  // The last transaction of each process that appends, so that it can find out whether one was done whose answer it lost.
  `CREATE TABLE event_appenders (
    id uuid PRIMARY KEY,
    batch bigint NOT NULL,
    previous_batch bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
  ) WITH (fillfactor = 50)`,
];

/** Streams of events. */
export const eventLogMigration: Migration = {
  name: "0007-event-log",
  async up(db) {
    for (const statement of statements) {
      await sql.raw(statement).execute(db);
    }
  },
};
