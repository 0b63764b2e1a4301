import type { IncomingMessage } from "node:http";
import type { JsonObject } from "@bufbuild/protobuf";
import { signatureOf } from "./signature.ts";
import { asObject, asObjects, asText } from "./streaming-server.ts";

const FIELDS = new Set([
  "model",
  "max_tokens",
  "messages",
  "system",
  "tools",
  "tool_choice",
  "stream",
  "temperature",
  "top_k",
  "top_p",
  "stop_sequences",
  "metadata",
  "thinking",
  "service_tier",
]);

/** What Anthropic's Messages API refuses, in words like its own. */
export function checkAnthropic(body: JsonObject, request: IncomingMessage): string | undefined {
  return (
    checkHead(body, request) ??
    checkTools(body) ??
    checkMessages(asObjects(body["messages"]), body) ??
    checkCache(body)
  );
}

function checkHead(body: JsonObject, request: IncomingMessage): string | undefined {
  if (request.headers["anthropic-version"] !== "2023-06-01") {
    return "anthropic-version: header is required";
  }
  const unknown = Object.keys(body).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) {
    return `${unknown}: Extra inputs are not permitted`;
  }
  if (asText(body["model"]) === "") {
    return "model: Field required";
  }
  const maxTokens = body["max_tokens"];
  if (typeof maxTokens !== "number" || !Number.isInteger(maxTokens) || maxTokens < 1) {
    return "max_tokens: Field required";
  }
  if (body["stream"] !== true) {
    return "stream: this stand-in only streams";
  }
  const texts = Array.isArray(body["system"]) ? asObjects(body["system"]) : [];
  return texts.some(({ text }) => asText(text) === "")
    ? "system: text content blocks must be non-empty"
    : undefined;
}

function checkTools(body: JsonObject): string | undefined {
  const names = new Set<string>();
  for (const [index, tool] of asObjects(body["tools"]).entries()) {
    const name = asText(tool["name"]);
    const field = `tools.${index}.custom`;
    if (!/^[a-zA-Z0-9_-]{1,128}$/.test(name)) {
      return `${field}.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'`;
    }
    if (names.has(name)) {
      return "tools: Tool names must be unique.";
    }
    names.add(name);
    const schema = asObject(tool["input_schema"]);
    if (schema["type"] !== "object") {
      return `${field}.input_schema.type: Field required`;
    }
    if ("anyOf" in schema || "oneOf" in schema || "allOf" in schema) {
      return `${field}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level`;
    }
  }
  return undefined;
}

function checkMessages(messages: readonly JsonObject[], body: JsonObject): string | undefined {
  if (messages.length === 0) {
    return "messages: at least one message is required";
  }
  if (messages[0]?.["role"] !== "user") {
    return 'messages: first message must use the "user" role';
  }
  if (messages.at(-1)?.["role"] === "assistant") {
    return "This model does not support assistant message prefill. The conversation must end with a user message.";
  }
  const used = new Set<string>();
  let usesTools = false;
  for (const [index, message] of messages.entries()) {
    const content = contentOf(message);
    const mistake = checkContent(message, content, index);
    if (mistake !== undefined) {
      return mistake;
    }
    const calls = idsOf(content, "tool_use", "id");
    const twin = calls.find((id, place) => used.has(id) || calls.indexOf(id) !== place);
    if (twin !== undefined) {
      return `messages.${index}: \`tool_use\` ids must be unique`;
    }
    for (const id of calls) {
      used.add(id);
    }
    usesTools ||= calls.length > 0;
    const before = index === 0 ? [] : idsOf(contentOf(messages[index - 1] ?? {}), "tool_use", "id");
    const results = idsOf(content, "tool_result", "tool_use_id");
    const stray = results.find((id) => !before.includes(id));
    if (stray !== undefined) {
      return `messages.${index}.content.0: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${stray}. Each \`tool_result\` block must have a corresponding \`tool_use\` block in the previous message.`;
    }
    const leading = content.slice(0, results.length).every(({ type }) => type === "tool_result");
    const missing = before.filter((id) => !results.includes(id));
    if (missing.length > 0 || !leading) {
      return `messages.${index - 1}: \`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${missing.join(", ")}. Each \`tool_use\` block must have a corresponding \`tool_result\` block in the next message.`;
    }
    if (new Set(results).size < results.length) {
      return `messages.${index}: each tool_use must have a single result`;
    }
  }
  return usesTools && asObjects(body["tools"]).length === 0
    ? "Requests which include `tool_use` or `tool_result` blocks must define tools."
    : undefined;
}

function checkContent(
  { role }: JsonObject,
  content: readonly JsonObject[],
  index: number,
): string | undefined {
  if (role !== "user" && role !== "assistant") {
    return `messages.${index}.role: Input should be 'user' or 'assistant'`;
  }
  if (content.length === 0) {
    return `messages.${index}: all messages must have non-empty content`;
  }
  for (const [place, block] of content.entries()) {
    const field = `messages.${index}.content.${place}`;
    switch (block["type"]) {
      case "text":
        if (asText(block["text"]).trim() === "") {
          return `${field}: text content blocks must contain non-whitespace text`;
        }
        break;
      case "tool_use":
        if (role !== "assistant") {
          return `${field}: \`tool_use\` blocks can only be in \`assistant\` messages`;
        }
        if (!/^[a-zA-Z0-9_-]+$/.test(asText(block["id"]))) {
          return `${field}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'`;
        }
        if (!/^[a-zA-Z0-9_-]{1,200}$/.test(asText(block["name"]))) {
          return `${field}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,200}$'`;
        }
        if (typeof block["input"] !== "object" || block["input"] === null || Array.isArray(block["input"])) {
          return `${field}.tool_use.input: Input should be a valid dictionary`;
        }
        break;
      case "tool_result":
        if (role !== "user") {
          return `${field}: \`tool_result\` blocks can only be in \`user\` messages`;
        }
        break;
      case "thinking":
        if (block["signature"] !== signatureOf(asText(block["thinking"]))) {
          return `${field}: Invalid \`signature\` in \`thinking\` block`;
        }
        break;
      case "redacted_thinking":
        break;
      default:
        return `${field}: Input tag '${asText(block["type"])}' found using 'type' does not match any of the expected tags`;
    }
  }
  return undefined;
}

function checkCache(body: JsonObject): string | undefined {
  const count = JSON.stringify(body).split('"cache_control":').length - 1;
  return count > 4 ? `A maximum of 4 blocks with cache_control may be provided. Found ${count}.` : undefined;
}

export function contentOf({ content }: JsonObject): JsonObject[] {
  return typeof content === "string" ? [{ type: "text", text: content }] : asObjects(content);
}

function idsOf(content: readonly JsonObject[], type: string, field: string): string[] {
  return content.filter((block) => block["type"] === type).map((block) => asText(block[field]));
}
