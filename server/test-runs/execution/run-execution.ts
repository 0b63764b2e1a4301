import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  execute,
  type PreparedRunner,
  type Runner,
  RunnerError,
  type RunnerKind,
  type RunnerPlan,
} from "@toolplane/client/runners";
import { type Clock, DomainError, type Logger } from "@toolplane/framework";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { TestProjectSettings } from "../../config/testing.ts";
import type { ClaimedRun } from "../leases.ts";
import type { RunOutcome, Runs } from "../runs.ts";
import { readContext } from "./context.ts";
import { runnerEnvironment } from "./environment.ts";
import { createEventWriter, withPatience } from "./event-writer.ts";
import { decodePlan, type ExecutionPlan } from "./plan.ts";

export interface RunExecutionOptions {
  readonly claimed: ClaimedRun;
  readonly runs: Pick<Runs, "start" | "append" | "finish">;
  /** By name. */
  readonly projects: ReadonlyMap<string, TestProjectSettings>;
  readonly runnerOf: (kind: RunnerKind) => Runner;
  /** The environment of the server, of which runners get what is allowed. */
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A run that this replica runs. */
export interface RunExecution {
  /** Stops the runner; the run ends with this reason. The first call counts. */
  stop(reason: TestRunEndReason, message: string): void;
  /** The run belongs to somebody else by now, or has ended: stops the runner and says nothing more. */
  abandon(): void;
  /** Resolves when the runner is gone and the run has ended. Never rejects. */
  readonly done: Promise<void>;
}

/** Runs a claimed run from its start to its end. */
export function startRunExecution(options: RunExecutionOptions): RunExecution {
  const { claimed, runs, clock, logger } = options;
  const { id } = claimed.run;
  const abort = new AbortController();
  let stopped: RunOutcome | undefined;
  let abandoned = false;

  function stop(reason: TestRunEndReason, message: string): void {
    stopped ??= { reason, message };
    abort.abort();
  }

  async function run(): Promise<void> {
    const outcome = await runToEnd(options, abort.signal).catch((error: unknown) => outcomeOf(error));
    if (!abandoned) {
      await withPatience(clock, () => runs.finish(id, { ...outcome, ...stopped }));
    }
  }

  return {
    stop,
    abandon() {
      abandoned = true;
      abort.abort();
    },
    done: run().catch((error: unknown) => {
      // Its lease ends, and whichever replica notices ends the run.
      logger.warn({ err: error, testRun: id }, "a test run could not be ended");
    }),
  };
}

/** Why a run could not go on. */
function outcomeOf(error: unknown): RunOutcome {
  if (error instanceof RunnerError) {
    return { reason: TestRunEndReason.NOT_STARTED, message: error.message };
  }
  const message = error instanceof Error ? error.message : String(error);
  return error instanceof DomainError
    ? { reason: TestRunEndReason.RUNNER_ERROR, message: `the run was stopped: ${message}` }
    : {
        reason: TestRunEndReason.SERVER_LOST,
        message: "the server could not go on with the run; its log tells why",
      };
}

async function runToEnd(options: RunExecutionOptions, signal: AbortSignal): Promise<RunOutcome> {
  const { claimed, runs, clock, logger } = options;
  const { run } = claimed;
  const project = options.projects.get(run.project);
  const environment = project?.environments.get(run.environment);
  if (project === undefined || environment === undefined) {
    return {
      reason: TestRunEndReason.NOT_STARTED,
      message: `this replica is not configured for environment "${run.environment}" of project "${run.project}"`,
    };
  }
  const plan = decodePlan(claimed.plan);
  const env = runnerEnvironment(project, environment, options.env);
  return await withWorkFolder(async (workFolder) => {
    const runner = options.runnerOf(project.runner);
    const { prepared, spoolFile } = await prepareRunner(runner, project, plan, { env, workFolder });
    const context = await readContext(project, run.context?.labels ?? {}, env);
    await withPatience(clock, () => runs.start(run.id, context));
    const writer = createEventWriter({ runs, runId: run.id, clock });
    try {
      const {
        reason,
        message,
        exitCode,
        signal: by,
      } = await execute({
        prepared,
        directory: project.directory,
        env,
        signal,
        timeoutMs: plan.timeoutMs,
        silenceMs: project.silenceMs,
        spoolFile,
        onEvents: (events) => writer.write(events),
        clock,
      });
      return { reason, message, exitCode, signal: by };
    } catch (error) {
      logger.warn({ err: error, testRun: run.id }, "a test run was stopped");
      throw error;
    }
  });
}

/** Has the runner prepared, with what the project's configuration says besides. Throws a `RunnerError`. */
export async function prepareRunner(
  runner: Runner,
  project: TestProjectSettings,
  { selection, coverage }: Pick<ExecutionPlan, "selection" | "coverage">,
  { env, workFolder }: Pick<RunnerPlan, "env" | "workFolder">,
): Promise<{ readonly prepared: PreparedRunner; readonly spoolFile: string }> {
  const { command, directory } = project;
  const spoolFile = join(workFolder, "events.jsonl");
  const plan = { command, directory, env, selection, coverage, workFolder, spoolFile };
  const prepared = await runner.prepare(plan);
  return {
    prepared: {
      ...prepared,
      reports: [...prepared.reports, ...project.reports],
      coverageFiles: coverage ? [...prepared.coverageFiles, ...project.coverageFiles] : [],
    },
    spoolFile,
  };
}

/** Gives work an empty folder that nobody else may read, and removes it afterwards. */
export async function withWorkFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-run-"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}
