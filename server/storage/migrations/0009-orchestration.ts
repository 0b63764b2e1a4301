import { sql } from "kysely";
import type { Migration } from "./index.ts";

const statements = [
  // Updated with every batch of events: columns that change then have no index, and pages have room for a new version.
  `CREATE TABLE runs (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    kind smallint NOT NULL,
    title text NOT NULL,
    -- The workflow or the agents, for those who look for their runs.
    names text[] COLLATE "C" NOT NULL,
    workflow_version integer NOT NULL,
    state smallint NOT NULL,
    source bytea NOT NULL,
    agents bytea[] NOT NULL,
    input bytea,
    output bytea,
    error bytea,
    labels jsonb NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    principal jsonb NOT NULL,
    request_id text COLLATE "C",
    request_fingerprint text COLLATE "C",
    retry_of text COLLATE "C" NOT NULL,
    parent_run_id text COLLATE "C" NOT NULL,
    depth integer NOT NULL,
    schedule text COLLATE "C" NOT NULL,
    deadline timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    start_time timestamptz,
    end_time timestamptz,
    -- Grows with each claim.
    epoch integer NOT NULL DEFAULT 0,
    -- NULL: nobody has the run.
    worker text COLLATE "C",
    -- The one job by which the run can be claimed, and how often that had been fetched before when it was. NULL: none.
    job_id uuid,
    job_retry integer,
    takeovers integer NOT NULL DEFAULT 0,
    -- Takeovers since a step last ended.
    barren_takeovers integer NOT NULL DEFAULT 0,
    planned boolean NOT NULL DEFAULT false,
    cancel_by text,
    cancel_message text,
    counts bytea NOT NULL DEFAULT '',
    usage bytea NOT NULL DEFAULT '',
    last_sequence bigint NOT NULL,
    UNIQUE (created_by, request_id)
  ) WITH (fillfactor = 70)`,
  `CREATE INDEX runs_names ON runs USING gin (names)`,
  `CREATE INDEX runs_parent ON runs (parent_run_id, number) WHERE parent_run_id <> ''`,
  // Those that wait for a worker (1 is RUN_STATE_QUEUED), and those in progress: there are few.
  `CREATE INDEX runs_queued ON runs (number) WHERE state = 1`,
  `CREATE INDEX runs_open ON runs (number) WHERE end_time IS NULL`,
  `CREATE INDEX runs_end ON runs (end_time)`,

  `CREATE TABLE run_steps (
    run bigint NOT NULL REFERENCES runs ON DELETE CASCADE,
    path text COLLATE "C" NOT NULL,
    -- The order in which the steps of a run were first known.
    position integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    target text NOT NULL,
    state smallint NOT NULL,
    attempts integer NOT NULL,
    -- Attempts that failed and were to be followed by another.
    failures integer NOT NULL DEFAULT 0,
    start_time timestamptz,
    end_time timestamptz,
    wake_time timestamptz,
    output bytea,
    output_bytes bigint NOT NULL DEFAULT 0,
    error bytea,
    fallback boolean NOT NULL DEFAULT false,
    reused boolean NOT NULL DEFAULT false,
    usage bytea,
    child_id text COLLATE "C" NOT NULL DEFAULT '',
    -- NULL: it has not asked a person.
    approval_message text,
    approval_time timestamptz,
    approval_deadline timestamptz,
    -- NULL: nobody has answered.
    answer_time timestamptz,
    answer_approved boolean,
    answer_comment text,
    answer_by text,
    -- The run has taken note of the answer.
    answer_taken boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run, path)
  ) WITH (fillfactor = 70)`,
  `CREATE INDEX run_steps_position ON run_steps (run, position)`,
  `CREATE INDEX run_steps_asking ON run_steps (run, position)
    WHERE approval_message IS NOT NULL AND end_time IS NULL`,

  // Workflows and agents, in versions.
  `CREATE TABLE orchestration_definitions (
    kind smallint NOT NULL,
    name text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    definition bytea NOT NULL,
    etag text COLLATE "C" NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (kind, name, version)
  )`,

  `CREATE TABLE workflow_schedules (
    workflow text COLLATE "C" NOT NULL,
    position integer NOT NULL,
    workflow_version integer NOT NULL,
    cron text NOT NULL,
    time_zone text NOT NULL,
    input bytea,
    -- NULL: it starts nothing any more.
    next_time timestamptz,
    principal jsonb NOT NULL,
    PRIMARY KEY (workflow, position)
  )`,
  `CREATE INDEX workflow_schedules_next ON workflow_schedules (next_time)`,
];

/** Runs with their steps; workflows and agents, and when workflows start by themselves. */
export const orchestrationMigration: Migration = {
  name: "0009-orchestration",
  async up(db) {
    for (const statement of statements) {
      await sql.raw(statement).execute(db);
    }
  },
};
