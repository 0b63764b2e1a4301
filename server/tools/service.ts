import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ConnectRouter, HandlerContext } from "@connectrpc/connect";
import { type Clock, callContext, toStatus } from "@toolplane/framework";
import {
  type CallInfoSchema,
  type CallToolResponseSchema,
  type CallToolsResponseSchema,
  type ToolCall,
  ToolService,
} from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { toDuration } from "../config/durations.ts";
import type { CallEvent, Caller, CallerContext } from "./caller.ts";
import { inCompletionOrder } from "./completion-order.ts";
import { createResultList, toResult } from "./result.ts";
import { answersWithStream } from "./streaming.ts";

export interface ToolServiceOptions {
  readonly caller: Caller;
  readonly clock: Clock;
  /** How many calls of one CallTools request run at once when it names no number. */
  readonly defaultConcurrency: number;
  /** The largest result in bytes; what CallTool gathers from a stream counts as one. */
  readonly maxResultBytes: number;
}

/** The RPC handlers of `toolplane.tools.v1.ToolService`. */
export function toolRoutes(options: ToolServiceOptions): (router: ConnectRouter) => void {
  const { caller, clock, defaultConcurrency } = options;

  async function callTool(
    call: ToolCall,
    context: CallerContext,
  ): Promise<MessageInitShape<typeof CallToolResponseSchema>> {
    const progress = createProgress(call, clock);
    const results = createResultList(progress.typed ? "typed" : "json", options.maxResultBytes);
    for await (const event of caller.call(call, context)) {
      progress.follow(event);
      if (event.kind === "result") {
        results.add(event.output);
      }
    }
    return { result: results.finish(progress.streamsResults), info: progress.info() };
  }

  return (router) => {
    router.service(ToolService, {
      callTool: (request, context) => callTool(required(request.call), callerContext(context, "call", true)),

      async *callToolStream(request, context) {
        const call = required(request.call);
        const progress = createProgress(call, clock);
        for await (const event of caller.call(call, callerContext(context, "call", false))) {
          progress.follow(event);
          switch (event.kind) {
            case "started":
              yield { event: { case: "started", value: progress.info() } };
              break;
            case "result": {
              const value = toResult(event.output, progress.typed, options.maxResultBytes);
              yield { event: { case: "result", value } };
              break;
            }
            case "finished":
              yield { event: { case: "finished", value: progress.info() } };
          }
        }
      },

      async *callTools(request, context) {
        const departed = new AbortController();
        const signal = AbortSignal.any([context.signal, departed.signal]);
        async function outcomeOf(
          call: ToolCall,
          index: number,
        ): Promise<MessageInitShape<typeof CallToolsResponseSchema>> {
          try {
            const response = await callTool(call, {
              ...callerContext(context, `calls[${index}]`, true),
              signal,
            });
            return { index, outcome: { case: "response", value: response } };
          } catch (error) {
            return { index, outcome: { case: "error", value: toStatus(error, callContext(context)) } };
          }
        }
        try {
          yield* inCompletionOrder(request.calls, request.concurrency || defaultConcurrency, outcomeOf);
        } finally {
          departed.abort();
        }
      },
    });
  };
}

/** Validation has refused requests without a call before the handler sees them. */
function required(call: ToolCall | undefined): ToolCall {
  if (!call) {
    throw new Error("a request without a call passed validation");
  }
  return call;
}

function callerContext(context: HandlerContext, path: string, gathers: boolean): CallerContext {
  const { correlationId, principal, traceparent, tracestate } = callContext(context);
  const headers = new Headers({ "x-correlation-id": correlationId });
  if (traceparent) {
    headers.set("traceparent", traceparent);
  }
  if (tracestate) {
    headers.set("tracestate", tracestate);
  }
  return { principal, signal: context.signal, timeoutMs: context.timeoutMs(), headers, path, gathers };
}

/** Follows a call to describe it. */
function createProgress(call: ToolCall, clock: Clock) {
  const begin = clock.monotonic();
  let started: Extract<CallEvent, { kind: "started" }> | undefined;
  let finished: Extract<CallEvent, { kind: "finished" }> | undefined;
  let resultCount = 0;
  return {
    /** True when results are wanted as Protobuf messages. */
    typed: call.input.case === "message",
    get streamsResults(): boolean {
      return started !== undefined && answersWithStream(started.streaming);
    },
    follow(event: CallEvent): void {
      switch (event.kind) {
        case "started":
          started = event;
          break;
        case "result":
          resultCount++;
          break;
        case "finished":
          finished = event;
      }
    },
    info(): MessageInitShape<typeof CallInfoSchema> {
      return {
        tool: started?.tool.name ?? call.tool,
        service: started?.tool.service ?? "",
        environment: started?.tool.environment ?? "",
        version: started?.tool.version ?? "",
        instanceId: finished?.instanceId || (started?.instanceId ?? ""),
        resultCount,
        ...(finished && {
          duration: toDuration(clock.monotonic() - begin),
          attempts: finished.attempts,
          source: finished.source,
          stale: finished.stale ?? false,
          ...(finished.ageMs === undefined ? {} : { age: toDuration(finished.ageMs) }),
        }),
      };
    },
  };
}
