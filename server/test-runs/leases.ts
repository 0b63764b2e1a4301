import { type TestRun, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { sql } from "kysely";
import type { Database } from "../storage/database.ts";
import type { Announcements } from "./announcements.ts";
import { type RunRow, toRun } from "./messages.ts";

/** How long a replica that does not say that it lives keeps its runs, in milliseconds. */
export const OWNER_LEASE_MS = 15_000;
/** When it is to say so. */
export const OWNER_RENEWAL_MS = 5_000;

/** A run of the server that this replica has to run now. */
export interface ClaimedRun {
  readonly run: TestRun;
  /** As it was given to `Runs.create`. */
  readonly plan: Uint8Array;
}

/** How many runs of a project may run at once, on all replicas together. */
export interface ProjectCap {
  readonly project: string;
  readonly maxConcurrent: number;
}

/** Which replica runs what. */
export interface Leases {
  /**
   * Takes runs that wait, the oldest first. From then on they belong to this replica for `OWNER_LEASE_MS`, and again from
   * each renewal; one that is not renewed is ended by whichever replica notices.
   */
  claimQueued(projects: readonly ProjectCap[], limit: number): Promise<readonly ClaimedRun[]>;
  /** Returns those of the runs that are still this replica's; the others have ended, and their runners are to be stopped. */
  renew(runIds: readonly string[]): Promise<RenewedLeases>;
  /** Calls back when runs may have come to wait, or when one has ended that others waited for; returns how to stop that. */
  onQueued(callback: () => void): () => void;
  /** Calls back when a run of this replica is to be cancelled. It may be called more than once for a run. */
  onCancel(callback: (runId: string, message: string) => void): () => void;
}

export interface RenewedLeases {
  readonly held: ReadonlySet<string>;
}

export interface LeasesOptions {
  readonly database: Pick<Database, "kysely">;
  readonly announcements: Announcements;
  /** Names this replica among all, anew with each start. */
  readonly replica: string;
}

/** Held by whoever claims, so that two who count at once do not both find room. Any number that nobody else uses. */
const CLAIM_LOCK = 7_466_001;

export function createLeases({ database, announcements, replica }: LeasesOptions): Leases {
  const { kysely } = database;
  const cancelListeners = new Set<(runId: string, message: string) => void>();

  /** Tells of the runs of this replica that are to be cancelled. */
  async function tellCancelled(): Promise<void> {
    if (cancelListeners.size === 0) {
      return;
    }
    const rows = await kysely
      .selectFrom("test_runs")
      .select(["id", "cancel_message"])
      .where("end_time", "is", null)
      .where("owner", "=", replica)
      .where("cancel_message", "is not", null)
      .execute();
    for (const { id, cancel_message } of rows) {
      for (const listener of [...cancelListeners]) {
        listener(id, cancel_message ?? "");
      }
    }
  }

  announcements.subscribe((news) => {
    if (news === undefined || news.kind === "cancel") {
      // A failure is made good by the next renewal.
      tellCancelled().catch(() => undefined);
    }
  });

  return {
    claimQueued(projects, limit) {
      return kysely.transaction().execute(async (transaction) => {
        await sql`SELECT pg_advisory_xact_lock(${CLAIM_LOCK})`.execute(transaction);
        const { rows } = await sql<RunRow>`
          WITH cap AS (
            SELECT * FROM unnest(
              ${projects.map(({ project }) => project)}::text[],
              ${projects.map(({ maxConcurrent }) => maxConcurrent)}::integer[]
            ) AS cap (project, max_concurrent)
          ), claimable AS (
            SELECT number, row_number() OVER (PARTITION BY project ORDER BY number) AS place, max_concurrent - (
              SELECT count(*) FROM test_runs AS other
              WHERE other.end_time IS NULL AND other.project = run.project AND other.owner IS NOT NULL
            ) AS room
            FROM test_runs AS run JOIN cap USING (project)
            WHERE end_time IS NULL AND state = ${TestRunState.QUEUED} AND owner IS NULL AND cancel_message IS NULL
          )
          UPDATE test_runs SET owner = ${replica}, lease_until = now() + lease_ms * interval '1 ms'
          WHERE number IN (SELECT number FROM claimable WHERE place <= room ORDER BY number LIMIT ${limit})
          RETURNING *
        `.execute(transaction);
        return rows
          .toSorted((a, b) => Number(a.number) - Number(b.number))
          .map((row) => ({ run: toRun(row), plan: row.plan ?? new Uint8Array() }));
      });
    },

    async renew(runIds) {
      // Rows that are locked are being appended to, which renews them; to wait for them could be a deadlock.
      await sql`
        UPDATE test_runs SET lease_until = now() + lease_ms * interval '1 ms'
        WHERE number IN (
          SELECT number FROM test_runs
          WHERE id = ANY (${runIds}::text[]) AND owner = ${replica} AND end_time IS NULL FOR UPDATE SKIP LOCKED
        )
      `.execute(kysely);
      const held = await kysely
        .selectFrom("test_runs")
        .select("id")
        .where(sql<boolean>`id = ANY (${runIds}::text[])`)
        .where("owner", "=", replica)
        .where("end_time", "is", null)
        .execute();
      await tellCancelled();
      return { held: new Set(held.map(({ id }) => id)) };
    },

    onQueued: (callback) =>
      announcements.subscribe((news) => {
        if (news === undefined || news.kind === "queued" || news.kind === "ended") {
          callback();
        }
      }),

    onCancel(callback) {
      const own = (runId: string, message: string) => callback(runId, message);
      cancelListeners.add(own);
      return () => cancelListeners.delete(own);
    },
  };
}
