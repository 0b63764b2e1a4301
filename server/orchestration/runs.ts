import type { Principal } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type {
  ListRunStepsRequest,
  RunFilter,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { Run, RunSource, RunStep } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";

/** A run to be made. Its source is checked, and what it names (workflows, agents) is pinned. */
export interface NewRun {
  readonly source: RunSource;
  /** Those that the source names, at the versions that it names. */
  readonly agents: readonly Agent[];
  readonly title: string;
  readonly workflowVersion: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly principal: Principal;
  /** Counted from now, in milliseconds. */
  readonly timeoutMs: number;
  /** Repeated requests return the same run; the fingerprint tells apart what only has the same id. */
  readonly request?: { readonly id: string; readonly fingerprint: string } | undefined;
  readonly parent?: { readonly runId: string; readonly depth: number } | undefined;
  /** The name of the workflow whose schedule starts it. */
  readonly schedule?: string | undefined;
  /** Takes over steps of a run that has ended, with what is below them, except for these and what is below them. */
  readonly retry?: { readonly of: string; readonly anew: ReadonlySet<string> } | undefined;
}

/** Runs on all replicas. Errors are DomainErrors. */
export interface Runs {
  /** Records a run and the job for a worker. Throws RESOURCE_EXHAUSTED, reason `RUN_QUEUE_FULL`. */
  create(run: NewRun): Promise<Run>;
  /** Throws NOT_FOUND. */
  get(runId: string): Promise<Run>;
  /** What it was started with, pinned. Throws NOT_FOUND. */
  source(runId: string): Promise<RunSource>;
  /** Who started it. Throws NOT_FOUND. */
  owner(runId: string): Promise<string>;
  /** The run when it has ended, or as it is after `ms`. */
  waitForEnd(runId: string, ms: number, signal: AbortSignal): Promise<Run>;
  list(filter: RunFilter | undefined, page: PageRequest): Promise<Page<Run>>;
  listSteps(request: ListRunStepsRequest): Promise<Page<RunStep>>;
  /** One that no worker has ends at once; else its worker is told. One that has ended is returned as it is. */
  cancel(runId: string, by: string, message: string): Promise<Run>;
  /** Records a person's answer and lets the run go on. `path` may be empty when the run waits for one approval only. */
  resolveApproval(
    runId: string,
    path: string,
    answer: { approved: boolean; comment: string; by: string },
  ): Promise<Run>;
}

export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** Empty: there is no further page. */
  readonly nextPageToken: string;
}
