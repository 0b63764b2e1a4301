import { sql } from "kysely";
import type { Migration } from "./index.ts";

const statements = [
  // One row. Whoever changes the registry takes the next revision from it, and with it the row's lock: revisions are
  // committed in their order, so a reader that has seen one has seen all before it.
  `CREATE TABLE registry_head (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    revision bigint NOT NULL,
    -- Changes up to this revision are forgotten.
    pruned_revision bigint NOT NULL
  )`,
  `INSERT INTO registry_head (revision, pruned_revision) VALUES (0, 0)`,

  // Which services a revision changed.
  `CREATE TABLE registry_changes (
    revision bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    PRIMARY KEY (revision, name, environment, version)
  )`,

  // Tools and definitions are kept once under the digest of their content, however many services share them.
  `CREATE TABLE registry_tool_sets (
    digest text COLLATE "C" PRIMARY KEY,
    schema_digest text COLLATE "C" NOT NULL,
    bytes bytea NOT NULL
  )`,
  // Tool sets are compressed already.
  `ALTER TABLE registry_tool_sets ALTER COLUMN bytes SET STORAGE EXTERNAL`,
  `CREATE TABLE registry_definitions (
    digest text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL,
    bytes bytea NOT NULL
  )`,

  `CREATE TABLE registry_services (
    name text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    -- A toolplane.registry.v1.ServiceSpec.
    spec bytea NOT NULL,
    tool_set text COLLATE "C" REFERENCES registry_tool_sets,
    definition text COLLATE "C" REFERENCES registry_definitions,
    problems jsonb NOT NULL DEFAULT '[]',
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    discover_time timestamptz,
    revision bigint NOT NULL,
    PRIMARY KEY (name, environment, version)
  )`,
  `CREATE INDEX registry_services_tool_set ON registry_services (tool_set)`,
  `CREATE INDEX registry_services_definition ON registry_services (definition)`,

  `CREATE TABLE registry_instances (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    -- A toolplane.registry.v1.InstanceSpec.
    spec bytea NOT NULL,
    -- A toolplane.registry.v1.HealthStatus.
    health smallint NOT NULL,
    health_message text NOT NULL DEFAULT '',
    health_check_time timestamptz,
    register_time timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (name, environment, version) REFERENCES registry_services ON DELETE CASCADE
  )`,
  `CREATE INDEX registry_instances_service ON registry_instances (name, environment, version)`,

  // Renewed every few seconds, so it is narrow, without further indexes, and leaves room on its pages.
  `CREATE TABLE registry_leases (
    instance_id text COLLATE "C" PRIMARY KEY REFERENCES registry_instances ON DELETE CASCADE,
    ttl_ms integer NOT NULL,
    expires_at timestamptz NOT NULL
  ) WITH (fillfactor = 50)`,

  // The tools that a service offered last, kept when it is gone: what it offers when it comes back is compared to them.
  `CREATE TABLE registry_known_tool_sets (
    name text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    tool_set text COLLATE "C" NOT NULL REFERENCES registry_tool_sets,
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, environment, version)
  )`,
  `CREATE INDEX registry_known_tool_sets_tool_set ON registry_known_tool_sets (tool_set)`,

  `CREATE TABLE registry_health_checks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    status smallint NOT NULL,
    message text NOT NULL,
    latency_us integer NOT NULL,
    time timestamptz NOT NULL
  )`,
  `CREATE INDEX registry_health_checks_service ON registry_health_checks (name, environment, version, id)`,
  `CREATE INDEX registry_health_checks_instance ON registry_health_checks (instance_id, id)`,
  `CREATE INDEX registry_health_checks_time ON registry_health_checks USING brin (time)`,
];

/** Services, their instances, leases and tools, and the history of their health. */
export const registryMigration: Migration = {
  name: "0001-registry",
  async up(db) {
    for (const statement of statements) {
      await sql.raw(statement).execute(db);
    }
  },
};
