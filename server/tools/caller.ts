import { setImmediate } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError, invalidArgument, type Principal } from "@toolplane/framework";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { ToolCall } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Backend, Input, Invoker, Output } from "../backends/invocation.ts";
import type { Definition } from "../backends/source.ts";
import { isUnreached } from "../backends/unreached.ts";
import { milliseconds } from "../config/durations.ts";
import type { Registry, ResolvedTool } from "../registry/registry.ts";
import { createTimeout } from "../timeout.ts";
import { withBackendInfo } from "./backend-error.ts";
import { createInstanceChooser } from "./choose-instance.ts";

/** Who is calling, and for how long. */
export interface CallerContext {
  readonly principal: Principal;
  /** Aborted when the caller leaves. */
  readonly signal: AbortSignal;
  /** Milliseconds until the caller's own deadline; undefined where there is none. */
  readonly timeoutMs: number | undefined;
  /** Trace context and correlation id, to be sent on. */
  readonly headers: Headers;
  /** The field path of the call in the request, such as `call` or `calls[3]`. */
  readonly path: string;
}

/** What happens during a call. `started` comes first, and once. */
export type CallEvent =
  | {
      readonly kind: "started";
      readonly tool: ResolvedTool;
      readonly instanceId: string;
      readonly streaming: Streaming;
    }
  | { readonly kind: "result"; readonly output: Output };

export interface Caller {
  /**
   * Finds the tool, checks the arguments, chooses an instance and calls it. Leaving the iteration cancels the call.
   *
   * Before `started`, throws NOT_FOUND, INVALID_ARGUMENT with field paths, FAILED_PRECONDITION for a tool that cannot
   * be called, or UNAVAILABLE when no instance is there; afterwards the backend's own error.
   */
  call(call: ToolCall, context: CallerContext): AsyncGenerator<CallEvent, void, undefined>;
}

export interface CallerOptions {
  readonly registry: Pick<Registry, "resolveTool" | "reportUnreachable">;
  readonly backends: readonly Backend[];
  readonly clock: Clock;
  readonly random?: () => number;
  /** The deadline of a call that names none, in milliseconds. */
  readonly defaultTimeoutMs: number;
}

/**
 * How long results that are there already are handed on before everything else has its turn, in milliseconds. A backend
 * that sends faster than its results are read would keep the process from noticing deadlines and from serving others.
 */
const TURN_MS = 10;

export function createCaller({ registry, backends, clock, random, defaultTimeoutMs }: CallerOptions): Caller {
  const chooser = createInstanceChooser(random);

  async function prepare(tool: ResolvedTool): Promise<Invoker> {
    const definition: Definition = await tool.definition();
    const backend = backends.find(({ kind }) => kind === definition.kind);
    if (!backend) {
      throw new Error(`no backend for ${definition.kind} definitions`);
    }
    return backend.invoker(definition, tool.sourceName);
  }

  return {
    async *call(call, context) {
      const tool = registry.resolveTool(call.tool, { environment: call.environment, version: call.version });
      if (tool.problem) {
        throw notCallable(tool, tool.problem);
      }
      const invoker = await prepare(tool);
      const inputs = parseInputs(call, invoker, context.path);
      const [first, ...others] = tool.instances;
      if (!first) {
        throw noInstance(tool);
      }
      const { instance, release } = chooser.choose([first, ...others]);
      const timeoutMs = Math.min(
        milliseconds(call.timeout, defaultTimeoutMs),
        context.timeoutMs ?? Number.POSITIVE_INFINITY,
      );
      const timeout = createTimeout(clock, timeoutMs, context.signal);
      try {
        yield { kind: "started", tool, instanceId: instance.id, streaming: invoker.streaming };
        const headers = new Headers(context.headers);
        if (call.requestId) {
          headers.set("x-request-id", call.requestId);
        }
        const invocation = {
          service: tool.service,
          target: instance.target(),
          principal: context.principal,
          headers,
          timeoutMs,
          signal: timeout.signal,
        };
        let turnEnds = clock.monotonic() + TURN_MS;
        for await (const output of invoker.invoke(inputs, invocation)) {
          yield { kind: "result", output };
          if (clock.monotonic() >= turnEnds) {
            await setImmediate();
            turnEnds = clock.monotonic() + TURN_MS;
          }
        }
      } catch (error) {
        if (isUnreached(error)) {
          registry.reportUnreachable(instance.id);
        }
        if (error instanceof DomainError) {
          throw error;
        }
        throw withBackendInfo(timeout.signal.aborted ? timeout.signal.reason : error, {
          tool: tool.name,
          service: tool.service,
          environment: tool.environment,
          version: tool.version,
          instance_id: instance.id,
        });
      } finally {
        timeout.clear();
        release();
      }
    },
  };
}

function parseInputs(call: ToolCall, invoker: Invoker, path: string): Input[] {
  const inputs: Input[] = [];
  switch (call.input.case) {
    case "arguments":
      inputs.push(invoker.parse(call.input.value, `${path}.arguments`));
      break;
    case "message":
      inputs.push(invoker.parseMessage(call.input.value, `${path}.message`));
      break;
    case undefined:
      break;
  }
  // A tool that takes a stream accepts a single message in either place.
  if (invoker.streaming === Streaming.CLIENT || invoker.streaming === Streaming.BIDI) {
    return inputs.concat(
      call.argumentStream.map((json, index) => invoker.parse(json, `${path}.argument_stream[${index}]`)),
    );
  }
  if (call.argumentStream.length > 0) {
    throw invalidArgument([
      {
        field: `${path}.argument_stream`,
        description: "this tool takes one message: use `arguments` instead",
        reason: "NOT_A_STREAM",
      },
    ]);
  }
  return inputs.length > 0 ? inputs : [invoker.parse({}, `${path}.arguments`)];
}

function notCallable(tool: ResolvedTool, problem: { reason: string; message: string }): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: problem.reason,
    message: `Tool "${tool.name}" cannot be called: ${problem.message}`,
    resource: { type: "tool", name: tool.name },
  });
}

function noInstance(tool: ResolvedTool): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "NO_INSTANCE",
    message: `Service "${tool.service}" ${tool.version} has no instance in environment "${tool.environment}" now`,
    resource: { type: "service", name: tool.service },
    retryAfterMs: 1_000,
  });
}
