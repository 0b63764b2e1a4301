import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { checkOpenAi } from "./openai-rules.ts";
import type { Answer, FailureCause, ModelServer, Script, ScriptedMessage, ScriptedUsage } from "./script.ts";
import {
  asObject,
  asObjects,
  asText,
  blocks,
  event,
  type ModelServerOptions,
  type Protocol,
  pieces,
  startModelServer,
} from "./streaming-server.ts";

/** Starts a server that speaks OpenAI's chat completions API, streaming only, and refuses what that refuses. */
export function startOpenAiServer(script: Script, options: ModelServerOptions = {}): Promise<ModelServer> {
  return startModelServer(OPENAI, script, options);
}

const OPENAI: Protocol = {
  version: "/v1",
  path: "/chat/completions",
  key: (key) => ["authorization", `Bearer ${key}`],
  check: checkOpenAi,
  read: (body) => {
    const messages = asObjects(body["messages"]);
    return {
      model: asText(body["model"]),
      system: messages
        .filter(({ role }) => role === "system" || role === "developer")
        .map(contentText)
        .join("\n"),
      messages: readMessages(messages),
      tools: asObjects(body["tools"]).map((tool) => {
        const { name, description, parameters } = asObject(tool["function"]);
        return { name: asText(name), description: asText(description), inputSchema: parameters ?? null };
      }),
    };
  },
  failure,
  events,
  start: (body, number) => chunk(body, number, { role: "assistant", content: "" }),
};

type Words = readonly [status: number, type: string, code: string | null, message: string];

const FAILURES: Readonly<Record<FailureCause, Words>> = {
  overloaded: [503, "server_error", null, "The engine is currently overloaded, please try again later"],
  "rate-limited": [429, "requests", "rate_limit_exceeded", "Rate limit reached for requests"],
  "too-long": [
    400,
    "invalid_request_error",
    "context_length_exceeded",
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
  ],
  invalid: [400, "invalid_request_error", null, "invalid request"],
  unauthenticated: [401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"],
  forbidden: [
    403,
    "invalid_request_error",
    "unsupported_country",
    "Country, region, or territory not supported",
  ],
  "no-model": [404, "invalid_request_error", "model_not_found", "The model does not exist"],
  "no-credit": [429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"],
  broken: [500, "server_error", null, "The server had an error while processing your request"],
};

function failure(cause: FailureCause, message: string | undefined): { status: number; body: JsonObject } {
  const [status, type, code, words] = FAILURES[cause];
  return { status, body: { error: { message: message ?? words, type, param: null, code } } };
}

function readMessages(messages: readonly JsonObject[]): ScriptedMessage[] {
  const names = new Map<string, string>();
  const read: ScriptedMessage[] = [];
  for (const message of messages) {
    switch (message["role"]) {
      case "user":
        read.push({ role: "user", text: contentText(message) });
        break;
      case "assistant": {
        const calls = asObjects(message["tool_calls"]).map((call) => {
          const { name, arguments: text } = asObject(call["function"]);
          return {
            id: asText(call["id"]),
            name: asText(name),
            arguments: JSON.parse(asText(text)) as JsonValue,
          };
        });
        for (const { id, name } of calls) {
          names.set(id, name);
        }
        read.push({ role: "assistant", text: contentText(message), calls });
        break;
      }
      case "tool": {
        const id = asText(message["tool_call_id"]);
        // This protocol does not tell failures apart.
        const result = { id, name: names.get(id) ?? "", text: contentText(message), isError: false };
        const last = read.at(-1);
        if (last?.role === "tool") {
          read[read.length - 1] = { role: "tool", results: [...last.results, result] };
        } else {
          read.push({ role: "tool", results: [result] });
        }
      }
    }
  }
  return read;
}

function contentText({ content }: JsonObject): string {
  return typeof content === "string"
    ? content
    : asObjects(content)
        .map(({ text }) => asText(text))
        .join("");
}

async function* events(answer: Answer, body: JsonObject, number: number): AsyncIterable<string> {
  yield chunk(body, number, { role: "assistant", content: "" });
  for await (const reasoning_content of pieces(answer.thinking)) {
    yield chunk(body, number, { reasoning_content });
  }
  for await (const content of pieces(answer.text)) {
    yield chunk(body, number, { content });
  }
  for (const [index, call] of (answer.calls ?? []).entries()) {
    const id = call.id ?? `call_${number}_${index}`;
    const text = call.text ?? (call.arguments === undefined ? "" : JSON.stringify(call.arguments));
    const head = { index, id, type: "function", function: { name: call.name, arguments: "" } };
    yield chunk(body, number, { tool_calls: [head] });
    for (const part of blocks(text, Math.max(16, Math.ceil(text.length / 64)))) {
      yield chunk(body, number, { tool_calls: [{ index, function: { arguments: part } }] });
    }
  }
  if (answer.failure !== undefined) {
    yield event(failure(answer.failure, undefined).body);
    return;
  }
  if (answer.unfinished) {
    return;
  }
  yield chunk(body, number, {}, finishReason(answer));
  if (asObject(body["stream_options"])["include_usage"] === true && answer.usage !== "missing") {
    yield event({ ...envelope(body, number), choices: [], usage: usageChunk(answer.usage, body) });
  }
  yield "data: [DONE]\n\n";
}

function envelope(body: JsonObject, number: number): JsonObject {
  return {
    id: `chatcmpl-${number}`,
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: body["model"] ?? null,
  };
}

function chunk(body: JsonObject, number: number, delta: JsonObject, finish: string | null = null): string {
  return event({ ...envelope(body, number), choices: [{ index: 0, delta, finish_reason: finish }] });
}

function usageChunk(usage: ScriptedUsage | undefined, body: JsonObject): JsonObject {
  const { input, cached, output } = usage ?? {
    input: Math.ceil(JSON.stringify(body).length / 4),
    cached: 0,
    output: 10,
  };
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output,
    prompt_tokens_details: { cached_tokens: cached },
  };
}

const FINISH_REASONS = { length: "length", refusal: "content_filter", stop: "stop" } as const;

function finishReason({ finish, calls = [] }: Answer): string {
  return finish === undefined ? (calls.length > 0 ? "tool_calls" : "stop") : FINISH_REASONS[finish];
}
