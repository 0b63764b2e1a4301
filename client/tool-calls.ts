import { create, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client, Code, ConnectError } from "@connectrpc/connect";
import {
  type ToolCall,
  ToolCallSchema,
  type ToolResult,
  type ToolService,
} from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";

/** The arguments of a call: one object, or a list of them for a tool that takes a stream. */
export type ToolArguments = JsonObject | readonly JsonObject[];

export interface ToolCallOptions {
  /** The service's environment. Default `default`. */
  readonly environment?: string | undefined;
  /** The service's version. Default: the highest that has an instance to call. */
  readonly version?: string | undefined;
  /** How long the call may take, in milliseconds, up to 24 h. Default 60,000, set by the server. */
  readonly timeoutMs?: number | undefined;
  /** A UUID that makes the call safe to repeat. */
  readonly requestId?: string | undefined;
  /** Cancels the call, also at the backend. */
  readonly signal?: AbortSignal | undefined;
  /** Sent with the call, such as `traceparent`. */
  readonly headers?: ConstructorParameters<typeof Headers>[0];
}

/** Calls a tool and returns its result as JSON; of a tool that streams, the list of its results. */
export async function callTool(
  tools: Client<typeof ToolService>,
  tool: string,
  args: ToolArguments = {},
  options: ToolCallOptions = {},
): Promise<JsonValue> {
  const { result } = await tools.callTool({ call: toToolCall(tool, args, options) }, toCallOptions(options));
  return resultToJson(result);
}

/** Calls a tool and yields its results as JSON, as they come. Leaving the iteration cancels the call. */
export async function* callToolStream(
  tools: Client<typeof ToolService>,
  tool: string,
  args: ToolArguments = {},
  options: ToolCallOptions = {},
): AsyncGenerator<JsonValue, void, undefined> {
  const call = toToolCall(tool, args, options);
  // Connect goes on receiving when an iteration is left; only a signal ends the call.
  const left = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
  try {
    for await (const { event } of tools.callToolStream({ call }, toCallOptions({ ...options, signal }))) {
      if (event.case === "result") yield resultToJson(event.value);
    }
  } finally {
    left.abort();
  }
}

/** The longest timeout that a call may ask for: 24 h, in milliseconds. */
const MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000;

/** How much later than the server the client gives up, in milliseconds: the server's answer says more. */
const DEADLINE_GRACE_MS = 2_000;

/** The message that describes a call. */
export function toToolCall(tool: string, args: ToolArguments, options: ToolCallOptions): ToolCall {
  const call = create(ToolCallSchema, { tool });
  if (isList(args)) call.argumentStream = [...args];
  else call.input = { case: "arguments", value: args };
  if (options.environment !== undefined) call.environment = options.environment;
  if (options.version !== undefined) call.version = options.version;
  if (options.requestId !== undefined) call.requestId = options.requestId;
  if (options.timeoutMs !== undefined) call.timeout = toDuration(Math.min(options.timeoutMs, MAX_TIMEOUT_MS));
  return call;
}

/** The options of the RPC that carries a call. A call has the deadline that it names, or the server's. */
export function toCallOptions(options: ToolCallOptions): CallOptions {
  return {
    timeoutMs:
      options.timeoutMs === undefined ? 0 : Math.min(options.timeoutMs, MAX_TIMEOUT_MS) + DEADLINE_GRACE_MS,
    ...(options.signal && { signal: options.signal }),
    ...(options.headers && { headers: options.headers }),
  };
}

/** A result as JSON. Calls with JSON arguments have JSON results. */
export function resultToJson(result: ToolResult | undefined): JsonValue {
  switch (result?.value.case) {
    case "json":
      return toJson(ValueSchema, result.value.value);
    case "message":
      throw new ConnectError(
        `expected a result in JSON, but got a ${result.value.value.typeUrl}`,
        Code.Internal,
      );
    case undefined:
      return null;
  }
}

/** Milliseconds as a google.protobuf.Duration. */
export function toDuration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) });
}

function isList(args: ToolArguments): args is readonly JsonObject[] {
  return Array.isArray(args);
}
