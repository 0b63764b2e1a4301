import type { Transaction } from "kysely";
import type { Tables } from "../storage/tables.ts";
import type { ClaimableJob } from "./engine/journal.ts";

/**
 * Which runs want a worker: one job a run. A job that was fetched belongs to its worker while `touch` is called; otherwise
 * another one can fetch it.
 */
export interface RunJobs {
  /**
   * Adds a job in the caller's transaction and wakes workers when it is committed.
   *
   * @param job.id a new UUID
   * @param job.depth how many runs wait for this one; default: 0
   * @param job.startAfter when it can be fetched, in milliseconds since 1970; default: now
   */
  send(
    transaction: Transaction<Tables>,
    job: {
      readonly id: string;
      readonly runId: string;
      readonly depth?: number | undefined;
      readonly startAfter?: number | undefined;
    },
  ): Promise<void>;
  /** At most `limit` jobs, from `minDepth` on: the deepest first, since others wait for them, then the oldest. */
  fetch(limit: number, minDepth?: number): Promise<readonly ClaimableJob[]>;
  /** Says that this worker lives. Returns the ids of those that are still its own; the others are other workers'. */
  touch(jobs: readonly ClaimableJob[]): Promise<ReadonlySet<string>>;
  /** Nothing more is to be done for it. Changes nothing when it is no longer this worker's; nor does `release`. */
  complete(job: ClaimableJob): Promise<void>;
  /** Lets another worker have it, at once or from `startAfter` on, in milliseconds since 1970. */
  release(job: ClaimableJob, startAfter?: number): Promise<void>;
  /** Calls back when there may be something to fetch. Returns how to stop that. */
  onWork(callback: () => void): () => void;
  close(): Promise<void>;
}
