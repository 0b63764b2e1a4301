import { hash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Runner, RunnerError, type RunnerKind, runnerOf } from "@toolplane/client/runners";
import { type Clock, DomainError, invalidArgument, type Logger, notFound } from "@toolplane/framework";
import {
  type TestRun,
  TestRunContextSchema,
  TestRunOrigin,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  type StartTestRunRequest,
  StartTestRunRequestSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { milliseconds } from "../../config/durations.ts";
import type { TestingSettings, TestProjectSettings } from "../../config/testing.ts";
import type { Leases } from "../leases.ts";
import type { Runs } from "../runs.ts";
import { runnerEnvironment } from "./environment.ts";
import { type ExecutionPlan, encodePlan } from "./plan.ts";
import { prepareRunner, startRunExecution, withWorkFolder } from "./run-execution.ts";
import { openRunQueue } from "./run-queue.ts";
import { resolveSelection } from "./selection.ts";
import type { TestLookup } from "./test-lookup.ts";

export interface ExecutionOptions {
  readonly runs: Pick<Runs, "create" | "start" | "append" | "finish">;
  readonly leases: Leases;
  readonly lookup: TestLookup;
  readonly settings: Pick<TestingSettings, "projects" | "maxConcurrentRuns" | "maxQueuedRuns">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of which runners get what is allowed. Default: that of this process. */
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** Default: those of `@toolplane/client/runners`. */
  readonly runnerOf?: ((kind: RunnerKind) => Runner) | undefined;
}

/** A project that can be run, for those who list projects. */
export interface RunnableProject {
  readonly name: string;
  readonly runner: RunnerKind;
  readonly description: string;
  /** The first is the default. */
  readonly environments: readonly string[];
}

/** Runs the tests of configured projects on this replica. */
export interface Execution {
  /** Makes a run, which waits for its turn on some replica. */
  startTestRun(request: StartTestRunRequest, createdBy: string): Promise<TestRun>;
  /** By name. */
  projects(): readonly RunnableProject[];
  /** Ends the runs of this replica. */
  close(): Promise<void>;
}

export function createExecution(options: ExecutionOptions): Execution {
  const { runs, leases, lookup, settings, clock, logger } = options;
  const findRunner = options.runnerOf ?? runnerOf;
  const serverEnv = options.env ?? process.env;
  const queue = openRunQueue({
    leases,
    clock,
    logger,
    maxConcurrentRuns: settings.maxConcurrentRuns,
    projects: [...settings.projects.values()].map(({ name, maxConcurrentRuns }) => ({
      project: name,
      maxConcurrent: maxConcurrentRuns,
    })),
    start: (claimed) =>
      startRunExecution({
        claimed,
        runs,
        projects: settings.projects,
        runnerOf: findRunner,
        env: serverEnv,
        clock,
        logger,
      }),
  });

  return {
    async startTestRun(request, createdBy) {
      const project = findProject(settings, request.project);
      const environment = findEnvironment(project, request.environment);
      const { selection, coverage, labels, requestId } = request;
      const plan: ExecutionPlan = {
        selection: await resolveSelection(selection, project, lookup),
        coverage,
        timeoutMs: Math.min(milliseconds(request.timeout, 0) || project.timeoutMs, project.timeoutMs),
      };
      const env = runnerEnvironment(project, environment.settings, serverEnv);
      await tryPreparing(findRunner(project.runner), project, plan, env);
      return await runs.create({
        origin: TestRunOrigin.SERVER,
        project: project.name,
        environment: environment.name,
        // What a command runs, its reports say.
        framework: project.runner === "command" ? "" : project.runner,
        context: create(TestRunContextSchema, { labels, platform: `${process.platform}/${process.arch}` }),
        selection,
        createdBy,
        plan: encodePlan(plan),
        maxQueued: settings.maxQueuedRuns,
        request: requestId === "" ? undefined : { id: requestId, fingerprint: fingerprint(request) },
      });
    },

    projects: () =>
      [...settings.projects.values()]
        .map(({ name, runner, description, environments }) => ({
          name,
          runner,
          description,
          environments: [...environments.keys()],
        }))
        .sort((a, b) => (a.name < b.name ? -1 : 1)),

    close: () => queue.close(),
  };
}

function findProject({ projects }: Pick<TestingSettings, "projects">, name: string): TestProjectSettings {
  const project = projects.get(name);
  if (project === undefined) {
    throw notFound(
      "test project",
      name,
      projects.size === 0
        ? "this server is not configured to run any; its operator adds them to testing.projects, and reports of runs elsewhere need none"
        : `this server runs ${quoted(projects.keys())}; others can only be reported to it`,
    );
  }
  return project;
}

/** Without a name the first. */
function findEnvironment({ name: project, environments }: TestProjectSettings, wanted: string) {
  for (const [name, settings] of environments) {
    if (wanted === "" || wanted === name) {
      return { name, settings };
    }
  }
  throw notFound("test environment", wanted, `project "${project}" has ${quoted(environments.keys())}`);
}

function quoted(names: Iterable<string>): string {
  return [...names]
    .sort()
    .map((name) => JSON.stringify(name))
    .join(", ");
}

/** Refuses at once what the runner would refuse when it is the run's turn. */
async function tryPreparing(
  runner: Runner,
  project: TestProjectSettings,
  plan: ExecutionPlan,
  env: Readonly<Record<string, string>>,
): Promise<void> {
  try {
    await withWorkFolder((workFolder) => prepareRunner(runner, project, plan, { env, workFolder }));
  } catch (error) {
    if (!(error instanceof RunnerError)) {
      throw error;
    }
    if (error.field !== "command") {
      throw invalidArgument([{ field: `selection.${error.field}`, description: error.message }]);
    }
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "TEST_PROJECT_NOT_RUNNABLE",
      message: `Project "${project.name}" cannot be run: ${error.message}`,
      preconditions: [
        {
          type: "CONFIGURATION",
          subject: "testing.projects.command",
          description: error.message,
        },
      ],
    });
  }
}

/** Tells requests apart that only have the same id. */
function fingerprint(request: StartTestRunRequest): string {
  const labels = Object.fromEntries(Object.entries(request.labels).sort());
  const content = create(StartTestRunRequestSchema, { ...request, labels, requestId: "" });
  return hash("sha256", toBinary(StartTestRunRequestSchema, content, { writeUnknownFields: false }));
}
