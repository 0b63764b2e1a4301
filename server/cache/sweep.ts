import { type Kysely, sql } from "kysely";
import type { Logger } from "pino";
import type { Tables } from "../storage/tables.ts";

/** What the store may hold. */
export interface SweepLimits {
  readonly maxBytes: number;
  readonly maxRows: number;
}

/** A statement that deletes more than this may hold others up. */
const DELETED_AT_ONCE = 1_000;
/** What is left then is for the next time. */
const MAX_PARTS = 50;
/** No answer is under way for longer, so that after this time no purge has anything more to hide. */
const PURGES_KEPT = "1 day";

/** Forgets entries that are expired, those that are too many, and purges that have nothing more to hide. */
export async function sweep(kysely: Kysely<Tables>, limits: SweepLimits, logger: Logger): Promise<void> {
  const expired = await deleteInParts(kysely, sql`keep_until <= now()`);
  const excess = await deleteExcess(kysely, limits);
  await forgetPurges(kysely);
  if (expired + excess > 0) {
    logger.debug({ expired, excess }, "deleted old answers");
  }
}

async function deleteInParts(kysely: Kysely<Tables>, condition: ReturnType<typeof sql>): Promise<number> {
  let total = 0;
  for (let part = 0; part < MAX_PARTS; part++) {
    const deleted = (await deleteSome(kysely, condition, DELETED_AT_ONCE)).length;
    total += deleted;
    if (deleted < DELETED_AT_ONCE) {
      break;
    }
  }
  return total;
}

/** Deletes entries, first those that end first, and returns the bytes of each. Several replicas may do so at once. */
async function deleteSome(
  kysely: Kysely<Tables>,
  condition: ReturnType<typeof sql>,
  count: number,
): Promise<number[]> {
  const { rows } = await sql<{ bytes: number }>`
    DELETE FROM response_cache WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM response_cache WHERE ${condition} ORDER BY keep_until LIMIT ${count} FOR UPDATE SKIP LOCKED
    ))
    RETURNING octet_length(sealed) AS bytes
  `.execute(kysely);
  return rows.map(({ bytes }) => bytes);
}

/**
 * Which entries were used last is not recorded, since that would make a write of each read: those go that would expire
 * first.
 */
async function deleteExcess(kysely: Kysely<Tables>, { maxBytes, maxRows }: SweepLimits): Promise<number> {
  // Of values that are stored out of line, PostgreSQL knows the length without reading them.
  const { rows } = await sql<{ rows: string; bytes: string }>`
    SELECT count(*) AS rows, coalesce(sum(octet_length(sealed)), 0) AS bytes FROM response_cache
  `.execute(kysely);
  let rowsLeft = Number(rows[0]?.rows);
  let bytesLeft = Number(rows[0]?.bytes);
  let total = 0;
  for (let part = 0; part < MAX_PARTS && (rowsLeft > maxRows || bytesLeft > maxBytes); part++) {
    const average = bytesLeft / rowsLeft;
    const wanted = Math.max(rowsLeft - maxRows, Math.ceil((bytesLeft - maxBytes) / average));
    const deleted = await deleteSome(kysely, sql`true`, Math.min(wanted, DELETED_AT_ONCE));
    if (deleted.length === 0) {
      break;
    }
    rowsLeft -= deleted.length;
    bytesLeft -= deleted.reduce((sum, bytes) => sum + bytes, 0);
    total += deleted.length;
  }
  return total;
}

async function forgetPurges(kysely: Kysely<Tables>): Promise<void> {
  const isOld = sql`time < now() - ${PURGES_KEPT}::interval`;
  const { rows } = await sql`SELECT FROM response_cache_purges WHERE ${isOld} LIMIT 1`.execute(kysely);
  if (rows.length === 0) {
    return;
  }
  const deleted = await deleteInParts(
    kysely,
    sql`EXISTS (
      SELECT FROM response_cache_purges AS purge
      WHERE ${isOld} AND purge.cache = response_cache.cache AND purge.sequence > response_cache.position
        AND (scope = 'all'
          OR (scope = 'key' AND subject = encode(key_digest, 'hex'))
          OR (scope = 'tag' AND subject = ANY (tags)))
    )`,
  );
  if (deleted < DELETED_AT_ONCE * MAX_PARTS) {
    await sql`DELETE FROM response_cache_purges WHERE ${isOld}`.execute(kysely);
  }
}
