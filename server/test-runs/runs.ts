import type { TestEvent } from "@toolplane/gen/toolplane/testing/v1/test_event_pb.js";
import type { FileCoverage } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type {
  TestRun,
  TestRunContext,
  TestRunEndReason,
  TestRunOrigin,
  TestSelection,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";

/** A run to be made. */
export interface NewRun {
  readonly origin: TestRunOrigin;
  readonly project: string;
  readonly environment: string;
  readonly framework: string;
  readonly context?: TestRunContext | undefined;
  readonly selection?: TestSelection | undefined;
  /** The id of the principal. */
  readonly createdBy: string;
  /** How long nothing may be reported before the run counts as lost. Not used for runs of the server. */
  readonly silenceMs?: number | undefined;
  /** What the replica that runs it has to know besides; given back by `claimQueued`. Only for runs of the server. */
  readonly plan?: Uint8Array | undefined;
  /** How many runs of the server may wait on all replicas; one more is refused. Only for runs of the server. */
  readonly maxQueued?: number | undefined;
  /** Repeated requests return the same run; the fingerprint tells apart what only has the same id. */
  readonly request?: { readonly id: string; readonly fingerprint: string } | undefined;
}

/** How a runner or a reporter says that a run ended. */
export interface RunOutcome {
  /** UNSPECIFIED: it ran to its end. */
  readonly reason: TestRunEndReason;
  /** The same for people; may be empty. */
  readonly message: string;
  /** Undefined: none, or unknown. */
  readonly exitCode?: number | undefined;
  /** Empty: none. */
  readonly signal?: string | undefined;
}

export interface AppendResult {
  /** Everything of the reporter up to here is durable. */
  readonly position: number;
  /** True: the run was cancelled, and nothing more is to be reported. */
  readonly cancelled: boolean;
}

/**
 * Test runs on all replicas. Everything that happens to a run is an event in its stream; results, coverage and counts
 * are written in the same transaction.
 */
export interface Runs {
  /** A run of the server waits to be claimed; every other one runs. */
  create(run: NewRun): Promise<TestRun>;
  /** Says that the runner was started. Only for runs of the server; once. */
  start(runId: string, context: TestRunContext | undefined): Promise<void>;
  /**
   * Appends what a reporter tells. Times, ids, project and framework of tests are filled in where they are missing.
   *
   * @param firstPosition of the first event among all of this reporter's, from 1
   */
  append(
    runId: string,
    reporter: string,
    firstPosition: number,
    events: readonly TestEvent[],
  ): Promise<AppendResult>;
  /** Ends a run; one that has ended is returned as it is. */
  finish(runId: string, outcome: RunOutcome): Promise<TestRun>;
  /** Throws OUT_OF_RANGE when the reporter has not got so far. */
  requirePosition(runId: string, reporter: string, position: number): Promise<void>;
  /** Adds coverage to a run that has ended. */
  addCoverage(runId: string, files: readonly FileCoverage[]): Promise<TestRun>;
  /**
   * Cancels a run. One that nobody runs ends at once; else whoever runs it is told (see `Leases.onCancel`) and has to
   * `finish` it. One that has ended is returned as it is.
   */
  cancel(runId: string, message: string): Promise<TestRun>;
  /** Throws NOT_FOUND. */
  get(runId: string): Promise<TestRun>;
  /** The run when it has ended, or as it is after `ms`. */
  waitForEnd(runId: string, ms: number, signal: AbortSignal): Promise<TestRun>;
}
