import { setImmediate } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { type Clock, DomainError, invalidArgument, type Principal } from "@toolplane/framework";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { ResultSource, type ToolCall } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import type { Backend, Input, Invoker, Output } from "../backends/invocation.ts";
import type { Definition } from "../backends/source.ts";
import { milliseconds } from "../config/durations.ts";
import { codeOf } from "../error-code.ts";
import type { Registry, ResolvedTool } from "../registry/registry.ts";
import { createTimeout } from "../timeout.ts";
import type { Dispatch } from "./dispatch.ts";
import type { Outbound } from "./outbound.ts";
import { answersWithStream, isUnary } from "./streaming.ts";
import type { Outcome } from "./unary.ts";

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
  /** Whether all results have to go into one message. */
  readonly gathers: boolean;
}

/** What happens during a call. `started` comes first, and once; `finished` last, unless the call fails. */
export type CallEvent =
  | {
      readonly kind: "started";
      readonly tool: ResolvedTool;
      /** Empty where the result comes from elsewhere. */
      readonly instanceId: string;
      readonly streaming: Streaming;
    }
  | { readonly kind: "result"; readonly output: Output }
  | ({ readonly kind: "finished" } & Provenance);

/** Where the results of a call came from. */
export interface Provenance extends Omit<Outcome, "output"> {
  /** How often the call was sent. 0: its results came from elsewhere. */
  readonly attempts: number;
}

/** What is known when the results have come. */
type Reception =
  | { readonly kind: "result"; readonly output: Output }
  | ({ readonly kind: "received" } & Omit<Outcome, "output">);

export interface Caller {
  /**
   * Finds the tool, checks the arguments and calls it, with all that protects it and its callers. Leaving the iteration
   * cancels the call.
   *
   * Before `started`, throws NOT_FOUND, INVALID_ARGUMENT with field paths, FAILED_PRECONDITION for a tool that cannot
   * be called, or UNAVAILABLE when no instance is there; afterwards the backend's own error.
   */
  call(call: ToolCall, context: CallerContext): AsyncGenerator<CallEvent, void, undefined>;
}

export interface CallerOptions {
  readonly registry: Pick<Registry, "resolveTool">;
  readonly backends: readonly Backend[];
  readonly outbound: Pick<Outbound, "plans" | "unary" | "open">;
  readonly clock: Clock;
  /** Told about every call that is made; what it returns, about its end. */
  readonly onCall?: ((tool: ResolvedTool) => (end: CallEnd) => void) | undefined;
}

/** How a call ended. */
export interface CallEnd {
  /** `ok` or the name of the error's code, such as `not_found`. */
  readonly code: string;
  readonly durationMs: number;
  /** Attempts one after the other; 1 also where none was needed. */
  readonly attempts: number;
  /** Attempts beside these. */
  readonly hedges: number;
  /** Where its results came from; undefined unless it succeeded. */
  readonly source: ResultSource | undefined;
}

/**
 * How long results that are there already are handed on before everything else has its turn, in milliseconds. A backend
 * that sends faster than its results are read would keep the process from noticing deadlines and from serving others.
 */
const TURN_MS = 10;

export function createCaller({ registry, backends, outbound, clock, onCall }: CallerOptions): Caller {
  async function prepare(tool: ResolvedTool): Promise<Invoker> {
    const definition: Definition = await tool.definition();
    const backend = backends.find(({ kind }) => kind === definition.kind);
    if (!backend) {
      throw new Error(`no backend for ${definition.kind} definitions`);
    }
    return backend.invoker(definition, tool.sourceName);
  }

  /** Everything that can be wrong with a call before it is sent is found here. */
  async function resolve(call: ToolCall, { path, gathers }: CallerContext) {
    const tool = registry.resolveTool(call.tool, { environment: call.environment, version: call.version });
    if (tool.problem) {
      throw notCallable(tool, tool.problem);
    }
    const invoker = await prepare(tool);
    checkForm(call, invoker.streaming, path, gathers);
    const inputs = parseInputs(call, invoker, path);
    return { tool, invoker, inputs, plan: outbound.plans.of(tool, invoker.policy) };
  }

  async function* results(dispatch: Dispatch): AsyncGenerator<Reception, void, undefined> {
    const answering = await outbound.open(dispatch);
    try {
      let turnEnds = clock.monotonic() + TURN_MS;
      for await (const output of answering.results()) {
        yield { kind: "result", output };
        if (clock.monotonic() >= turnEnds) {
          await setImmediate();
          turnEnds = clock.monotonic() + TURN_MS;
        }
      }
      yield { kind: "received", instanceId: answering.instanceId, source: ResultSource.BACKEND };
    } finally {
      answering.close();
    }
  }

  async function* result(
    dispatch: Dispatch,
    call: ToolCall,
    context: CallerContext,
  ): AsyncGenerator<Reception, void, undefined> {
    const { output, ...provenance } = await outbound.unary.call(dispatch, async (version) => ({
      ...dispatch,
      ...(await resolve({ ...call, version }, context)),
    }));
    yield { kind: "result", output };
    yield { kind: "received", ...provenance };
  }

  return {
    async *call(call, context) {
      const resolved = await resolve(call, context);
      const { tool, invoker, plan } = resolved;
      const timeoutMs = Math.min(
        milliseconds(call.timeout, plan.timeoutMs),
        context.timeoutMs ?? Number.POSITIVE_INFINITY,
      );
      const timeout = createTimeout(clock, timeoutMs, context.signal);
      const sent = Promise.withResolvers<string>();
      let [attempts, hedges] = [0, 0];
      const dispatch: Dispatch = {
        ...resolved,
        principal: context.principal,
        headers: headersOf(call, context),
        requestId: call.requestId,
        path: context.path,
        signal: timeout.signal,
        deadline: clock.now() + timeoutMs,
        onSent(instanceId, beside) {
          attempts++;
          hedges += beside ? 1 : 0;
          sent.resolve(instanceId);
        },
      };
      const startedAt = clock.monotonic();
      const onEnd = onCall?.(tool);
      // Unless it comes to an end, its caller has left.
      let code: string | undefined;
      let source: ResultSource | undefined;
      const events = isUnary(invoker.streaming) ? result(dispatch, call, context) : results(dispatch);
      try {
        let next = events.next();
        // Whoever watches wants to know that the call is on its way, long before it is over.
        const instanceId = await Promise.race([sent.promise, next.then(() => "")]);
        yield { kind: "started", tool, instanceId, streaming: invoker.streaming };
        for (let event = await next; !event.done; event = await next) {
          if (event.value.kind === "received") {
            code = "ok";
            source = event.value.source;
            yield { ...event.value, kind: "finished", attempts };
            return;
          }
          yield event.value;
          next = events.next();
        }
      } catch (error) {
        code = codeToString(codeOf(error));
        throw error;
      } finally {
        if (code === undefined) {
          timeout.leave();
        }
        timeout.clear();
        // It ends by the signal; what it still says is of no interest.
        events.return().catch(() => undefined);
        onEnd?.({
          code: code ?? codeToString(Code.Canceled),
          durationMs: clock.monotonic() - startedAt,
          attempts: Math.max(attempts - hedges, 1),
          hedges,
          source,
        });
      }
    },
  };
}

function headersOf({ requestId }: ToolCall, { headers }: CallerContext): Headers {
  const own = new Headers(headers);
  if (requestId) {
    own.set("x-request-id", requestId);
    own.set("idempotency-key", requestId);
  }
  return own;
}

/** Refuses what is asked of a tool that streams and it cannot do. */
function checkForm(call: ToolCall, streaming: Streaming, path: string, gathers: boolean): void {
  if (isUnary(streaming)) {
    return;
  }
  if (call.requestId) {
    throw invalidArgument([
      {
        field: `${path}.request_id`,
        description: "this tool streams: its results are not kept, so a repetition could not have them",
        reason: "STREAMING_TOOL",
      },
    ]);
  }
  if (gathers && call.input.case === "message" && answersWithStream(streaming)) {
    throw invalidArgument([
      {
        field: `${path}.message`,
        description: "this tool answers with a stream of messages: call it with CallToolStream",
        reason: "STREAMING_TOOL",
      },
    ]);
  }
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
