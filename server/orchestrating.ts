import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Clock, HttpHandler, Logger } from "@toolplane/framework";
import type { ResponseCache } from "@toolplane/framework/policies";
import { type RunSource, RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { RunSource as RunMetrics } from "./admin/admin.ts";
import { createSecretValues } from "./config/secrets.ts";
import type { Settings } from "./config/settings.ts";
import type { EventLog } from "./event-log/event-log.ts";
import { createToolCalling } from "./orchestration/actions/tool-calling.ts";
import type { Children } from "./orchestration/actions/workflow.ts";
import { createWorks } from "./orchestration/actions/works.ts";
import { definitionHandlers } from "./orchestration/definitions/handlers.ts";
import { agentKind, workflowKind } from "./orchestration/definitions/kinds.ts";
import { prepareRun } from "./orchestration/definitions/prepare.ts";
import { createDefinitions } from "./orchestration/definitions/store.ts";
import { createEngine } from "./orchestration/engine/driver.ts";
import { createAppendMeter } from "./orchestration/metering/append-meter.ts";
import { createModelMeter } from "./orchestration/metering/model-meter.ts";
import { countOpenRuns } from "./orchestration/metering/open-runs.ts";
import { createRunMeter } from "./orchestration/metering/run-meter.ts";
import { createModelGateway } from "./orchestration/models/gateway.ts";
import { createModelWorks } from "./orchestration/models/model-works.ts";
import type { Runs } from "./orchestration/runs.ts";
import { runRoutes } from "./orchestration/service.ts";
import { runEventsOverHttp } from "./orchestration/sse.ts";
import { createRunStarter, type RunStarter } from "./orchestration/starter.ts";
import { createRedactor } from "./orchestration/store/redact.ts";
import { openRunStore } from "./orchestration/store/run-store.ts";
import { createRunWatchers } from "./orchestration/watch.ts";
import { openRunJobs } from "./orchestration/worker/pg-boss-jobs.ts";
import { startRunRetention } from "./orchestration/worker/retention.ts";
import {
  checkSchedule,
  deleteSchedules,
  nextTimes,
  putSchedules,
  type ScheduledStart,
  startSchedules,
} from "./orchestration/worker/schedules.ts";
import { startWorker, type Worker } from "./orchestration/worker/worker.ts";
import { createWorkflowValidator } from "./orchestration/workflows/validation.ts";
import { type Part, PartsInReverse } from "./parts.ts";
import type { Registry } from "./registry/registry.ts";
import type { Database } from "./storage/database.ts";
import type { Caller } from "./tools/caller.ts";
import { version as serverVersion } from "./version.ts";

export interface OpenOrchestratingOptions {
  readonly settings: Settings;
  readonly database: Database;
  readonly eventLog: EventLog;
  readonly registry: Registry;
  readonly caller: Caller;
  /** Keeps answers of agents. Undefined: nothing does. */
  readonly answers: ResponseCache | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Where keys of models are read from. */
  readonly env: NodeJS.ProcessEnv;
}

/** Runs with all that answers `toolplane.orchestration.v1.OrchestrationService`. */
export interface Orchestrating extends Part {
  readonly routes: (router: ConnectRouter) => void;
  /** `/runs/{id}/events`. */
  readonly http: HttpHandler;
  /** For those who operate the server. */
  readonly metrics: RunMetrics;
  /** Works on runs from now on: tools of this server have to be registered before. */
  begin(): void;
  /** Lets go of runs, for other replicas to go on with, and ends all watching. */
  drain(): Promise<void>;
}

export async function openOrchestrating(options: OpenOrchestratingOptions): Promise<Orchestrating> {
  const { database, eventLog, registry, caller, answers, clock, logger, env } = options;
  const { orchestration: settings, tools, secrets } = options.settings;
  const { kysely } = database;
  const parts = new PartsInReverse();
  try {
    const runMeter = createRunMeter();
    const modelMeter = createModelMeter(clock);
    const appendMeter = createAppendMeter(clock);
    const gateway = modelMeter.metered(parts.own(createModelGateway({ settings, env, clock, logger })));
    const jobs = parts.own(await openRunJobs({ database, clock, logger }));
    const keys = [...settings.providers.values()].flatMap(({ apiKey }) => apiKey ?? []);
    const operatorKey = options.settings.auth.operatorKey ?? [];
    const secretValues = createSecretValues([...secrets, ...keys].concat(operatorKey), env, clock);
    const { runs, claims } = parts.own(
      await openRunStore({
        ...settings,
        database,
        eventLog: appendMeter.metered(eventLog),
        jobs,
        clock,
        logger,
        secrets: secretValues,
      }),
    );
    const workflows = createDefinitions({
      database,
      clock,
      kind: workflowKind,
      onPut: (transaction, workflow, by) => putSchedules(transaction, workflow, by, clock.now()),
      onDelete: deleteSchedules,
    });
    const agents = createDefinitions({ database, clock, kind: agentKind });
    const validator = createWorkflowValidator({ registry, workflows, agents, checkSchedule });
    const starter = createRunStarter({
      runs,
      maxDepth: settings.maxDepth,
      prepare: (source) => prepareRun(source, { ...settings, workflows, agents, validator, gateway }),
    });
    const calling = createToolCalling({ caller, registry, maxResultBytes: tools.maxResultBytes, clock });
    const engine = createEngine({
      ...settings,
      works: createWorks({
        ...settings,
        toolCalling: calling,
        version: serverVersion,
        children: childrenOf(runs, starter),
        modelWorks: createModelWorks({
          gateway,
          tools: registry,
          calling,
          cache: answers,
          redactor: createRedactor(secretValues),
          settings,
          clock,
          logger,
        }),
        clock,
      }),
      clock,
      logger,
      random: Math.random,
    });
    const watchers = createRunWatchers({ runs, eventLog });
    parts.own(startRunRetention({ ...settings, database, eventLog, clock, logger }));
    let worker: Worker | undefined;
    return {
      routes: runRoutes({
        runs,
        starter,
        watchers,
        clock,
        definitions: definitionHandlers({
          workflows,
          agents,
          validator,
          nextTimes: (workflow) => nextTimes(kysely, workflow),
        }),
      }),
      metrics: {
        open: () => countOpenRuns(database),
        stats: () => ({
          ...runMeter.stats(),
          active: worker?.active ?? 0,
          watchers: watchers.size,
          models: modelMeter.stats(),
          appends: appendMeter.stats(),
        }),
      },
      http: runEventsOverHttp({ runs, watchers, clock, logger }),
      begin() {
        worker = parts.own(
          startWorker({
            ...settings,
            jobs,
            claims: runMeter.metered(claims),
            engine,
            clock,
            logger,
            name: randomUUID(),
          }),
        );
        parts.own(
          startSchedules({ database, startRun: (start) => startScheduled(starter, start), clock, logger }),
        );
      },
      async drain() {
        watchers.drain();
        await worker?.drain();
      },
      close: () => parts.close(),
    };
  } catch (error) {
    await parts.close();
    throw error;
  }
}

/** So long runs are waited for in one go. */
const WAIT_MS = 60_000;

function childrenOf(runs: Runs, starter: RunStarter): Children {
  return {
    start: (name, version, input, { run, idempotencyKey }) =>
      starter.start(workflowSource(name, version, input), {
        principal: run.principal,
        request: { id: idempotencyKey, fingerprint: "child" },
        parent: { runId: run.id, depth: run.depth + 1 },
      }),
    async wait(runId, signal) {
      for (;;) {
        const run = await runs.waitForEnd(runId, WAIT_MS, signal);
        signal.throwIfAborted();
        if (run.endTime !== undefined) {
          return run;
        }
      }
    },
    cancel: (runId, by, message) => runs.cancel(runId, by, message),
  };
}

function startScheduled(starter: RunStarter, start: ScheduledStart) {
  const { workflow, version, input, principal, requestId } = start;
  return starter.start(workflowSource(workflow, version, input), {
    principal,
    schedule: workflow,
    request: { id: requestId, fingerprint: "schedule" },
  });
}

function workflowSource(name: string, version: number, input: ScheduledStart["input"]): RunSource {
  return create(RunSourceSchema, {
    kind: {
      case: "workflow",
      value: { workflow: { case: "name", value: name }, version, ...(input && { input }) },
    },
  });
}
