import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { Kysely, sql } from "kysely";
import pg from "pg";
import type { Logger } from "pino";
import { createDialect } from "./dialect.ts";
import type { Migration } from "./migrations/index.ts";

/** Steps that are applied at once by one process keep all others waiting for no longer than this. */
const LOCK_TIMEOUT = "5min";
/** The pair of numbers that stands for changing the schema. */
const MIGRATION_LOCK = [0x746f6f6c, 2] as const;

/**
 * Brings the database to the schema that the code wants. Of several processes that start at once, one applies the steps and
 * the others wait for it.
 */
export async function migrate(
  config: pg.ClientConfig,
  db: Kysely<unknown>,
  steps: readonly Migration[],
  logger: Logger,
): Promise<void> {
  assertOrdered(steps);
  const table = await sql<{ found: boolean }>`
    select to_regclass('toolplane_migrations') is not null as found`.execute(db);
  if (table.rows[0]?.found && pending(steps, await appliedNames(db)).length === 0) {
    return;
  }
  // A session of its own, because changing a large table may take longer than the pool lets a statement run.
  const pool = new pg.Pool({ ...config, max: 1, connectionTimeoutMillis: 5_000 });
  pool.on("error", (error) => logger.debug({ err: error }, "lost the session that changes the schema"));
  pool.on("connect", (client) => client.on("error", () => undefined)); // the statement fails too, and says so
  const own = new Kysely<unknown>({ dialect: createDialect(pool, () => undefined) });
  try {
    await own.transaction().execute(async (transaction) => {
      await sql`set local lock_timeout = ${sql.lit(LOCK_TIMEOUT)}`.execute(transaction);
      await sql`set local statement_timeout = 0`.execute(transaction);
      await sql`set local idle_in_transaction_session_timeout = 0`.execute(transaction);
      await sql`select pg_advisory_xact_lock(${MIGRATION_LOCK[0]}::int, ${MIGRATION_LOCK[1]}::int)`.execute(
        transaction,
      );
      await sql`create table if not exists toolplane_migrations (
        name text primary key,
        applied_at timestamptz not null default now()
      )`.execute(transaction);
      for (const step of pending(steps, await appliedNames(transaction))) {
        await step.up(transaction);
        await sql`insert into toolplane_migrations (name) values (${step.name})`.execute(transaction);
        logger.info({ migration: step.name }, "changed the database schema");
      }
    });
  } finally {
    await pool.end();
  }
}

async function appliedNames(db: Kysely<unknown>): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`select name from toolplane_migrations order by name`.execute(
    db,
  );
  return rows.map((row) => row.name);
}

function pending(steps: readonly Migration[], applied: readonly string[]): Migration[] {
  const known = new Set(steps.map((step) => step.name));
  const unknown = applied.filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "DATABASE_NEWER",
      message: `the database was changed by a newer Toolplane (${unknown.join(", ")}); start that version or a later one`,
    });
  }
  const done = new Set(applied);
  return steps.filter((step) => !done.has(step.name));
}

function assertOrdered(steps: readonly Migration[]): void {
  steps.forEach((step, index) => {
    const previous = steps[index - 1];
    if (!/^\d{4}-[a-z0-9-]+$/.test(step.name) || (previous !== undefined && previous.name >= step.name)) {
      throw new Error(`migration "${step.name}" is misnamed or out of order`);
    }
  });
}
