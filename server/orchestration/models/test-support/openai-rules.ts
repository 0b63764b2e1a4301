import type { JsonObject } from "@bufbuild/protobuf";
import { asObject, asObjects, asText } from "./streaming-server.ts";

const MAX_TOOLS = 128;

/** What OpenAI's chat completions API refuses, in words like its own. */
export function checkOpenAi(body: JsonObject): string | undefined {
  return checkHead(body) ?? checkTools(body) ?? checkMessages(asObjects(body["messages"]));
}

function checkHead(body: JsonObject): string | undefined {
  if (asText(body["model"]) === "") {
    return "you must provide a model parameter";
  }
  const maxTokens = body["max_tokens"] ?? 1;
  if (typeof maxTokens !== "number" || !Number.isInteger(maxTokens) || maxTokens < 1) {
    return "Invalid 'max_tokens': integer below minimum value.";
  }
  if (body["stream"] !== true) {
    return "this stand-in only streams";
  }
  return undefined;
}

function checkTools(body: JsonObject): string | undefined {
  if (body["tools"] === undefined) {
    return body["tool_choice"] === undefined
      ? undefined
      : "'tool_choice' is only allowed when 'tools' are specified.";
  }
  const tools = asObjects(body["tools"]);
  if (tools.length === 0) {
    return "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.";
  }
  if (tools.length > MAX_TOOLS) {
    return `Invalid 'tools': array too long. Expected an array with maximum length ${MAX_TOOLS}.`;
  }
  const names = new Set<string>();
  for (const [index, tool] of tools.entries()) {
    const { name, parameters } = asObject(tool["function"]);
    if (!/^[a-zA-Z0-9_-]{1,64}$/.test(asText(name))) {
      return `Invalid 'tools[${index}].function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$' and is at most 64 long.`;
    }
    if (names.has(asText(name))) {
      return `Invalid 'tools[${index}].function.name': the name is used twice.`;
    }
    names.add(asText(name));
    const schema = asObject(parameters);
    if (schema["type"] !== "object") {
      return `Invalid schema for function '${asText(name)}': schema must be a JSON Schema of 'type: "object"'.`;
    }
    if (["anyOf", "oneOf", "allOf", "enum", "not"].some((word) => word in schema)) {
      return `Invalid schema for function '${asText(name)}': schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level.`;
    }
  }
  return undefined;
}

function checkMessages(messages: readonly JsonObject[]): string | undefined {
  if (messages.length === 0) {
    return "Invalid 'messages': empty array.";
  }
  /** Of the last message of the assistant, those that nothing has answered yet. */
  let open = new Set<string>();
  for (const [index, message] of messages.entries()) {
    const { role, content } = message;
    if (role === "tool") {
      if (!open.delete(asText(message["tool_call_id"]))) {
        return `Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'. (messages.[${index}].role)`;
      }
      if (typeof content !== "string") {
        return `Invalid type for 'messages[${index}].content': expected a string.`;
      }
      continue;
    }
    if (open.size > 0) {
      return `An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: ${[...open].join(", ")}`;
    }
    switch (role) {
      case "system":
      case "developer":
      case "user":
        if (typeof content !== "string" && asObjects(content).length === 0) {
          return `Invalid type for 'messages[${index}].content': expected a string or a list.`;
        }
        break;
      case "assistant": {
        const mistake = checkAssistant(message, index);
        if (mistake !== undefined) {
          return mistake;
        }
        open = new Set(asObjects(message["tool_calls"]).map(({ id }) => asText(id)));
        break;
      }
      default:
        return `Invalid value: '${asText(role)}'. Supported values are: 'system', 'assistant', 'user', 'tool', and 'developer'.`;
    }
  }
  return open.size > 0
    ? `An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: ${[...open].join(", ")}`
    : undefined;
}

function checkAssistant(message: JsonObject, index: number): string | undefined {
  const calls = asObjects(message["tool_calls"]);
  if ("tool_calls" in message && calls.length === 0) {
    return `Invalid 'messages[${index}].tool_calls': empty array.`;
  }
  if (calls.length === 0 && typeof message["content"] !== "string") {
    return `Invalid value for 'content': expected a string, got null. (messages.[${index}].content)`;
  }
  if (new Set(calls.map(({ id }) => id)).size < calls.length) {
    return `Invalid 'messages[${index}].tool_calls': ids must be unique.`;
  }
  const wrong = calls.findIndex((call) => {
    const { name, arguments: text } = asObject(call["function"]);
    return call["type"] !== "function" || !/^[a-zA-Z0-9_-]{1,64}$/.test(asText(name)) || !isJsonObject(text);
  });
  return wrong < 0
    ? undefined
    : `Invalid 'messages[${index}].tool_calls[${wrong}].function': a name that matches '^[a-zA-Z0-9_-]+$' and a JSON object as arguments are needed.`;
}

function isJsonObject(text: JsonObject[string] | undefined): boolean {
  try {
    const value: unknown = JSON.parse(asText(text));
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
