import type { IncomingHttpHeaders } from "node:http";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** A server that speaks a provider's protocol and does what its script says. */
export interface ModelServer {
  /** The base URL, with the version's path. */
  readonly url: string;
  /** All that was sent to it, refused or not, in the order of arrival. */
  readonly requests: readonly RecordedRequest[];
  /** Drops connections that are open. */
  close(): Promise<void>;
}

export interface RecordedRequest {
  readonly headers: IncomingHttpHeaders;
  readonly body: JsonObject;
  /** Aborted when whoever asked has gone away before the answer was whole. */
  readonly left: AbortSignal;
  /** What was wrong with it; undefined: nothing. */
  readonly refusal: string | undefined;
}

/** What a model is asked, the same for every protocol. */
export interface ScriptedRequest {
  /** Counts the requests of this server that were not refused, from 1. */
  readonly number: number;
  /** One more than there are messages of the assistant since the last words of the user: the turn of a loop over tools. */
  readonly turn: number;
  readonly model: string;
  readonly system: string;
  readonly messages: readonly ScriptedMessage[];
  readonly tools: readonly ScriptedTool[];
  /** The last words of the user. */
  readonly task: string;
  /** Of the last turn's calls, in the order in which they were sent. */
  readonly results: readonly ScriptedResult[];
  readonly left: AbortSignal;
}

export type ScriptedMessage =
  | { readonly role: "user"; readonly text: string }
  | { readonly role: "assistant"; readonly text: string; readonly calls: readonly SentCall[] }
  | { readonly role: "tool"; readonly results: readonly ScriptedResult[] };

export interface SentCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: JsonValue;
}

export interface ScriptedResult {
  readonly id: string;
  /** The tool that was called. */
  readonly name: string;
  readonly text: string;
  readonly isError: boolean;
}

export interface ScriptedTool {
  readonly name: string;
  readonly description: string;
  readonly inputSchema: JsonValue;
}

/** What the model does with each request. A promise that waits keeps whoever asked waiting. */
export type Script = (request: ScriptedRequest) => Behaviour | Promise<Behaviour>;

export type Behaviour =
  | Answer
  | Refusal
  /** Any bytes, as they are. */
  | {
      readonly kind: "raw";
      readonly body: string | AsyncIterable<string>;
      readonly contentType: string;
      readonly status: number;
    }
  /** Nothing ever comes; with `started`, nothing after the first event. */
  | { readonly kind: "silence"; readonly started: boolean }
  /** The connection breaks before anything has come. */
  | { readonly kind: "reset" };

export interface Answer {
  readonly kind: "answer";
  /** What it thinks before it answers. */
  readonly thinking?: string;
  /** In pieces; an iterable that waits makes slow tokens. */
  readonly text?: string | AsyncIterable<string>;
  readonly calls?: readonly ScriptedCall[];
  /** Unset: what fits. */
  readonly finish?: "stop" | "length" | "refusal";
  /** Unset: made up from lengths. `missing`: the provider does not tell. */
  readonly usage?: ScriptedUsage | "missing";
  /** Breaks the connection after so many bytes of the answer. */
  readonly cutAfterBytes?: number;
  /** Ends the answer in good order, but before it says how it finished. */
  readonly unfinished?: boolean;
  /** Tells of a failure in the middle, after text and calls, instead of the end. */
  readonly failure?: FailureCause;
}

export interface ScriptedUsage {
  /** All that was read. */
  readonly input: number;
  /** Of these, from the cache. */
  readonly cached: number;
  /** Of these, into the cache; only Anthropic tells. */
  readonly written?: number;
  readonly output: number;
}

export interface ScriptedCall {
  readonly name: string;
  readonly arguments?: JsonValue;
  /** Instead of `arguments`: what the model writes, which need not be JSON. */
  readonly text?: string;
  /** Unset: one that no other call has. */
  readonly id?: string;
}

/** Why a provider fails; each protocol has its own status and words for it. */
export type FailureCause =
  | "overloaded"
  | "rate-limited"
  | "too-long"
  | "invalid"
  | "unauthenticated"
  | "forbidden"
  | "no-model"
  | "no-credit"
  | "broken";

export interface Refusal {
  readonly kind: "refusal";
  readonly cause: FailureCause;
  /** Unset: the one that the protocol has for the cause. */
  readonly status?: number;
  readonly message?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export function says(text: string | AsyncIterable<string>, more: Partial<Answer> = {}): Answer {
  return { kind: "answer", text, ...more };
}

export function callsTools(calls: readonly ScriptedCall[], more: Partial<Answer> = {}): Answer {
  return { kind: "answer", calls, ...more };
}

export function refuses(cause: FailureCause, more: Partial<Refusal> = {}): Refusal {
  return { kind: "refusal", cause, ...more };
}

export function sends(body: string | AsyncIterable<string>, contentType = "text/event-stream"): Behaviour {
  return { kind: "raw", body, contentType, status: 200 };
}

/** Takes the scripts' behaviours one after the other, and the last one from then on. */
export function inTurn(...behaviours: readonly [Behaviour, ...Behaviour[]]): Script {
  let next = 0;
  return () => behaviours[Math.min(next++, behaviours.length - 1)] ?? behaviours[0];
}

/** Says all that it was sent, as JSON. */
export const echoes: Script = ({ system, messages, tools }) =>
  says(JSON.stringify({ system, messages, tools }));
