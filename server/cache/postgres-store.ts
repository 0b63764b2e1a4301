import { type Clock, systemClock } from "@toolplane/framework";
import type { DurableStore, PurgeScope } from "@toolplane/framework/policies";
import { sql } from "kysely";
import pLimit from "p-limit";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import { storable } from "../storage/text.ts";
import { isTransientDatabaseError } from "../storage/transient.ts";
import { digestOf, purgeChannel, readNotice, subjectOf, writeNotice } from "./purge-notice.ts";
import { type SweepLimits, sweep } from "./sweep.ts";

export interface PostgresCacheStoreOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  readonly logger: Logger;
  /** The most bytes of entries. Default: 1 GiB. */
  readonly maxBytes?: number;
  /** The most entries. Default: 1,000,000. */
  readonly maxRows?: number;
  /** Time between two sweeps, in milliseconds. Default: 60,000. */
  readonly sweepIntervalMs?: number;
  readonly clock?: Clock;
}

/** Entries in PostgreSQL, for all caches and replicas. */
export interface PostgresCacheStore extends DurableStore {
  /** Forgets what is expired, purged or too much, now. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

/** So many connections are busy with reads at most: the database is there for others as well. */
const CONCURRENT_READS = 4;
/** A statement that deletes more than this may hold others up. */
const DELETED_AT_ONCE = 1_000;

/**
 * Opens the store and follows purges from then on.
 *
 * Purges take numbers under a lock, so that they are committed in the order of their numbers: a replica that has seen one
 * has seen all before it. Each entry carries the number its writer had seen, and a purge hides all entries with a
 * smaller number than its own, however late they are written.
 */
export async function openPostgresCacheStore(
  options: PostgresCacheStoreOptions,
): Promise<PostgresCacheStore> {
  const { database, logger, clock = systemClock, sweepIntervalMs = 60_000 } = options;
  const { kysely } = database;
  const limits: SweepLimits = {
    maxBytes: options.maxBytes ?? 2 ** 30,
    maxRows: options.maxRows ?? 1_000_000,
  };
  const followers = new Set<{ readonly cache: string; readonly onPurge: (scope: PurgeScope) => void }>();
  const limitReads = pLimit(CONCURRENT_READS);
  let position = 0;
  let cancelSweep = () => {};
  let sweeping: Promise<void> | undefined;
  let isClosed = false;

  async function readPosition(): Promise<void> {
    // Not what the sequence says, which is ahead of purges that are not committed yet.
    const { rows } = await sql<{ sequence: string }>`
      SELECT coalesce(max(sequence), 0) AS sequence FROM response_cache_purges
    `.execute(kysely);
    position = Math.max(position, Number(rows[0]?.sequence));
  }

  const listening = await database.listen(
    purgeChannel,
    (payload) => {
      const notice = readNotice(payload);
      if (notice === undefined) {
        logger.warn(
          { payload: payload.slice(0, 200) },
          "a purge of answers was announced in an unknown form",
        );
        return;
      }
      position = Math.max(position, notice.sequence);
      for (const { cache, onPurge } of followers) {
        if (cache === notice.cache) {
          onPurge(notice.scope);
        }
      }
    },
    () => {
      for (const { onPurge } of followers) {
        onPurge({ kind: "all" });
      }
      readPosition().catch((error: unknown) => {
        // Until the next purge, what is written may be hidden by one that it should not be hidden by.
        logger.debug({ err: error }, "cannot tell which answers were purged last");
      });
    },
  );
  try {
    await readPosition();
  } catch (error) {
    await listening.close();
    throw error;
  }

  function sweepOnce(): Promise<void> {
    sweeping ??= sweep(kysely, limits, logger).finally(() => {
      sweeping = undefined;
    });
    return sweeping;
  }

  function scheduleSweep(): void {
    cancelSweep = clock.after(sweepIntervalMs, async () => {
      await sweepOnce().catch((error: unknown) => {
        logger.warn({ err: error }, "old answers could not be deleted");
      });
      if (!isClosed) {
        scheduleSweep();
      }
    });
  }
  scheduleSweep();

  return {
    position: () => position,

    read: (cache, key, signal) =>
      limitReads(async () => {
        if (signal.aborted) {
          throw signal.reason;
        }
        const { rows } = await sql<{ sealed: Buffer }>`
          SELECT entry.sealed FROM response_cache AS entry
          WHERE entry.cache = ${cache} AND entry.key_digest = ${digestOf(key)} AND entry.keep_until > now()
            AND NOT EXISTS (
              SELECT FROM (
                SELECT 'all' AS scope, '' AS subject
                UNION ALL SELECT 'key', encode(entry.key_digest, 'hex')
                UNION ALL SELECT 'tag', unnest(entry.tags)
              ) AS meant
              JOIN response_cache_purges AS purge
                ON (purge.cache, purge.scope, purge.subject) = (entry.cache, meant.scope, meant.subject)
              WHERE purge.sequence > entry.position
            )
        `.execute(kysely);
        return rows[0]?.sealed;
      }),

    async write(entries) {
      // Does not wait for the disk: a crash of PostgreSQL forgets the last moments, and damages nothing.
      await sql`
        INSERT INTO response_cache (cache, key_digest, sealed, tags, position, keep_until)
        SELECT entry.cache, entry.key_digest, entry.sealed,
          ARRAY(SELECT jsonb_array_elements_text(entry.tags)), entry.position, to_timestamp(entry.keep_until / 1000)
        FROM unnest(
          ${entries.map(({ cache }) => cache)}::text[],
          ${entries.map(({ key }) => digestOf(key))}::bytea[],
          ${entries.map(({ sealed }) => toBuffer(sealed))}::bytea[],
          ${entries.map(({ tags }) => JSON.stringify(tags.map(storable)))}::jsonb[],
          ${entries.map((entry) => entry.position)}::bigint[],
          ${entries.map(({ keepUntil }) => keepUntil)}::float8[]
        ) AS entry (cache, key_digest, sealed, tags, position, keep_until),
        set_config('synchronous_commit', 'off', true)
        ON CONFLICT (cache, key_digest) DO UPDATE SET
          sealed = excluded.sealed, tags = excluded.tags, position = excluded.position,
          keep_until = excluded.keep_until
        WHERE response_cache.position <= excluded.position
      `.execute(kysely);
    },

    async drop(cache, key, sealed) {
      await kysely
        .deleteFrom("response_cache")
        .where("cache", "=", cache)
        .where("key_digest", "=", digestOf(key))
        .where("sealed", "=", toBuffer(sealed))
        .execute();
    },

    async purge(cache, scope) {
      const subject = subjectOf(scope);
      const sequence = await kysely.transaction().execute(async (tx) => {
        await sql`LOCK TABLE response_cache_purges IN EXCLUSIVE MODE`.execute(tx);
        const { rows } = await sql<{ sequence: string }>`
          INSERT INTO response_cache_purges (cache, scope, subject, sequence)
          VALUES (${cache}, ${scope.kind}, ${subject}, nextval('response_cache_purge_sequence'))
          ON CONFLICT (cache, scope, subject) DO UPDATE SET sequence = excluded.sequence, time = now()
          RETURNING sequence
        `.execute(tx);
        const number = Number(rows[0]?.sequence);
        await sql`SELECT pg_notify(${purgeChannel}, ${writeNotice({ cache, scope, sequence: number })})`.execute(
          tx,
        );
        return number;
      });
      position = Math.max(position, sequence);
      // What is hidden now takes no more room than it has to.
      let purged = 0;
      for (let deleted = DELETED_AT_ONCE; deleted === DELETED_AT_ONCE; purged += deleted) {
        const { numAffectedRows } = await sql`
          DELETE FROM response_cache WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM response_cache
            WHERE cache = ${cache} AND position < ${sequence} AND ${matches(scope)}
            LIMIT ${DELETED_AT_ONCE} FOR UPDATE SKIP LOCKED
          ))
        `.execute(kysely);
        deleted = Number(numAffectedRows ?? 0);
      }
      return purged;
    },

    follow(cache, onPurge) {
      const follower = { cache, onPurge };
      followers.add(follower);
      return () => followers.delete(follower);
    },

    isTransient: isTransientDatabaseError,

    sweep: sweepOnce,

    async close() {
      isClosed = true;
      cancelSweep();
      await sweeping?.catch(() => undefined); // its caller is told
      await listening.close();
    },
  };
}

function matches(scope: PurgeScope) {
  switch (scope.kind) {
    case "all":
      return sql`true`;
    case "tag":
      return sql`tags @> ARRAY[${subjectOf(scope)}]::text[]`;
    case "key":
      return sql`key_digest = ${digestOf(scope.key)}`;
  }
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
