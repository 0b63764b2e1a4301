import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";

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
