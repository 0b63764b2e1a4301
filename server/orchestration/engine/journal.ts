import type { JsonValue } from "@bufbuild/protobuf";
import type { Agent, Usage } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import type { RunSource } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { RunFacts, StepEnd } from "./step.ts";

/** A run that this worker has, with all that is known of it. Workflows and agents in its source are pinned. */
export interface ClaimedRun extends RunFacts {
  readonly number: number;
  /** Grows with each claim; whoever has an older one has lost the run. */
  readonly epoch: number;
  readonly source: RunSource;
  /** Those that the source names. */
  readonly agents: readonly Agent[];
  readonly createTime: number;
  /** When a worker first had it, in milliseconds since 1970. */
  readonly startTime: number;
  /** How often it was taken over from a worker that had died, this time included. */
  readonly takeovers: number;
  /** False when `planned` was told before. */
  readonly isNew: boolean;
  /** Set when it was cancelled before this worker had it. */
  readonly cancelled: { readonly by: string; readonly message: string } | undefined;
  /** What the journal knows of its steps, by path. */
  readonly steps: ReadonlyMap<string, RecordedStep>;
  readonly usage: Usage;
  /** The run that this one retries; empty: none. */
  readonly retryOf: string;
}

/** A step as the journal knows it. */
export interface RecordedStep {
  readonly path: string;
  /** Attempts that were begun. */
  readonly attempts: number;
  /** Attempts of these that failed and were to be followed by another: the number of `stepRetrying`. */
  readonly failures: number;
  /** When it first began, in milliseconds since 1970. */
  readonly startTime: number | undefined;
  /** Undefined while it has not ended. */
  readonly end: StepEnd | undefined;
  /** When it is to go on, in milliseconds since 1970: a retry, the end of a wait, the deadline of an approval. */
  readonly wakeTime: number | undefined;
  readonly approval: ApprovalAnswer | undefined;
}

/** What a person has said, before the step has taken note of it. */
export interface ApprovalAnswer {
  readonly approved: boolean;
  readonly comment: string;
  readonly by: string;
}

/** Takes runs for this worker. */
export interface Claims {
  /**
   * Takes the run of a job that this worker has fetched. Undefined when there is nothing to do for the job: the run has
   * ended or was removed, or has another job by now.
   */
  claim(job: ClaimableJob, worker: string): Promise<Claim | undefined>;
  /** Calls back for runs of this worker that were cancelled; may call more than once. Returns how to stop that. */
  onCancel(callback: (runId: string, by: string, message: string) => void): () => void;
  /** Calls back when an approval of a run was resolved, or may have been (undefined). Returns how to stop that. */
  onAnswer(callback: (runId: string | undefined) => void): () => void;
}

export interface Claim {
  readonly run: ClaimedRun;
  readonly journal: Journal;
  /** Whether the worker that had it has died. */
  readonly isTakeover: boolean;
}

export interface ClaimableJob {
  readonly id: string;
  readonly runId: string;
  /** 0 for the first time that the job was fetched; otherwise whoever had it before has died or let go of it. */
  readonly retryCount: number;
}

/** Something to be recorded. `sequence` and `time` are filled in. */
export interface JournalEntry {
  readonly path: string;
  /** With whole outputs: the journal keeps them with the step and shortens and redacts them in the event. */
  readonly kind: Exclude<RunEvent["kind"], { case: undefined | "created" | "finished" }>;
  /** When the step is to go on, for steps that begin to wait; in milliseconds since 1970. */
  readonly wakeTime?: number | undefined;
}

/** The durable record of a run that this worker has. */
export interface Journal {
  /**
   * Records entries in one transaction, in order with all that was recorded before; what is recorded at the same time
   * shares transactions. Resolves when they are durable. Throws a `LostRunError` once another worker has the run.
   */
  record(entries: readonly JournalEntry[]): Promise<void>;
  /** Sets what models have used up in all; recorded with the next entries. */
  setUsage(total: Usage): void;
  /** Ends the run with its one terminal event, after all that was recorded. Steps that have not ended end as cancelled. */
  finish(end: RunEnd): Promise<void>;
  /**
   * Lets go of the run until `until`, or until an approval is resolved. False when one was resolved meanwhile: the run is
   * still this worker's, and `answers` has it.
   */
  park(until: number | undefined): Promise<boolean>;
  /**
   * Lets go of the run for another worker to go on at once. Attempts that were broken off for this do not count as begun:
   * nobody is to blame for them.
   */
  release(): Promise<void>;
  /** Answers to approvals of this run that have come, by path, also since the claim. */
  answers(): Promise<ReadonlyMap<string, ApprovalAnswer>>;
}

/** How a run ends. */
export type RunEnd =
  | { readonly state: "succeeded"; readonly output: JsonValue }
  /** Tasks and batches have an output although one of them failed. */
  | { readonly state: "failed"; readonly error: unknown; readonly output?: JsonValue | undefined }
  | { readonly state: "cancelled"; readonly by: string; readonly message: string };

/** Another worker has the run; what this one does for it no longer counts. */
export class LostRunError extends Error {
  override readonly name = "LostRunError";
}
