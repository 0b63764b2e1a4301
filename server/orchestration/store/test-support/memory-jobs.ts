import type { ClaimableJob } from "../../engine/journal.ts";
import type { RunJobs } from "../../jobs.ts";

/** Stands in for the queue of jobs: it knows what was sent, even where the transaction was undone. */
export interface MemoryJobs extends Pick<RunJobs, "send"> {
  readonly sent: readonly {
    readonly id: string;
    readonly runId: string;
    readonly startAfter?: number | undefined;
  }[];
  /** The last job that was sent for a run. */
  lastOf(runId: string, retryCount?: number): ClaimableJob;
}

export function createMemoryJobs(): MemoryJobs {
  const sent: Parameters<RunJobs["send"]>[1][] = [];
  return {
    sent,
    async send(_, job) {
      sent.push(job);
    },
    lastOf(runId, retryCount = 0) {
      const job = sent.findLast((other) => other.runId === runId);
      if (job === undefined) {
        throw new Error(`no job was sent for run ${runId}`);
      }
      return { id: job.id, runId, retryCount };
    },
  };
}
