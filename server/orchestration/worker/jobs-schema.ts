import { type Kysely, sql } from "kysely";
import { storageConfigurationError } from "../../storage/configuration-error.ts";
import { codeOf } from "../../storage/error-code.ts";
import type { Tables } from "../../storage/tables.ts";

/** Where the queue of runs is kept. */
export const JOBS_SCHEMA = "toolplane_jobs";

const INSUFFICIENT_PRIVILEGE = "42501";

/** To make a schema that exists takes a privilege that whoever was given the schema need not have. */
export async function hasSchema(kysely: Kysely<Tables>): Promise<boolean> {
  const { rows } = await sql<{ found: boolean }>`
    SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = ${JOBS_SCHEMA}) AS found
  `.execute(kysely);
  return rows[0]?.found === true;
}

/** The error, or FAILED_PRECONDITION that says what to grant when the database refused for want of a privilege. */
export async function explainRefusal(error: unknown, kysely: Kysely<Tables>): Promise<unknown> {
  if (codeOf(error) !== INSUFFICIENT_PRIVILEGE) {
    return error;
  }
  const { rows } = await sql<{ role: string; database: string }>`
    SELECT quote_ident(current_user) AS role, quote_ident(current_database()) AS database
  `.execute(kysely);
  const { role = "the user", database = "the database" } = rows[0] ?? {};
  const remedy = (await hasSchema(kysely))
    ? `ALTER SCHEMA ${JOBS_SCHEMA} OWNER TO ${role}, with all that is in it`
    : `GRANT CREATE ON DATABASE ${database} TO ${role}, or CREATE SCHEMA ${JOBS_SCHEMA} AUTHORIZATION ${role}`;
  return storageConfigurationError(
    "DATABASE_SCHEMA_REFUSED",
    "TOOLPLANE_DATABASE_URL",
    `TOOLPLANE_DATABASE_URL: ${role} may not use schema ${JOBS_SCHEMA}, where the queue of runs is kept; as an administrator: ${remedy}`,
    error,
  );
}
