import type { JsonValue } from "@bufbuild/protobuf";
import type { ModelMessage } from "ai";

export type { ModelMessage } from "ai";

/** A model that can be asked. Prices are in United States dollars for a million tokens; undefined: not known. */
export interface Model {
  /** How it is named to users, such as `anthropic/claude-sonnet-4-5`. */
  readonly name: string;
  readonly provider: string;
  readonly protocol: "anthropic" | "openai";
  /** Its name at the provider. */
  readonly model: string;
  readonly inputPrice: number | undefined;
  readonly cachedInputPrice: number | undefined;
  readonly outputPrice: number | undefined;
  readonly maxOutputTokens: number;
}

/** A tool as a model sees it. */
export interface OfferedTool {
  /** As the provider allows names: see `createNameMap`. */
  readonly name: string;
  readonly description: string;
  /** A JSON Schema of an object, in the shape that the provider takes. */
  readonly inputSchema: JsonValue;
}

export interface TurnRequest {
  readonly model: Model;
  readonly system: string;
  readonly messages: readonly ModelMessage[];
  readonly tools: readonly OfferedTool[];
  /**
   * `none`: no tool may be called in this turn, although there are some. Providers want those declared that a conversation
   * has calls of, and what stands at the beginning of a prompt should not change. Default: any may be called.
   */
  readonly toolChoice?: "none" | undefined;
  readonly maxOutputTokens: number;
}

/** A call that a model wants made. */
export interface WantedCall {
  readonly id: string;
  /** As offered, or as the model made it up. */
  readonly name: string;
  /** Undefined: what the model wrote is no JSON; then `text` is what it wrote. */
  readonly arguments: JsonValue | undefined;
  readonly text: string;
}

/** What a model has answered, all of it JSON so that it can be kept and sent back. */
export interface Turn {
  readonly text: string;
  readonly calls: readonly WantedCall[];
  readonly finish: "stop" | "length" | "tool-calls" | "content-filter" | "other";
  readonly usage: TokenUsage;
  /** The messages to send back in the next turn, as they are. */
  readonly messages: readonly ModelMessage[];
}

export interface TokenUsage {
  /** All that was read, what came from the prompt cache included. */
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
}

export interface TurnOptions {
  readonly signal: AbortSignal;
  /** What the model writes, as it writes it. */
  readonly onDelta: (delta: { readonly text: string; readonly reasoning: string }) => void;
}

/** The models that this server can ask. */
export interface ModelGateway {
  /**
   * Finds a model: a configured name, `provider/model`, or, empty, the default one. Throws FAILED_PRECONDITION with reason
   * `NO_MODEL_PROVIDER` that says what to set when there is no provider, and INVALID_ARGUMENT that names those that there
   * are when it is not known.
   */
  find(name: string): Model;
  /**
   * Asks for one turn, once; whoever asks repeats. Throws DomainErrors: UNAVAILABLE (overload, a cut stream, silence) and
   * RESOURCE_EXHAUSTED (rate limit) may be repeated, after `retryAfterMs` where it is given; INVALID_ARGUMENT,
   * UNAUTHENTICATED, PERMISSION_DENIED and NOT_FOUND may not. No key is ever in a message.
   */
  turn(request: TurnRequest, options: TurnOptions): Promise<Turn>;
  /** Undefined: its price is not known. */
  costUsd(model: Model, usage: TokenUsage): number | undefined;
  close(): Promise<void>;
}
