import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import type { Principal } from "@toolplane/framework";
import type { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Target } from "../pool/target.ts";
import type { Definition } from "./source.ts";

/** One checked argument message, in the form that its invoker wants. Only the invoker that made it can use it. */
export type Input = { readonly [inputBrand]: true };
declare const inputBrand: unique symbol;

/** One result of a tool. Conversions are done when asked for. */
export interface Output {
  /**
   * @param whole true: with fields that have their default value too, where the backend speaks Protobuf. Programs that
   *   look into the result need not know then that Protobuf's JSON leaves these out.
   */
  json(whole?: boolean): JsonValue;
  /** Undefined where the backend does not speak Protobuf. */
  message?(): Any;
  /** What `Invoker.restore` makes the same result from, so that it can be kept. */
  bytes(): Uint8Array;
}

/** What the author of a tool says about the way it is called; undefined where they say nothing. */
export interface AuthorPolicy {
  /** Whether identical calls at the same time may share one. */
  readonly shared: boolean | undefined;
  /** How often a call may be tried in all. */
  readonly attempts: number | undefined;
  /** The longest that a call may take, in milliseconds. */
  readonly timeoutMs: number | undefined;
}

/** The circumstances of one call. */
export interface Invocation {
  /** The name of the service that is called. */
  readonly service: string;
  readonly target: Target;
  /** Whom the call is made for. */
  readonly principal: Principal;
  /** Sent besides the target's headers: trace context, correlation id, request id. */
  readonly headers: Headers;
  /** Aborted when the caller leaves or the deadline passes; its reason is a ConnectError. */
  readonly signal: AbortSignal;
  /** Milliseconds until the deadline, sent to the backend. */
  readonly timeoutMs: number;
}

/** A tool made ready to be called: what depends only on its definition is done once. */
export interface Invoker {
  readonly streaming: Streaming;
  readonly policy: AuthorPolicy;
  /** Checks JSON arguments and converts them; throws `invalidArgument` with paths below `path`. */
  parse(json: JsonObject, path: string): Input;
  /** Checks a Protobuf request; throws `invalidArgument` when its type is not the tool's or the tool has none. */
  parseMessage(message: Any, path: string): Input;
  /** Bytes that two inputs share only if they ask for the same. */
  fingerprint(input: Input): Uint8Array;
  /** The result that an output's `bytes` were taken from. */
  restore(bytes: Uint8Array): Output;
  /** The result that JSON stands for. Throws when it is none of this tool's. */
  resultOf(json: JsonValue): Output;
  /**
   * Calls the tool. Results come as the backend sends them; leaving the iteration cancels the call. A failure is thrown
   * as a ConnectError with the backend's own code, message, metadata and details.
   */
  invoke(inputs: Iterable<Input> | AsyncIterable<Input>, invocation: Invocation): AsyncIterable<Output>;
}

/** Calls the tools of one kind of definition. */
export interface Backend {
  readonly kind: Definition["kind"];
  /** Makes a tool ready to be called. Throws a DomainError when the definition does not hold it or it cannot be read. */
  invoker(definition: Definition, sourceName: string): Invoker;
}
