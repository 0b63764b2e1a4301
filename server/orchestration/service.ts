import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { anonymous, type Clock, DomainError, type Principal, principalOf } from "@toolplane/framework";
import {
  OrchestrationService,
  RetryRunRequestSchema,
  type StartRunRequest,
  StartRunRequestSchema,
  type WatchRunResponse,
  WatchRunResponseSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { type Run, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { milliseconds } from "../config/durations.ts";
import { fingerprintOf } from "../fingerprint.ts";
import { refuseStranger } from "../ownership.ts";
import { parentOf } from "./actions/run-headers.ts";
import type { definitionHandlers } from "./definitions/handlers.ts";
import { eventsOf, packEvents, withoutDeltas } from "./event-bytes.ts";
import { notRetryable, RESOURCE } from "./refusals.ts";
import type { NewRun, Runs } from "./runs.ts";
import type { RunStarter } from "./starter.ts";
import type { RunNews, RunWatchers } from "./watch.ts";

export interface RunRoutesOptions {
  readonly runs: Runs;
  readonly starter: RunStarter;
  readonly watchers: RunWatchers;
  readonly clock: Clock;
  /** The methods for workflows and agents. */
  readonly definitions: ReturnType<typeof definitionHandlers>;
}

/** How long CancelRun waits for running calls to end. */
const CANCEL_PATIENCE_MS = 10_000;

/** The RPC handlers of `toolplane.orchestration.v1.OrchestrationService`. */
export function runRoutes(options: RunRoutesOptions): (router: ConnectRouter) => void {
  const { runs, starter, watchers, clock, definitions } = options;

  /** Refuses a change to a run by others than whoever started it and operators. */
  async function authorize(runId: string, context: Pick<HandlerContext, "values">): Promise<Principal> {
    const principal = principalOf(context.values);
    const { principal: owner } = await runs.origin(runId);
    refuseStranger({ type: RESOURCE, id: runId, createdBy: owner.id }, principal);
    return principal;
  }

  /** The run whose call this is, if there is such a run: anybody can send its headers, so it is asked how deep it is. */
  async function parentRun(headers: Headers): Promise<NewRun["parent"]> {
    const parent = parentOf(headers);
    if (parent === undefined) {
      return undefined;
    }
    const origin = await runs.origin(parent.runId).catch(() => undefined);
    return origin && { runId: parent.runId, depth: origin.depth + 1 };
  }

  async function start(request: StartRunRequest, context: HandlerContext): Promise<Run> {
    const { source, labels, requestId, timeout } = request;
    return await starter.start(required(source), {
      principal: principalOf(context.values),
      labels,
      timeoutMs: timeout && milliseconds(timeout, 0),
      parent: await parentRun(context.requestHeader),
      ...(requestId !== "" && {
        request: {
          id: requestId,
          fingerprint: fingerprintOf(StartRunRequestSchema, { ...request, requestId: "" }),
        },
      }),
    });
  }

  async function* watch(
    runId: string,
    { after, leavesDeltasOut }: { after: number; leavesDeltasOut: boolean },
    { signal, requestHeader }: Pick<HandlerContext, "signal" | "requestHeader">,
  ): AsyncGenerator<WatchRunResponse, void, undefined> {
    const isBinary = !(requestHeader.get("content-type") ?? "json").includes("json");
    for await (const news of watchers.watch(runId, after, signal)) {
      yield* toResponses(news, leavesDeltasOut, isBinary, clock);
    }
  }

  const handlers: Omit<ServiceImpl<typeof OrchestrationService>, keyof RunRoutesOptions["definitions"]> = {
    async startRun(request, context) {
      return { run: await start(request, context) };
    },

    async *executeRun(request, context) {
      const { id } = await start(required(request.start), context);
      for await (const { kind } of watch(id, { after: 0, leavesDeltasOut: false }, context)) {
        yield { kind };
      }
    },

    watchRun: ({ runId, afterSequence, withoutDeltas }, context) =>
      watch(runId, { after: Number(afterSequence), leavesDeltasOut: withoutDeltas }, context),

    async getRun({ runId, wait }, { signal }) {
      const ms = milliseconds(wait, 0);
      const run = ms > 0 ? await runs.waitForEnd(runId, ms, signal) : await runs.get(runId);
      return { run, source: await runs.source(runId) };
    },

    async listRuns({ filter, pageSize, pageToken }) {
      const { items, nextPageToken } = await runs.list(filter, { pageSize, pageToken });
      return { runs: [...items], nextPageToken };
    },

    async listRunSteps(request) {
      const { items, nextPageToken } = await runs.listSteps(request);
      return { steps: [...items], nextPageToken };
    },

    async cancelRun({ runId, message }, context) {
      const principal = await authorize(runId, context);
      const run = await runs.cancel(runId, principal.id, message);
      return {
        run:
          run.endTime === undefined ? await runs.waitForEnd(runId, CANCEL_PATIENCE_MS, context.signal) : run,
      };
    },

    async retryRun(request, context) {
      const { runId, fromSteps, requestId } = request;
      const asking = await authorize(runId, context);
      const run = await runs.get(runId);
      if (run.state !== RunState.FAILED && run.state !== RunState.CANCELLED) {
        throw notRetryable(runId, RunState[run.state].toLowerCase());
      }
      return {
        run: await starter.retry(run, fromSteps, {
          principal: actingFor((await runs.origin(runId)).principal, asking),
          parent: await parentRun(context.requestHeader),
          ...(requestId !== "" && {
            request: {
              id: requestId,
              fingerprint: fingerprintOf(RetryRunRequestSchema, { ...request, requestId: "" }),
            },
          }),
        }),
      };
    },

    async resolveApproval({ runId, path, approved, comment }, { values, requestHeader }) {
      if (parentOf(requestHeader) !== undefined) {
        throw approvalByRun(runId);
      }
      // Whoever may call may answer, not only who has started the run: that is what approvals are for.
      const by = principalOf(values).id;
      return { run: await runs.resolveApproval(runId, path, { approved, comment, by }) };
    },
  };

  return (router) => {
    router.service(OrchestrationService, { ...definitions, ...handlers });
  };
}

/**
 * On whose behalf a run is retried: of whoever asks, where it is theirs or nobody's; an operator who retries somebody
 * else's does not lend that run an operator's rights.
 */
function actingFor(starter: Principal, asking: Principal): Principal {
  return starter.id === asking.id || starter.id === anonymous.id ? asking : starter;
}

/**
 * It is no tool, but whoever registers this server as a service of another name, or an HTTP tool with its address, makes it
 * one: what a run calls, however it comes here, is no person's answer.
 */
function approvalByRun(runId: string): DomainError {
  return new DomainError({
    code: Code.PermissionDenied,
    reason: "APPROVAL_BY_RUN",
    message: "This call was made by a run, and what waits for approval is for people to answer",
    resource: { type: RESOURCE, name: runId },
  });
}

/** Validation has refused requests without it before the handler sees them. */
function required<T>(value: T | undefined): T {
  if (value === undefined) {
    throw new Error("a request without a required field passed validation");
  }
  return value;
}

function* toResponses(
  news: RunNews,
  leavesDeltasOut: boolean,
  isBinary: boolean,
  clock: Clock,
): Generator<WatchRunResponse, void, undefined> {
  switch (news.kind) {
    case "connected":
      yield response({ case: "connected", value: { run: news.run } });
      return;
    case "events":
      for (const page of leavesDeltasOut ? withoutDeltas(news.page) : [news.page]) {
        const value = isBinary ? packEvents(page) : { events: eventsOf(page) };
        yield response({ case: "events", value });
      }
      return;
    case "caught-up":
      yield response({ case: "caughtUp", value: { sequence: BigInt(news.sequence) } });
      return;
    case "idle":
      yield response({ case: "heartbeat", value: { time: timestampFromMs(clock.now()) } });
      return;
  }
}

function response(
  kind: NonNullable<Parameters<typeof create<typeof WatchRunResponseSchema>>[1]>["kind"],
): WatchRunResponse {
  return create(WatchRunResponseSchema, kind === undefined ? {} : { kind });
}
