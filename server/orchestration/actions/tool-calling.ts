import { create, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Clock, DomainError, invalidArgument } from "@toolplane/framework";
import { type ToolCall, ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { toDuration } from "../../config/durations.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Caller } from "../../tools/caller.ts";
import { createResultList } from "../../tools/result.ts";
import { answersWithStream } from "../../tools/streaming.ts";
import type { ToolCalling } from "./action.ts";
import { runHeaders } from "./run-headers.ts";

export interface ToolCallingOptions {
  readonly caller: Caller;
  readonly registry: Pick<Registry, "resolveTool">;
  /** The largest result in bytes; what is gathered from a stream counts as one. */
  readonly maxResultBytes: number;
  readonly clock: Clock;
}

/** Where the arguments are, in errors about them: the field is that of a workflow's step. */
const FIELD = "tool";

/** Calls tools as a service of this server does, with all that protects tools and their callers. */
export function createToolCalling({
  caller,
  registry,
  maxResultBytes,
  clock,
}: ToolCallingOptions): ToolCalling {
  return {
    async call(spec, { run, path, idempotencyKey, signal }) {
      signal.throwIfAborted();
      const { tool, environment, version, timeoutMs } = spec;
      const { streaming } = registry.resolveTool(tool, { environment, version });
      const call: ToolCall = create(ToolCallSchema, {
        tool,
        environment,
        version,
        input: { case: "arguments", value: argumentsOf(spec.arguments) },
        ...(timeoutMs !== undefined && { timeout: toDuration(timeoutMs) }),
      });
      // No request id: what came of a call is recorded with its step, and to record it here as well would take as long
      // as the call itself. Who is called learns that it may have seen the call before.
      const headers = runHeaders(run, path);
      if (idempotencyKey !== "") {
        headers.set("idempotency-key", idempotencyKey);
        headers.set("x-request-id", idempotencyKey);
      }
      const results = createResultList(spec.whole === true ? "whole" : "json", maxResultBytes);
      const leaving = departureOf(signal);
      const context = {
        principal: run.principal,
        signal: leaving.signal,
        timeoutMs: Math.max(run.deadline - clock.now(), 1),
        headers,
        path: FIELD,
        gathers: true,
      };
      try {
        for await (const event of caller.call(call, context)) {
          if (event.kind === "result") {
            results.add(event.output);
          }
        }
      } finally {
        leaving.close();
      }
      const { value } = results.finish(answersWithStream(streaming));
      return value?.case === "json" ? toJson(ValueSchema, create(ValueSchema, value.value)) : null;
    },
  };
}

/**
 * Says why a step leaves its call, in the terms of calls: a backend is to blame for what takes longer than a step has time
 * for, as it is for any deadline, and not for a run that is cancelled.
 */
function departureOf(signal: AbortSignal): { readonly signal: AbortSignal; close(): void } {
  const controller = new AbortController();
  const leave = () => controller.abort(ConnectError.from(signal.reason, leavingCode(signal.reason)));
  signal.addEventListener("abort", leave, { once: true });
  return { signal: controller.signal, close: () => signal.removeEventListener("abort", leave) };
}

function leavingCode(reason: unknown): Code {
  return reason instanceof DomainError && reason.init.code === Code.DeadlineExceeded
    ? Code.DeadlineExceeded
    : Code.Canceled;
}

function argumentsOf(json: JsonValue): JsonObject {
  if (typeof json === "object" && json !== null && !Array.isArray(json)) {
    return json;
  }
  throw invalidArgument([
    { field: `${FIELD}.arguments`, description: "expected an object", reason: "WRONG_TYPE" },
  ]);
}
