import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { type Clock, DomainError, invalidArgument, principalOf } from "@toolplane/framework";
import {
  type Project,
  ProjectSchema,
  TestRunOrigin,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  CreateTestRunRequestSchema,
  GetTestCoverageRequestSchema,
  ListProjectsRequestSchema,
  TestResultFilterSchema,
  TestRunFilterSchema,
  TestRunService,
  type WatchTestRunResponse,
  WatchTestRunResponseSchema,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { milliseconds, toDuration } from "../config/durations.ts";
import { fingerprintOf } from "../fingerprint.ts";
import { refuseStranger } from "../ownership.ts";
import { invalidPageToken, pageTokens } from "../page-token.ts";
import { eventsOf, packEvents, withoutOutput } from "./event-bytes.ts";
import { DEFAULT_SILENCE_MS } from "./new-run.ts";
import type { ProjectRuns, ResultPosition, TestRunQueries } from "./queries.ts";
import { RESOURCE } from "./refusals.ts";
import type { RunIdentity } from "./run-writer.ts";
import type { Runs } from "./runs.ts";
import type { RunNews, RunWatchers } from "./watch.ts";

/** The methods that other parts answer. */
export type OtherHandlers = Pick<
  ServiceImpl<typeof TestRunService>,
  "startTestRun" | "importTestResults" | "exportTestResults" | "compareTestRuns" | "getTestHistory"
>;

/** A project that this server can run. */
export interface ConfiguredProject {
  readonly name: string;
  readonly runner: string;
  readonly description: string;
  /** By name, the default first. */
  readonly environments: readonly string[];
}

export interface TestRunRoutesOptions {
  readonly runs: Runs;
  readonly queries: TestRunQueries;
  readonly watchers: RunWatchers;
  readonly clock: Clock;
  readonly others: OtherHandlers;
  readonly projects: readonly ConfiguredProject[];
}

const DEFAULT_ENVIRONMENT = "default";
const DEFAULT_RUNS = 50;
const DEFAULT_PAGE_SIZE = 100;
/** How long CancelTestRun waits for the runner's processes to be gone. */
const CANCEL_PATIENCE_MS = 10_000;

/** The RPC handlers of `toolplane.testing.v1.TestRunService`. */
export function testRunRoutes(options: TestRunRoutesOptions): (router: ConnectRouter) => void {
  const { runs, queries, watchers, clock, others, projects } = options;

  /** Refuses a change to a run by others than whoever made it and operators. */
  async function authorize(runId: string, context: Pick<HandlerContext, "values">): Promise<RunIdentity> {
    const identity = await runs.identify(runId);
    refuseStranger({ type: RESOURCE, ...identity }, principalOf(context.values));
    return identity;
  }

  async function authorizeReport(runId: string, context: Pick<HandlerContext, "values">): Promise<void> {
    const identity = await authorize(runId, context);
    if (identity.origin !== TestRunOrigin.REPORT) {
      throw notReported(runId);
    }
  }

  return (router) => {
    router.service(TestRunService, {
      ...others,

      async createTestRun(request, { values }) {
        const { project, environment, framework, context, selection, requestId } = request;
        const silenceMs = milliseconds(request.silenceTimeout, DEFAULT_SILENCE_MS);
        const run = await runs.create({
          origin: TestRunOrigin.REPORT,
          project,
          environment: environment || DEFAULT_ENVIRONMENT,
          framework,
          context,
          selection,
          createdBy: principalOf(values).id,
          silenceMs,
          ...(requestId !== "" && {
            request: {
              id: requestId,
              fingerprint: fingerprintOf(CreateTestRunRequestSchema, { ...request, requestId: "" }),
            },
          }),
        });
        return { run, silenceTimeout: toDuration(silenceMs) };
      },

      async appendTestEvents({ runId, reporter, firstPosition, events }, context) {
        await authorizeReport(runId, context);
        if (firstPosition === 0n && events.length > 0) {
          throw invalidArgument([
            {
              field: "first_position",
              description: "counts what this reporter sends, from 1",
              reason: "REQUIRED",
            },
          ]);
        }
        refusePositionBeyond(firstPosition + BigInt(events.length), "first_position");
        const { position, cancelled } = await runs.append(
          runId,
          reporter,
          // An empty request that says that the reporter lives may leave it out.
          Number(firstPosition) || 1,
          events,
        );
        return { acknowledgedPosition: BigInt(position), cancelled };
      },

      async finishTestRun(request, context) {
        const { runId, reporter, lastPosition, exitCode, signal, reason, message } = request;
        await authorizeReport(runId, context);
        if (lastPosition > 0n) {
          refusePositionBeyond(lastPosition + 1n, "last_position");
          await runs.requirePosition(runId, reporter, Number(lastPosition));
        }
        return { run: await runs.finish(runId, { reason, message, exitCode, signal }) };
      },

      async *watchTestRun(request, { signal, requestHeader }) {
        const watch = watchers.watch(request.runId, Number(request.afterSequence), signal);
        const isBinary = !(requestHeader.get("content-type") ?? "json").includes("json");
        for await (const news of watch) {
          yield* toResponses(news, request.withoutOutput, isBinary, clock);
        }
      },

      async getTestRun({ runId, wait }, { signal }) {
        const ms = milliseconds(wait, 0);
        return { run: ms > 0 ? await runs.waitForEnd(runId, ms, signal) : await runs.get(runId) };
      },

      async listTestRuns({ filter, pageSize, pageToken }) {
        const tokens = pageTokens("test-runs", 1, TestRunFilterSchema, filter);
        const position = tokens.read(pageToken);
        const before = position && wholeNumber(position[0]);
        const { items, next } = await queries.listRuns(filter, pageSize || DEFAULT_RUNS, before);
        return { runs: [...items], nextPageToken: next === undefined ? "" : tokens.write([String(next)]) };
      },

      async listTestResults({ runId, filter, pageSize, pageToken }) {
        const tokens = pageTokens(`test-results ${runId}`, 4, TestResultFilterSchema, filter);
        const after = toResultPosition(tokens.read(pageToken));
        const page = await queries.listResults(runId, filter, pageSize || DEFAULT_PAGE_SIZE, after);
        const { items, next } = page;
        return {
          results: [...items],
          nextPageToken:
            next === undefined ? "" : tokens.write([String(next.rank), next.file, next.name, next.testId]),
        };
      },

      async getTestCoverage({ runId, filePrefix, pageSize, pageToken }) {
        const question = create(GetTestCoverageRequestSchema, { runId, filePrefix });
        const tokens = pageTokens("test-coverage", 1, GetTestCoverageRequestSchema, question);
        const [after] = tokens.read(pageToken) ?? [];
        const { coverage } = await runs.get(runId);
        const page = await queries.listCoverage(runId, filePrefix, pageSize || DEFAULT_PAGE_SIZE, after);
        return {
          ...(coverage && { totals: coverage }),
          files: [...page.items],
          nextPageToken: page.next === undefined ? "" : tokens.write([page.next]),
        };
      },

      async cancelTestRun({ runId, message }, context) {
        await authorize(runId, context);
        const run = await runs.cancel(runId, message);
        return {
          run:
            run.endTime === undefined
              ? await runs.waitForEnd(runId, CANCEL_PATIENCE_MS, context.signal)
              : run,
        };
      },

      async listProjects({ pageSize, pageToken }) {
        const tokens = pageTokens("test-projects", 1, ListProjectsRequestSchema, undefined);
        const [after] = tokens.read(pageToken) ?? [];
        const all = toProjects(await queries.listProjects(), projects);
        const rest = after === undefined ? all : all.filter(({ name }) => name > after);
        const page = rest.slice(0, pageSize || DEFAULT_PAGE_SIZE);
        const last = page.at(-1);
        return {
          projects: page,
          nextPageToken: last !== undefined && page.length < rest.length ? tokens.write([last.name]) : "",
        };
      },
    });
  };
}

/** No reporter comes so far, and numbers beyond cannot be told apart. */
function refusePositionBeyond(position: bigint, field: string): void {
  if (position > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw invalidArgument([{ field, description: "must be far below 2^53: positions count events, from 1" }]);
  }
}

function notReported(runId: string): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "TEST_RUN_NOT_REPORTED",
    message: `Test run "${runId}" is not filled by a reporter: create a run of your own`,
    resource: { type: "test run", name: runId },
  });
}

function* toResponses(
  news: RunNews,
  leavesOutputOut: boolean,
  isBinary: boolean,
  clock: Clock,
): Generator<WatchTestRunResponse, void, undefined> {
  switch (news.kind) {
    case "connected":
      yield response({ case: "connected", value: { run: news.run } });
      return;
    case "events":
      for (const page of leavesOutputOut ? withoutOutput(news.page) : [news.page]) {
        const value = isBinary ? packEvents(page) : { events: eventsOf(page) };
        yield response({ case: "events", value });
      }
      return;
    case "caught-up":
      yield response({ case: "caughtUp", value: { sequence: BigInt(news.sequence) } });
      return;
    case "progress":
      yield response({ case: "progress", value: news.progress });
      return;
    case "heartbeat":
      yield response({ case: "heartbeat", value: { time: timestampFromMs(clock.now()) } });
      return;
  }
}

function response(
  kind: NonNullable<Parameters<typeof create<typeof WatchTestRunResponseSchema>>[1]>["kind"],
): WatchTestRunResponse {
  return create(WatchTestRunResponseSchema, kind === undefined ? {} : { kind });
}

function wholeNumber(text: string | undefined): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw invalidPageToken();
  }
  return value;
}

function toResultPosition(parts: readonly string[] | undefined): ResultPosition | undefined {
  if (parts === undefined) {
    return undefined;
  }
  const [rank, file = "", name = "", testId = ""] = parts;
  if (!/^[0-9a-f-]{32,36}$/.test(testId) || testId.replaceAll("-", "").length !== 32) {
    throw invalidPageToken();
  }
  return { rank: Math.min(wholeNumber(rank), 100), file, name, testId };
}

/** Those that can be run here and those with runs, by name. */
function toProjects(known: readonly ProjectRuns[], configured: readonly ConfiguredProject[]): Project[] {
  const byName = new Map(known.map((project) => [project.name, project]));
  const settings = new Map(configured.map((project) => [project.name, project]));
  return [...new Set([...byName.keys(), ...settings.keys()])]
    .sort((a, b) => (a < b ? -1 : 1))
    .map((name) => {
      const runnable = settings.get(name);
      const found = byName.get(name);
      return create(ProjectSchema, {
        name,
        ...(runnable && {
          runner: runnable.runner,
          description: runnable.description,
          environments: [...runnable.environments],
          runnable: true,
        }),
        ...(found && { latestRun: found.latestRun, runCount: found.runCount }),
      });
    });
}
