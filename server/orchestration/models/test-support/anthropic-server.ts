import type { JsonObject } from "@bufbuild/protobuf";
import { checkAnthropic, contentOf } from "./anthropic-rules.ts";
import type { Answer, FailureCause, ModelServer, Script, ScriptedMessage, ScriptedUsage } from "./script.ts";
import { signatureOf } from "./signature.ts";
import {
  asObjects,
  asText,
  blocks,
  event,
  type ModelServerOptions,
  type Protocol,
  pieces,
  startModelServer,
} from "./streaming-server.ts";

/** Starts a server that speaks Anthropic's Messages API, streaming only, and refuses what that refuses. */
export function startAnthropicServer(script: Script, options: ModelServerOptions = {}): Promise<ModelServer> {
  return startModelServer(ANTHROPIC, script, options);
}

const ANTHROPIC: Protocol = {
  version: "/v1",
  path: "/messages",
  key: (key) => ["x-api-key", key],
  check: checkAnthropic,
  read: (body) => ({
    model: asText(body["model"]),
    system: textOf(contentOf({ content: body["system"] ?? "" })),
    messages: readMessages(asObjects(body["messages"])),
    tools: asObjects(body["tools"]).map((tool) => ({
      name: asText(tool["name"]),
      description: asText(tool["description"]),
      inputSchema: tool["input_schema"] ?? null,
    })),
  }),
  failure,
  events,
  start: messageStart,
};

const FAILURES: Readonly<Record<FailureCause, readonly [status: number, type: string, message: string]>> = {
  overloaded: [529, "overloaded_error", "Overloaded"],
  "rate-limited": [429, "rate_limit_error", "This request would exceed your organization's rate limit"],
  "too-long": [400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"],
  invalid: [400, "invalid_request_error", "invalid request"],
  unauthenticated: [401, "authentication_error", "invalid x-api-key"],
  forbidden: [
    403,
    "permission_error",
    "Your API key does not have permission to use the specified resource.",
  ],
  "no-model": [404, "not_found_error", "model: not found"],
  "no-credit": [400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."],
  broken: [500, "api_error", "Internal server error"],
};

function failure(cause: FailureCause, message: string | undefined): { status: number; body: JsonObject } {
  const [status, type, words] = FAILURES[cause];
  return { status, body: { type: "error", error: { type, message: message ?? words } } };
}

function readMessages(messages: readonly JsonObject[]): ScriptedMessage[] {
  const names = new Map<string, string>();
  return messages.flatMap((message): ScriptedMessage[] => {
    const content = contentOf(message);
    if (message["role"] === "assistant") {
      const calls = content
        .filter(({ type }) => type === "tool_use")
        .map((block) => ({
          id: asText(block["id"]),
          name: asText(block["name"]),
          arguments: block["input"] ?? null,
        }));
      for (const { id, name } of calls) {
        names.set(id, name);
      }
      return [{ role: "assistant", text: textOf(content), calls }];
    }
    const results = content
      .filter(({ type }) => type === "tool_result")
      .map((block) => ({
        id: asText(block["tool_use_id"]),
        name: names.get(asText(block["tool_use_id"])) ?? "",
        text: textOf(contentOf(block)),
        isError: block["is_error"] === true,
      }));
    const text = textOf(content);
    return [
      ...(results.length > 0 ? [{ role: "tool" as const, results }] : []),
      ...(text === "" ? [] : [{ role: "user" as const, text }]),
    ];
  });
}

function textOf(content: readonly JsonObject[]): string {
  return content
    .filter(({ type }) => type === "text")
    .map(({ text }) => asText(text))
    .join("");
}

async function* events(answer: Answer, body: JsonObject, number: number): AsyncIterable<string> {
  const usage = usageOf(answer, body);
  yield messageStart(body, number, usage);
  yield event({ type: "ping" }, "ping");
  let index = 0;
  if (answer.thinking !== undefined) {
    yield* block(index++, { type: "thinking", thinking: "", signature: "" }, [
      ...blocks(answer.thinking, 16).map((thinking) => ({ type: "thinking_delta", thinking })),
      { type: "signature_delta", signature: signatureOf(answer.thinking) },
    ]);
  }
  if (answer.text !== undefined && answer.text !== "") {
    yield* block(index++, { type: "text", text: "" }, textDeltas(answer.text));
  }
  for (const [place, call] of (answer.calls ?? []).entries()) {
    const id = call.id ?? `toolu_${number}_${place}`;
    const text = call.text ?? (call.arguments === undefined ? "" : JSON.stringify(call.arguments));
    yield* block(
      index++,
      { type: "tool_use", id, name: call.name, input: {} },
      ["", ...blocks(text, Math.max(16, Math.ceil(text.length / 64)))].map((partial_json) => ({
        type: "input_json_delta",
        partial_json,
      })),
    );
  }
  if (answer.failure !== undefined) {
    yield event(failure(answer.failure, undefined).body, "error");
    return;
  }
  if (answer.unfinished) {
    return;
  }
  yield event(
    {
      type: "message_delta",
      delta: { stop_reason: stopReason(answer), stop_sequence: null },
      usage: { output_tokens: usage.output },
    },
    "message_delta",
  );
  yield event({ type: "message_stop" }, "message_stop");
}

async function* textDeltas(text: string | AsyncIterable<string>): AsyncIterable<JsonObject> {
  for await (const piece of pieces(text)) {
    yield { type: "text_delta", text: piece };
  }
}

async function* block(
  index: number,
  start: JsonObject,
  deltas: Iterable<JsonObject> | AsyncIterable<JsonObject>,
): AsyncIterable<string> {
  yield event({ type: "content_block_start", index, content_block: start }, "content_block_start");
  for await (const delta of deltas) {
    yield event({ type: "content_block_delta", index, delta }, "content_block_delta");
  }
  yield event({ type: "content_block_stop", index }, "content_block_stop");
}

function messageStart(body: JsonObject, number: number, usage?: ScriptedUsage): string {
  const { input = 1, cached = 0, written = 0 } = usage ?? {};
  const message: JsonObject = {
    id: `msg_${number}`,
    type: "message",
    role: "assistant",
    model: body["model"] ?? null,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: {
      input_tokens: input - cached - written,
      cache_creation_input_tokens: written,
      cache_read_input_tokens: cached,
      output_tokens: 1,
    },
  };
  return event({ type: "message_start", message }, "message_start");
}

/** This protocol always tells; what stands for missing are zeros. */
function usageOf(answer: Answer, body: JsonObject): ScriptedUsage {
  if (answer.usage === "missing") {
    return { input: 0, cached: 0, output: 0 };
  }
  return answer.usage ?? { input: Math.ceil(JSON.stringify(body).length / 4), cached: 0, output: 10 };
}

const STOP_REASONS = { length: "max_tokens", refusal: "refusal", stop: "end_turn" } as const;

function stopReason({ finish, calls = [] }: Answer): string {
  return finish === undefined ? (calls.length > 0 ? "tool_use" : "end_turn") : STOP_REASONS[finish];
}
