import type { JsonObject } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { ModelMessage } from "./model.ts";
import { inTurn, says, sends } from "./test-support/model-servers.ts";
import { openGateway, resultsOf } from "./test-support/open-gateway.ts";

/*
 * What servers send that speak a protocol in their own way, or parts of it that the stand-ins do not use.
 */

const user: ModelMessage = { role: "user", content: "What is the weather?" };

function chunks(...deltas: readonly JsonObject[]): string {
  const body = [
    ...deltas.map((delta) => ({ choices: [{ index: 0, delta, finish_reason: null }] })),
    { choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] },
  ];
  return `${body.map((chunk) => `data: ${JSON.stringify({ id: "1", ...chunk })}\n\n`).join("")}data: [DONE]\n\n`;
}

const call = (more: JsonObject, args = '{"city":"Oslo"}'): JsonObject => ({
  type: "function",
  function: { name: "weather", arguments: args },
  ...more,
});

test.each([
  ["with the same index", [call({ index: 0, id: "a" }), call({ index: 0, id: "b" })]],
  ["without ids", [call({ index: 0 }), call({ index: 1 })]],
  ["without indexes", [call({ id: "a" }), call({ id: "b" })]],
])("whole calls are told apart %s", async (_, calls) => {
  const { turn } = await openGateway(
    "openai",
    inTurn(sends(chunks(...calls.map((each) => ({ tool_calls: [each] })))), says("Cold.")),
  );

  const first = await turn();
  const second = await turn({ messages: [user, ...first.messages, resultsOf(first, "cold")] });

  expect(first.calls.map(({ arguments: given }) => given)).toEqual([{ city: "Oslo" }, { city: "Oslo" }]);
  expect(new Set(first.calls.map(({ id }) => id)).size).toBe(2);
  expect(second.text).toBe("Cold.");
});

test("arguments of parallel calls may come in turns", async () => {
  const part = (index: number, args: string): JsonObject => ({
    tool_calls: [{ index, function: { arguments: args } }],
  });
  const { turn } = await openGateway("openai", () =>
    sends(
      chunks(
        { tool_calls: [call({ index: 0, id: "a" }, ""), call({ index: 1, id: "b" }, "")] },
        part(0, '{"city":'),
        part(1, '{"city":'),
        part(0, '"Oslo"}'),
        part(1, '"Bergen"}'),
      ),
    ),
  );

  expect((await turn()).calls).toMatchObject([
    { id: "a", arguments: { city: "Oslo" } },
    { id: "b", arguments: { city: "Bergen" } },
  ]);
});

test("what a provider wants to have back with a call is sent back", async () => {
  const signed = call({ index: 0, id: "a", extra_content: { google: { thought_signature: "c2lnbmVk" } } });
  const { turn, server } = await openGateway(
    "openai",
    inTurn(sends(chunks({ tool_calls: [signed] })), says("Cold.")),
  );

  const first = await turn();
  const kept = JSON.parse(JSON.stringify(first.messages)) as ModelMessage[];
  await turn({ messages: [user, ...kept, resultsOf(first, "cold")] });

  expect(server.requests[1]?.body["messages"]).toMatchObject([
    {},
    {},
    { tool_calls: [{ extra_content: { google: { thought_signature: "c2lnbmVk" } } }] },
    {},
  ]);
});

test.each([
  [
    "comments and other line ends",
    ": PROCESSING\r\n\r\ndata: {CHUNK}\r\n\r\ndata: {END}\r\n\r\ndata: [DONE]\r\n\r\n",
  ],
  ["no end mark", "data: {CHUNK}\n\ndata: {END}\n\n"],
  ["no space after the colon", "data:{CHUNK}\n\ndata:{END}\n\ndata:[DONE]\n\n"],
  ["usage in the middle", "data: {CHUNK}\n\ndata: {END}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n"],
])("events are read with %s", async (_, form) => {
  const body = form
    .replace("{CHUNK}", '{"choices":[{"delta":{"content":"Cold."}}],"usage":null}')
    .replace("{END}", '{"choices":[{"delta":{},"finish_reason":"stop"}]}')
    .replace("{USAGE}", '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}');
  const { turn } = await openGateway("openai", () => sends(body, "text/event-stream;charset=UTF-8"));

  expect(await turn()).toMatchObject({ text: "Cold.", finish: "stop" });
});

function anthropicEvents(
  blocks: readonly (readonly [JsonObject, ...JsonObject[]])[],
  stop: string | null,
): string {
  const usage = { input_tokens: 5, output_tokens: 1 };
  const message = { id: "m", type: "message", role: "assistant", model: "x", content: [], usage };
  const events: JsonObject[] = [
    { type: "message_start", message },
    ...blocks.flatMap(([content_block, ...deltas], index) => [
      { type: "content_block_start", index, content_block },
      ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
      { type: "content_block_stop", index },
    ]),
    { type: "message_delta", delta: { stop_reason: stop }, usage: { output_tokens: 3 } },
    { type: "message_stop" },
  ];
  return events.map((data) => `event: ${data["type"]}\ndata: ${JSON.stringify(data)}\n\n`).join("");
}

test("thoughts that nobody may read are sent back as they came", async () => {
  const { turn, server } = await openGateway(
    "anthropic",
    inTurn(
      sends(
        anthropicEvents(
          [
            [{ type: "redacted_thinking", data: "ZW5jcnlwdGVk" }],
            [
              { type: "tool_use", id: "a", name: "weather", input: {} },
              { type: "input_json_delta", partial_json: "{}" },
            ],
          ],
          "tool_use",
        ),
      ),
      says("Cold."),
    ),
  );

  const first = await turn();
  const kept = JSON.parse(JSON.stringify(first.messages)) as ModelMessage[];
  await turn({ messages: [user, ...kept, resultsOf(first, "cold")] });

  expect(server.requests[1]?.body["messages"]).toMatchObject([
    {},
    {
      content: [
        { type: "redacted_thinking", data: "ZW5jcnlwdGVk" },
        { type: "tool_use", id: "a" },
      ],
    },
    {},
  ]);
});

test.each([
  ["max_tokens", "length"],
  ["model_context_window_exceeded", "length"],
  ["refusal", "content-filter"],
  ["stop_sequence", "stop"],
  ["something_new", "other"],
])("an answer that stopped by %s has ended by %s", async (stop, finish) => {
  const { turn } = await openGateway("anthropic", () =>
    sends(
      anthropicEvents(
        [
          [
            { type: "text", text: "" },
            { type: "text_delta", text: "Cold." },
          ],
        ],
        stop,
      ),
    ),
  );

  expect(await turn()).toMatchObject({ text: "Cold.", finish });
});

test("an answer that ends without a reason is none", async () => {
  const { turn } = await openGateway("anthropic", () =>
    sends(anthropicEvents([[{ type: "text", text: "" }]], null)),
  );

  await expect(turn()).rejects.toMatchObject({ init: { reason: "MODEL_ANSWER_CUT" } });
});
