import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import {
  callsTools,
  type ModelServer,
  says,
  startAnthropicServer,
  startOpenAiServer,
} from "./model-servers.ts";

/*
 * What the real services refuse has to be refused here too: else a mistake in what is sent shows only with them.
 */

async function post(
  server: ModelServer,
  path: string,
  body: JsonObject,
): Promise<{ status: number; text: string }> {
  const response = await fetch(`${server.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", "anthropic-version": "2023-06-01" },
    body: JSON.stringify(body),
  });
  return { status: response.status, text: await response.text() };
}

function anthropic(body: JsonObject) {
  return ask(
    startAnthropicServer(() => says("Yes.")),
    "/messages",
    { max_tokens: 10, ...body },
  );
}

function openAi(body: JsonObject) {
  return ask(
    startOpenAiServer(() => says("Yes.")),
    "/chat/completions",
    body,
  );
}

async function ask(starting: Promise<ModelServer>, path: string, body: JsonObject) {
  const server = await starting;
  onTestFinished(() => server.close());
  const whole = { model: "m", stream: true, messages: [{ role: "user", content: "?" }], ...body };
  return await post(server, path, whole);
}

const USE = { type: "tool_use", id: "a", name: "t", input: {} };
const RESULT = { type: "tool_result", tool_use_id: "a", content: "1" };
const SCHEMA = { type: "object" };
const TOOLS = [{ name: "t", input_schema: SCHEMA }];
const said = (...contents: JsonValue[]) =>
  contents.map((content, index) => ({ role: index % 2 === 0 ? "user" : "assistant", content }));

test.each<[string, JsonObject]>([
  ["words", {}],
  ["calls with results", { tools: TOOLS, messages: said("?", [USE], [RESULT, { type: "text", text: "!" }]) }],
  ["two messages of the user in a row", { messages: [...said("?"), ...said("!")] }],
])("Anthropic's stand-in takes %s", async (_, body) => {
  const { status, text } = await anthropic(body);

  expect(status, text).toBe(200);
  expect(text).toContain("event: message_stop");
});

test.each<[string, JsonObject, string]>([
  ["no limit", { max_tokens: 0 }, "max_tokens"],
  ["no model", { model: "" }, "model"],
  ["no messages", { messages: [] }, "at least one message"],
  ["a field that it does not know", { stream_options: {} }, "Extra inputs"],
  ["a first message of the assistant", { messages: said("?", "!").slice(1) }, "first message"],
  ["a last message of the assistant", { messages: said("?", "!") }, "prefill"],
  ["a message of the system", { messages: [...said("?"), { role: "system", content: "x" }] }, "role"],
  ["empty words", { messages: said([{ type: "text", text: " " }]) }, "non-whitespace"],
  ["an empty message", { messages: said([]) }, "non-empty"],
  ["a call without a result", { tools: TOOLS, messages: said("?", [USE], "!") }, "without `tool_result`"],
  ["a result without a call", { tools: TOOLS, messages: said([RESULT]) }, "unexpected `tool_use_id`"],
  [
    "a result too late",
    { tools: TOOLS, messages: said("?", "!", "?", [USE], "!", "?", [RESULT]) },
    "`tool_result`",
  ],
  [
    "words before results",
    { tools: TOOLS, messages: said("?", [USE], [{ type: "text", text: "!" }, RESULT]) },
    "without `tool_result`",
  ],
  ["calls with the same id", { tools: TOOLS, messages: said("?", [USE, USE], [RESULT]) }, "unique"],
  [
    "an input that is no object",
    { tools: TOOLS, messages: said("?", [{ ...USE, input: "x" }], [RESULT]) },
    "dictionary",
  ],
  ["calls without tools", { messages: said("?", [USE], [RESULT]) }, "must define tools"],
  ["a tool's name with a dot", { tools: [{ name: "a.b", input_schema: SCHEMA }] }, "pattern"],
  ["two tools of one name", { tools: [...TOOLS, ...TOOLS] }, "unique"],
  ["a schema of no object", { tools: [{ name: "t", input_schema: {} }] }, "input_schema.type"],
  [
    "alternatives at the top of a schema",
    { tools: [{ name: "t", input_schema: { ...SCHEMA, anyOf: [] } }] },
    "anyOf",
  ],
  [
    "thoughts that were changed",
    { messages: said("?", [{ type: "thinking", thinking: "x", signature: "y" }], "!") },
    "signature",
  ],
  [
    "too many marks for the cache",
    { messages: said(Array.from({ length: 5 }, () => ({ type: "text", text: "x", cache_control: {} }))) },
    "maximum of 4",
  ],
])("Anthropic's stand-in refuses %s", async (_, body, words) => {
  const { status, text } = await anthropic(body);

  expect(status).toBe(400);
  expect(text).toContain(words);
});

const CALL = { id: "a", type: "function", function: { name: "t", arguments: "{}" } };
const CALLING = { role: "assistant", content: null, tool_calls: [CALL] };
const ANSWER = { role: "tool", tool_call_id: "a", content: "1" };
const QUESTION = { role: "user", content: "?" };
const tool = (name: string, parameters: JsonObject) => ({ type: "function", function: { name, parameters } });

test.each<[string, JsonObject]>([
  ["words", {}],
  ["calls with results", { messages: [QUESTION, CALLING, ANSWER, QUESTION] }],
])("OpenAI's stand-in takes %s", async (_, body) => {
  const { status, text } = await openAi(body);

  expect(status, text).toBe(200);
  expect(text).toMatch(/data: \[DONE\]\n\n$/);
});

test.each<[string, JsonObject, string]>([
  ["no model", { model: "" }, "model"],
  ["no messages", { messages: [] }, "empty array"],
  ["a limit of nothing", { max_tokens: 0 }, "max_tokens"],
  ["an empty list of tools", { tools: [] }, "minimum length 1"],
  ["a choice without tools", { tool_choice: "auto" }, "tool_choice"],
  [
    "too many tools",
    { tools: Array.from({ length: 129 }, (_, index) => tool(`t${index}`, SCHEMA)) },
    "too long",
  ],
  ["a tool's name with a dot", { tools: [tool("a.b", SCHEMA)] }, "pattern"],
  ["a tool's name that is too long", { tools: [tool("x".repeat(65), SCHEMA)] }, "pattern"],
  ["two tools of one name", { tools: [tool("t", SCHEMA), tool("t", SCHEMA)] }, "twice"],
  ["a schema of no object", { tools: [tool("t", { type: "string" })] }, "schema"],
  ["alternatives at the top of a schema", { tools: [tool("t", { ...SCHEMA, oneOf: [] })] }, "oneOf"],
  [
    "a call without a result",
    { messages: [QUESTION, CALLING, QUESTION] },
    "did not have response messages: a",
  ],
  ["a call at the end", { messages: [QUESTION, CALLING] }, "did not have response messages: a"],
  ["a result without a call", { messages: [QUESTION, ANSWER] }, "preceeding message"],
  ["two results of one call", { messages: [QUESTION, CALLING, ANSWER, ANSWER] }, "preceeding message"],
  ["an answer of nothing", { messages: [QUESTION, { role: "assistant", content: null }] }, "got null"],
  ["an unknown role", { messages: [{ role: "model", content: "x" }] }, "Supported values"],
  [
    "calls with the same id",
    { messages: [QUESTION, { ...CALLING, tool_calls: [CALL, CALL] }, ANSWER] },
    "unique",
  ],
  [
    "arguments that are no JSON",
    {
      messages: [
        QUESTION,
        { ...CALLING, tool_calls: [{ ...CALL, function: { name: "t", arguments: "{" } }] },
        ANSWER,
      ],
    },
    "JSON object",
  ],
])("OpenAI's stand-in refuses %s", async (_, body, words) => {
  const { status, text } = await openAi(body);

  expect(status).toBe(400);
  expect(text).toContain(words);
});

test.each([
  ["Anthropic", startAnthropicServer, "/messages"],
  ["OpenAI", startOpenAiServer, "/chat/completions"],
] as const)("%s's stand-in wants the key, the path and the method", async (_, start, path) => {
  const server = await start(() => callsTools([]), { apiKey: "right" });
  onTestFinished(() => server.close());

  expect((await post(server, path, {})).status).toBe(401);
  const open = await start(() => callsTools([]));
  onTestFinished(() => open.close());
  expect((await post(open, "/models", {})).status).toBe(404);
  expect((await fetch(`${open.url}${path}`)).status).toBe(404);
});
