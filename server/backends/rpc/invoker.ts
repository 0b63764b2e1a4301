import {
  type DescMethod,
  fromBinary,
  fromJson,
  type JsonValue,
  type Message,
  type Registry,
  toBinary,
} from "@bufbuild/protobuf";
import { type Any, anyIs, anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { invalidArgument } from "@toolplane/framework";
import type { ConnectionPool } from "../../pool/index.ts";
import { parseArguments } from "../../schema/index.ts";
import type { Input, Invocation, Invoker, Output } from "../invocation.ts";
import { messageToJson } from "./any-json.ts";
import { authorPolicyOf } from "./author-policy.ts";
import { backendError, invalidResult } from "./backend-error.ts";
import { streamingOf } from "./streaming.ts";

export interface RpcInvokerOptions {
  readonly pool: ConnectionPool;
  /** The largest single result in bytes. */
  readonly maxResultBytes: number;
  readonly method: DescMethod;
  /** Resolves the types inside google.protobuf.Any. */
  readonly registry: Registry;
}

export function createRpcInvoker(options: RpcInvokerOptions): Invoker {
  const { pool, maxResultBytes, method, registry } = options;

  return {
    streaming: streamingOf(method.methodKind),
    policy: authorPolicyOf(method),

    fingerprint: (input) => toBinary(method.input, toMessage(input)),
    resultOf: (json) => toOutput(method, fromJson(method.output, json, { registry }), registry),
    restore: (bytes) => toOutput(method, fromBinary(method.output, bytes), registry),

    parse: (json, path) => toInput(parseArguments(method.input, json, { registry, path })),

    parseMessage(any, path) {
      if (!anyIs(any, method.input)) {
        throw invalidArgument([
          {
            field: path,
            reason: "WRONG_MESSAGE_TYPE",
            description: `the tool takes a ${method.input.typeName}, not a ${any.typeUrl || "message without a type"}`,
          },
        ]);
      }
      try {
        return toInput(fromBinary(method.input, any.value));
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw invalidArgument(
          [{ field: path, reason: "MALFORMED_MESSAGE", description: `it cannot be read: ${why}` }],
          cause,
        );
      }
    },

    async *invoke(inputs, invocation) {
      const { target, principal } = invocation;
      const transport = pool.transport(target, { maxMessageBytes: maxResultBytes, principal });
      const left = new AbortController();
      const signal = AbortSignal.any([invocation.signal, left.signal]);
      try {
        for await (const message of send(transport, method, inputs, invocation, signal)) {
          yield toOutput(method, message, registry);
        }
      } catch (error) {
        throw backendError(error, method, maxResultBytes);
      } finally {
        left.abort(new ConnectError("the caller left", Code.Canceled));
      }
    },
  };
}

async function* send(
  transport: Transport,
  method: DescMethod,
  inputs: Iterable<Input> | AsyncIterable<Input>,
  { headers, timeoutMs }: Invocation,
  signal: AbortSignal,
): AsyncGenerator<Message, void, undefined> {
  if (method.methodKind === "unary") {
    const input = await first(inputs, method);
    const response = await transport.unary(
      { ...method, methodKind: "unary" },
      signal,
      timeoutMs,
      headers,
      input,
    );
    yield response.message;
    return;
  }
  const messages = method.methodKind === "server_streaming" ? one(await first(inputs, method)) : all(inputs);
  const response = await transport.stream(
    { ...method, methodKind: method.methodKind },
    signal,
    timeoutMs,
    headers,
    messages,
  );
  let count = 0;
  for await (const message of response.message) {
    if (++count > 1 && method.methodKind === "client_streaming") {
      throw invalidResult(method, "it sent more than one result");
    }
    yield message;
  }
  if (count === 0 && method.methodKind === "client_streaming") {
    throw invalidResult(method, "it sent no result");
  }
}

async function first(inputs: Iterable<Input> | AsyncIterable<Input>, method: DescMethod): Promise<Message> {
  for await (const input of inputs) {
    return toMessage(input);
  }
  throw new ConnectError(`${method.parent.typeName}.${method.name} needs a request`, Code.InvalidArgument);
}

async function* one(message: Message): AsyncGenerator<Message, void, undefined> {
  yield message;
}

async function* all(
  inputs: Iterable<Input> | AsyncIterable<Input>,
): AsyncGenerator<Message, void, undefined> {
  for await (const input of inputs) {
    yield toMessage(input);
  }
}

function toOutput(method: DescMethod, message: Message, registry: Registry): Output {
  return {
    json(whole = false): JsonValue {
      try {
        return messageToJson(method.output, message, registry, whole);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        throw invalidResult(method, `it cannot be written as JSON: ${why}`, error);
      }
    },
    message: (): Any => anyPack(method.output, message),
    bytes: () => toBinary(method.output, message),
  };
}

/** Inputs are opaque to everyone else. */
function toInput(message: Message): Input {
  return message as unknown as Input;
}

/** The caller passes back what `parse` or `parseMessage` of this invoker returned. */
function toMessage(input: Input): Message {
  return input as unknown as Message;
}
