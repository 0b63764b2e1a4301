import { randomUUID } from "node:crypto";
import { type Clock, DomainError, type Logger, type Principal } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type {
  ListRunStepsRequest,
  RunFilter,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import {
  type Run,
  RunSchema,
  type RunSource,
  type RunStep,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { EventLog } from "../event-log/event-log.ts";
import { createRunEndWaiter } from "../event-streams/run-end.ts";
import type { Database } from "../storage/database.ts";
import type { RunJobs } from "./jobs.ts";
import type { RunAnnouncements } from "./store/announcements.ts";
import { resolveApproval } from "./store/approvals.ts";
import { cancelRun } from "./store/cancel.ts";
import { type EventEncoder, toldRun } from "./store/events.ts";
import { findRequested, firstRun, insertRun } from "./store/new-run.ts";
import { createRunQueries } from "./store/queries.ts";
import type { Redactor } from "./store/redact.ts";
import { encodeJson } from "./store/rows.ts";
import { findTakenSteps } from "./store/taken-steps.ts";

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
  /** What it was started with, without secrets. Throws NOT_FOUND. */
  source(runId: string): Promise<RunSource>;
  /** The same as it runs, with the agents that it names. Throws NOT_FOUND. */
  pinned(runId: string): Promise<Pick<NewRun, "source" | "agents">>;
  /** The run that the same request has made before. Throws INVALID_ARGUMENT when only its id is the same. */
  requested(run: Pick<NewRun, "principal" | "request">): Promise<Run | undefined>;
  /** On whose behalf it runs, and how many runs stand above it. Throws NOT_FOUND. */
  origin(runId: string): Promise<{ readonly principal: Principal; readonly depth: number }>;
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

export interface RunsOptions {
  readonly database: Pick<Database, "kysely">;
  readonly eventLog: EventLog;
  readonly jobs: Pick<RunJobs, "send">;
  readonly announcements: RunAnnouncements;
  readonly redactor: Redactor;
  readonly encoder: EventEncoder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How many runs may wait for a worker, on all replicas together. */
  readonly maxQueuedRuns: number;
  readonly maxEventsPerRun: number;
}

/** Somebody has made the same request at the same time. */
class RepeatedRequestError extends Error {}

export function createRuns(options: RunsOptions): Runs {
  const { database, eventLog, jobs, announcements, redactor, encoder, clock, maxQueuedRuns } = options;
  const { kysely } = database;
  const { get, source, pinned, origin, list, listSteps } = createRunQueries(database, redactor);

  async function requested(run: Pick<NewRun, "principal" | "request">): Promise<Run | undefined> {
    const known = await findRequested(kysely, run);
    return known && (await get(known.id));
  }

  async function createRun(run: NewRun): Promise<Run> {
    const known = await requested(run);
    if (known !== undefined) {
      return known;
    }
    const taken = run.retry && (await findTakenSteps(kysely, run.retry.of, run.retry.anew));
    const nowMs = clock.now();
    const first = firstRun(run, randomUUID(), nowMs, taken);
    const jobId = randomUUID();
    const told = toldRun(first, { input: first.input ? encodeJson(first.input) : null, output: null });
    await kysely.transaction().execute((transaction) => eventLog.create(transaction, first.id));
    try {
      await eventLog.append({
        stream: first.id,
        events: [encoder.event({ case: "created", value: told }, nowMs)],
        async project(transaction) {
          if (!(await insertRun(transaction, { run, first, jobId, maxQueuedRuns, taken }))) {
            throw new RepeatedRequestError();
          }
          await jobs.send(transaction, { id: jobId, runId: first.id, depth: run.parent?.depth });
        },
      });
    } catch (error) {
      return await afterFailedCreation(error, run, first.id);
    }
    return redactor.message(RunSchema, first);
  }

  /** The run that there is after all, or the error. Leaves no stream without a run behind where that is certain. */
  async function afterFailedCreation(error: unknown, run: NewRun, id: string): Promise<Run> {
    const isRepeated = error instanceof RepeatedRequestError;
    if (isRepeated || (error instanceof DomainError && error.init.reason === "RUN_QUEUE_FULL")) {
      await kysely.transaction().execute((transaction) => eventLog.remove(transaction, [id]));
    }
    const known = isRepeated ? await requested(run) : undefined;
    if (known === undefined) {
      throw error;
    }
    return known;
  }

  const waitForEnd = createRunEndWaiter({ announcements, clock, get });

  return {
    create: createRun,
    get,
    source,
    pinned,
    requested,
    origin,
    waitForEnd,
    list,
    listSteps,
    async cancel(runId, by, message) {
      await cancelRun(options, runId, { by, message });
      return await get(runId);
    },
    async resolveApproval(runId, path, answer) {
      await resolveApproval(options, runId, path, answer);
      return await get(runId);
    },
  };
}
