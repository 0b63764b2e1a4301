import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import pg from "pg";
import { codeOf } from "./error-code.ts";

/**
 * Translates what goes wrong between us and PostgreSQL into errors that a caller can act upon. Errors that say something
 * about the statement itself (a constraint, a syntax error) are returned as they are: only the store that wrote the
 * statement knows what they mean.
 */
export function toDatabaseError(error: unknown): unknown {
  if (error instanceof DomainError) {
    return error;
  }
  if (error instanceof pg.DatabaseError) {
    return fromSqlState(error.code ?? "", error) ?? error;
  }
  return isConnectionError(error) ? databaseUnavailable("the database cannot be reached", error) : error;
}

/** Whether nothing more can be done over the connection that the error came from. */
export function endsSession(error: unknown): boolean {
  return error instanceof pg.DatabaseError
    ? error.severity === "FATAL" || error.severity === "PANIC"
    : isConnectionError(error);
}

/** The database does not answer now and is expected to be back soon. */
export function databaseUnavailable(message: string, cause?: unknown): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "DATABASE_UNAVAILABLE",
    message: `${message}; try again`,
    retryAfterMs: 1_000,
    cause,
  });
}

/** The database has no room left to write. */
export function diskFull(cause?: unknown): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "DISK_FULL",
    message: "the database's disk is full: nothing can be written until space is freed",
    retryAfterMs: 10_000,
    cause,
  });
}

/** SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html */
function fromSqlState(state: string, cause: pg.DatabaseError): DomainError | undefined {
  switch (state) {
    case "53100": // disk_full
      return diskFull(cause);
    case "40001": // serialization_failure
    case "40P01": // deadlock_detected
    case "55P03": // lock_not_available
    case "25P03": // idle_in_transaction_session_timeout
    case "25P04": // transaction_timeout
      return new DomainError({
        code: Code.Aborted,
        reason: "TRANSACTION_ABORTED",
        message: "the change was undone because it collided with another one; try again",
        retryAfterMs: 50,
        cause,
      });
    case "57014": // query_canceled, which is what statement_timeout leads to
      return new DomainError({
        code: Code.DeadlineExceeded,
        reason: "DATABASE_TIMEOUT",
        message: "the database did not finish in time",
        cause,
      });
    case "25006": // read_only_sql_transaction: a standby, or a primary that became one
      return databaseUnavailable("the database accepts no writes now", cause);
  }
  const unavailable = ["08", "53", "57", "58", "28", "3D"].includes(state.slice(0, 2));
  return unavailable || endsSession(cause)
    ? databaseUnavailable("the database cannot be used now", cause)
    : undefined;
}

const connectionErrorCodes = new Set([
  "EACCES",
  "EAI_AGAIN",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT",
]);

/** `pg`, `pg-pool` and Kysely's driver tell these apart only by their text. */
const connectionErrorText =
  /^(Connection terminated|timeout e|Query read timeout|Client (was closed|has encountered)|Cannot use a pool|driver has already|Postgres connection has been discarded)/;

function isConnectionError(error: unknown): error is Error {
  if (!(error instanceof Error)) {
    return false;
  }
  return connectionErrorCodes.has(codeOf(error) ?? "") || connectionErrorText.test(error.message);
}
