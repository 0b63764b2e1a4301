import { sql } from "kysely";
import type { Migration } from "./index.ts";

const statements = [
  // Updated with every batch of events: no column that changes then has an index, and pages have room for a new version.
  `CREATE TABLE test_runs (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    project text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    framework text COLLATE "C" NOT NULL,
    state smallint NOT NULL,
    origin smallint NOT NULL,
    commit text COLLATE "C" NOT NULL,
    branch text COLLATE "C" NOT NULL,
    labels jsonb NOT NULL,
    context bytea,
    selection bytea,
    created_by text COLLATE "C" NOT NULL,
    request_id text COLLATE "C",
    request_fingerprint text COLLATE "C",
    create_time timestamptz NOT NULL,
    start_time timestamptz,
    end_time timestamptz,
    counts bytea NOT NULL DEFAULT '',
    test_time_us bigint NOT NULL DEFAULT 0,
    last_sequence bigint NOT NULL,
    run_end bytea,
    excluded boolean NOT NULL DEFAULT false,
    coverage bytea,
    plan bytea,
    owner text COLLATE "C",
    lease_ms integer NOT NULL,
    lease_until timestamptz,
    cancel_message text,
    UNIQUE (created_by, request_id)
  ) WITH (fillfactor = 70)`,
  `CREATE INDEX test_runs_project ON test_runs (project, number)`,
  // Those in progress: there are few.
  `CREATE INDEX test_runs_open ON test_runs (number) WHERE end_time IS NULL`,
  `CREATE INDEX test_runs_end ON test_runs (end_time)`,

  `CREATE TABLE test_results (
    run bigint NOT NULL REFERENCES test_runs ON DELETE CASCADE,
    test_id uuid NOT NULL,
    status smallint NOT NULL,
    -- NULL: unknown.
    duration_us bigint,
    attempts integer NOT NULL,
    file text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    identity bytea NOT NULL,
    failure bytea,
    failure_kind integer,
    detail bytea NOT NULL,
    PRIMARY KEY (run, test_id)
  )`,
  // The newest result of a test first: numbers of runs grow with time.
  `CREATE INDEX test_results_test ON test_results (test_id, run)`,

  // Every test that a project has had, for those who look for one.
  `CREATE TABLE test_cases (
    project text COLLATE "C" NOT NULL,
    test_id uuid NOT NULL,
    file text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    PRIMARY KEY (project, test_id)
  )`,

  `CREATE TABLE test_coverage (
    run bigint NOT NULL REFERENCES test_runs ON DELETE CASCADE,
    file text COLLATE "C" NOT NULL,
    lines_total integer NOT NULL,
    lines_covered integer NOT NULL,
    branches_total bigint NOT NULL,
    branches_covered bigint NOT NULL,
    functions_total bigint NOT NULL,
    functions_covered bigint NOT NULL,
    detail bytea NOT NULL,
    PRIMARY KEY (run, file)
  )`,
];

/** Test runs, the results of their tests and what these cover. */
export const testRunsMigration: Migration = {
  name: "0008-test-runs",
  async up(db) {
    for (const statement of statements) {
      await sql.raw(statement).execute(db);
    }
  },
};
