import { createHash } from "node:crypto";
import type {
  Claim,
  ClaimRequest,
  ClaimResult,
  IdempotencyStore,
  IdempotentOutcome,
} from "@toolplane/framework/policies";
import { sql } from "kysely";
import type { Database } from "../storage/database.ts";

const CHANNEL = "toolplane_idempotency";
/** What a request may leave behind. Larger outcomes are told once and not kept. */
const MAX_OUTCOME_BYTES = 4 * 2 ** 20;
/** Rows that are forgotten in one statement. */
const FORGET_BATCH = 1_000;

export interface PostgresIdempotencyStore extends IdempotencyStore {
  /** Forgets requests whose time is over, a thousand at most. Returns how many. */
  forgetExpired(): Promise<number>;
  close(): Promise<void>;
}

/**
 * Remembers requests in PostgreSQL, for all replicas. Time is that of the database alone, so clocks need not agree. Each
 * change is one statement; a claim that finds the key taken is two or three.
 */
export async function openIdempotencyStore(
  database: Pick<Database, "kysely" | "listen">,
): Promise<PostgresIdempotencyStore> {
  const { kysely } = database;
  const watchers = new Map<string, Set<() => void>>();
  const subscription = await database.listen(
    CHANNEL,
    (digest) => notify(watchers.get(digest) ?? []),
    // What was sent meanwhile is lost.
    () => notify([...watchers.values()].flatMap((members) => [...members])),
  );

  /** Takes the key if it is free, has expired, or was given up by an owner with the same request. */
  async function take(request: ClaimRequest, key: Buffer): Promise<string | undefined> {
    const { rows } = await sql<{ token: string }>`
      INSERT INTO idempotency_requests AS present (key, fingerprint, state, lease_until, expires_at)
      VALUES (${key}, ${request.fingerprint}, 'working', ${after(request.leaseMs)}, ${after(request.retentionMs)})
      ON CONFLICT (key) DO UPDATE SET
        fingerprint = excluded.fingerprint, token = excluded.token, state = excluded.state, outcome = NULL,
        awaited = false, lease_until = excluded.lease_until, expires_at = excluded.expires_at
      WHERE present.expires_at <= now()
        OR present.state = 'working' AND present.lease_until <= now() AND present.fingerprint = excluded.fingerprint
      RETURNING token
    `.execute(kysely);
    return rows[0]?.token;
  }

  /** Why the key could not be taken; undefined when it has become free since. */
  async function look(request: ClaimRequest, key: Buffer): Promise<ClaimResult | undefined> {
    const row = await kysely
      .selectFrom("idempotency_requests")
      .select(["fingerprint", "token", "state", "outcome", "awaited"])
      .select(sql<number>`extract(epoch FROM lease_until - now())::float8 * 1000`.as("left_ms"))
      .where("key", "=", key)
      .where("expires_at", ">", sql<Date>`now()`)
      .executeTakeFirst();
    if (row === undefined) {
      return undefined;
    }
    if (row.fingerprint !== request.fingerprint) {
      return { kind: "reused" };
    }
    switch (row.state) {
      case "success":
      case "failure":
        return { kind: "completed", outcome: { kind: row.state, bytes: row.outcome ?? new Uint8Array() } };
      case "too-large":
        return { kind: "completed", outcome: undefined };
      case "working": {
        const asked = row.awaited || (await askForNotice(key, row.token));
        return asked && row.left_ms > 0 ? { kind: "busy", leaseLeftMs: row.left_ms } : undefined;
      }
    }
  }

  /** False when the work has ended since: no notice would come. */
  async function askForNotice(key: Buffer, token: string): Promise<boolean> {
    const { numUpdatedRows } = await kysely
      .updateTable("idempotency_requests")
      .set({ awaited: true })
      .where("key", "=", key)
      .where("token", "=", token)
      .where("state", "=", "working")
      .executeTakeFirst();
    return numUpdatedRows > 0n;
  }

  /** The row of a claim that is still held. */
  function held({ key, token }: Claim) {
    return sql`key = ${digestOf(key)} AND token = ${token}::bigint AND state = 'working'`;
  }

  return {
    maxOutcomeBytes: MAX_OUTCOME_BYTES,
    async claim(request) {
      const key = digestOf(request.key);
      for (;;) {
        const token = await take(request, key);
        if (token !== undefined) {
          return { kind: "claimed", claim: { key: request.key, token } };
        }
        const found = await look(request, key);
        if (found !== undefined) {
          return found;
        }
      }
    },
    async renew(claim, leaseMs) {
      const { numAffectedRows = 0n } = await sql`
        UPDATE idempotency_requests SET lease_until = ${after(leaseMs)} WHERE ${held(claim)}
      `.execute(kysely);
      return numAffectedRows > 0n;
    },
    async complete(claim, outcome, retentionMs) {
      const { rows } = await sql`
        WITH ended AS (
          UPDATE idempotency_requests
          SET state = ${stateOf(outcome)}, outcome = ${outcome === undefined ? null : Buffer.from(outcome.bytes)},
            expires_at = ${after(retentionMs)}
          WHERE ${held(claim)}
          RETURNING key, awaited
        )
        SELECT CASE WHEN awaited THEN pg_notify(${CHANNEL}, encode(key, 'hex')) END FROM ended
      `.execute(kysely);
      return rows.length > 0;
    },
    async release(claim) {
      await sql`
        WITH ended AS (DELETE FROM idempotency_requests WHERE ${held(claim)} RETURNING key, awaited)
        SELECT pg_notify(${CHANNEL}, encode(key, 'hex')) FROM ended WHERE awaited
      `.execute(kysely);
    },
    watch(key, onChange) {
      const digest = digestOf(key).toString("hex");
      const members = watchers.get(digest) ?? new Set();
      watchers.set(digest, members.add(onChange));
      return () => {
        if (members.delete(onChange) && members.size === 0) {
          watchers.delete(digest);
        }
      };
    },
    async forgetExpired() {
      const { numAffectedRows = 0n } = await sql`
        DELETE FROM idempotency_requests WHERE key = ANY (ARRAY(
          SELECT key FROM idempotency_requests WHERE expires_at <= now()
          ORDER BY expires_at LIMIT ${FORGET_BATCH} FOR UPDATE SKIP LOCKED
        ))
      `.execute(kysely);
      return Number(numAffectedRows);
    },
    close: () => subscription.close(),
  };
}

function notify(watchers: Iterable<() => void>): void {
  for (const onChange of [...watchers]) {
    onChange();
  }
}

function after(ms: number) {
  return sql`now() + ${ms}::float8 * interval '1 ms'`;
}

function stateOf(outcome: IdempotentOutcome | undefined): "success" | "failure" | "too-large" {
  return outcome?.kind ?? "too-large";
}

/** UTF-16, because not every string has a form in UTF-8 that differs from that of all others. */
function digestOf(key: string): Buffer {
  return createHash("sha256").update(key, "utf16le").digest();
}
