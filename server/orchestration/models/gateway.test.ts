import type { JsonValue } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import type { ModelMessage } from "./model.ts";
import { callsTools, echoes, inTurn, says } from "./test-support/model-servers.ts";
import { openGateway, PROTOCOLS, resultsOf, WEATHER } from "./test-support/open-gateway.ts";

const user: ModelMessage = { role: "user", content: "What is the weather?" };

function stored<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

describe.each(PROTOCOLS)("over the %s protocol", (protocol) => {
  test("an answer is told while it is written, and returned whole", async () => {
    const { turn, deltas } = await openGateway(protocol, () =>
      says("It is cold in Oslo.", { usage: { input: 120, cached: 100, output: 7 } }),
    );

    expect(await turn()).toEqual({
      text: "It is cold in Oslo.",
      calls: [],
      finish: "stop",
      usage: { inputTokens: 120, cachedInputTokens: 100, outputTokens: 7 },
      messages: [{ role: "assistant", content: [{ type: "text", text: "It is cold in Oslo." }] }],
    });
    expect(deltas.length).toBeGreaterThan(1);
    expect(deltas.map(({ text }) => text).join("")).toBe("It is cold in Oslo.");
  });

  test("what is asked reaches the model as it is", async () => {
    const { turn, server } = await openGateway(protocol, echoes);
    const inputSchema = {
      type: "object",
      properties: { city: { $ref: "#/$defs/City" } },
      $defs: { City: { type: "string", minLength: 1 } },
      additionalProperties: false,
    };

    const { text } = await turn({
      system: "Sei kurz. ☃",
      messages: [{ role: "user", content: "Wie ist das Wetter in Tromsø?" }],
      tools: [{ name: "acme_weather-Get_1", description: "Tells it.", inputSchema }],
    });

    expect(JSON.parse(text)).toEqual({
      system: "Sei kurz. ☃",
      messages: [{ role: "user", text: "Wie ist das Wetter in Tromsø?" }],
      tools: [{ name: "acme_weather-Get_1", description: "Tells it.", inputSchema }],
    });
    expect(server.requests[0]?.body).toMatchObject({ model: "some-model", max_tokens: 1_000, stream: true });
  });

  test("without tools and instructions, neither is sent", async () => {
    const { turn, server } = await openGateway(protocol, () => says("Yes."));

    await turn({ system: "", tools: [] });

    expect(server.requests[0]?.body).not.toHaveProperty("tools");
    expect(server.requests[0]?.body).not.toHaveProperty("system");
  });

  test("several calls in one turn come in their order, with their arguments", async () => {
    const { turn } = await openGateway(protocol, () =>
      callsTools([
        { name: "weather", arguments: { city: "Oslo" } },
        { name: "weather", arguments: { city: "東京", days: [1, { deep: null }] } },
        { name: "ping" },
      ]),
    );

    const { calls, finish, text } = await turn();

    expect(calls.map(({ name, arguments: given }) => [name, given])).toEqual([
      ["weather", { city: "Oslo" }],
      ["weather", { city: "東京", days: [1, { deep: null }] }],
      ["ping", {}],
    ]);
    expect(new Set(calls.map(({ id }) => id)).size).toBe(3);
    expect({ finish, text }).toEqual({ finish: "tool-calls", text: "" });
  });

  test("a turn that was kept as JSON can be sent back with results", async () => {
    const { turn, server } = await openGateway(
      protocol,
      inTurn(
        says("Let me see.", {
          thinking: "Oslo and Bergen are both asked for.",
          calls: [
            { name: "weather", arguments: { city: "Oslo" } },
            { name: "weather", arguments: { city: "Bergen" } },
          ],
        }),
        says("Both are cold."),
      ),
    );

    const first = stored(await turn());
    const second = await turn({
      messages: [user, ...first.messages, resultsOf(first, "cold"), { role: "user", content: "Be quick." }],
    });

    expect(second.text).toBe("Both are cold.");
    expect(server.requests.map(({ refusal }) => refusal)).toEqual([undefined, undefined]);
    expect(JSON.stringify(server.requests[1]?.body)).toContain("Oslo and Bergen are both asked for.");
  });

  test("thoughts are told apart from the answer", async () => {
    const { turn, deltas } = await openGateway(protocol, () =>
      says("Cold.", { thinking: "North of 60 degrees." }),
    );

    const { text, messages } = await turn();

    expect(text).toBe("Cold.");
    expect(deltas.map(({ reasoning }) => reasoning).join("")).toBe("North of 60 degrees.");
    expect(messages).toMatchObject([
      {
        content: [
          { type: "reasoning", text: "North of 60 degrees." },
          { type: "text", text: "Cold." },
        ],
      },
    ]);
  });

  test.each(['{"city":', "city=Oslo", "[1", '{"city": undefined}'])(
    "arguments that are no JSON are told as the model wrote them, and can be sent back: %s",
    async (written) => {
      const { turn, server } = await openGateway(
        protocol,
        inTurn(callsTools([{ name: "weather", text: written }]), says("I am sorry.")),
      );

      const first = await turn();
      const second = await turn({ messages: [user, ...first.messages, resultsOf(first, "no JSON")] });

      expect(first.calls).toMatchObject([{ name: "weather", arguments: undefined, text: written }]);
      expect(second.text).toBe("I am sorry.");
      expect(JSON.stringify(server.requests[1]?.body)).toContain("INVALID_JSON");
    },
  );

  test.each<[string, JsonValue]>([
    ["[1,2]", [1, 2]],
    ["null", null],
    ['"Oslo"', "Oslo"],
  ])("arguments that are JSON but no object can be sent back too: %s", async (written, value) => {
    const { turn } = await openGateway(
      protocol,
      inTurn(callsTools([{ name: "weather", text: written }]), says("I am sorry.")),
    );

    const first = await turn();
    const second = await turn({ messages: [user, ...first.messages, resultsOf(first, "no object")] });

    expect(first.calls).toMatchObject([{ arguments: value }]);
    expect(second.text).toBe("I am sorry.");
  });

  test("a name that the model made up is told as it is, and can be sent back", async () => {
    const { turn } = await openGateway(
      protocol,
      inTurn(callsTools([{ name: "functions.weather:get", arguments: {} }]), says("I am sorry.")),
    );

    const first = await turn();
    const second = await turn({ messages: [user, ...first.messages, resultsOf(first, "no such tool")] });

    expect(first.calls).toMatchObject([{ name: "functions.weather:get" }]);
    expect(second.text).toBe("I am sorry.");
  });

  test("calls to which the model gave the same id are told apart", async () => {
    const { turn } = await openGateway(
      protocol,
      inTurn(
        callsTools([
          { name: "weather", arguments: { city: "Oslo" }, id: "same" },
          { name: "weather", arguments: { city: "Bergen" }, id: "same" },
        ]),
        says("Cold."),
      ),
    );

    const first = await turn();
    const second = await turn({ messages: [user, ...first.messages, resultsOf(first, "cold")] });

    expect(first.calls.map(({ arguments: given }) => given)).toEqual([{ city: "Oslo" }, { city: "Bergen" }]);
    expect(second.text).toBe("Cold.");
  });

  test.each([
    ["length", "length"],
    ["refusal", "content-filter"],
  ] as const)("an answer that ended by %s says so", async (finish, expected) => {
    const { turn } = await openGateway(protocol, () => says("It is", { finish }));

    expect(await turn()).toMatchObject({ text: "It is", finish: expected });
  });

  test("words of nothing before a call are not sent back", async () => {
    const { turn } = await openGateway(
      protocol,
      inTurn(says("\n\n", { calls: [{ name: "weather", arguments: {} }] }), says("Cold.")),
    );

    const first = await turn();
    const second = await turn({ messages: [user, ...first.messages, resultsOf(first, "cold")] });

    expect(second.text).toBe("Cold.");
  });

  test("calls count even when the model says that it is done", async () => {
    const { turn } = await openGateway(protocol, () =>
      callsTools([{ name: "weather", arguments: {} }], { finish: "stop" }),
    );

    expect(await turn()).toMatchObject({ finish: "tool-calls", calls: [{ name: "weather" }] });
  });

  test("an answer of nothing leaves no message behind", async () => {
    const { turn } = await openGateway(protocol, () => says(""));

    expect(await turn()).toMatchObject({ text: "", calls: [], finish: "stop", messages: [] });
  });

  test("tokens are estimated from characters where the provider does not count them", async () => {
    const { turn } = await openGateway(protocol, () => says("x".repeat(400), { usage: "missing" }));

    const { usage } = await turn({ messages: [{ role: "user", content: "y".repeat(4_000) }] });

    expect(usage).toMatchObject({ cachedInputTokens: 0, outputTokens: 100 });
    expect(usage.inputTokens).toBeGreaterThan(1_000);
    expect(usage.inputTokens).toBeLessThan(1_300);
  });

  test("a long answer comes whole", async () => {
    const long = Array.from({ length: 20_000 }, (_, index) => `word${index}`).join(" ");
    const { turn } = await openGateway(protocol, () =>
      says(long, { calls: [{ name: "weather", arguments: { city: long } }] }),
    );

    const { text, calls } = await turn();

    expect(text).toBe(long);
    expect(calls[0]?.arguments).toEqual({ city: long });
  });

  test("slow tokens are told one by one", async () => {
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
    async function* slowly() {
      yield "one ";
      await gates[0].promise;
      yield "two ";
      await gates[1].promise;
      yield "three";
    }
    const { turn, deltas } = await openGateway(protocol, () => says(slowly()));

    const asked = turn();
    await expect.poll(() => deltas.map(({ text }) => text)).toEqual(["one "]);
    gates[0].resolve();
    await expect.poll(() => deltas.map(({ text }) => text)).toEqual(["one ", "two "]);
    gates[1].resolve();

    expect((await asked).text).toBe("one two three");
  });
});

test("Anthropic caches tools, instructions and all messages so far, within the marks that it allows", async () => {
  const { turn, server } = await openGateway(
    "anthropic",
    inTurn(
      callsTools([{ name: "weather", arguments: {} }]),
      callsTools([{ name: "weather", arguments: {} }]),
      says("Cold."),
    ),
  );

  const messages: ModelMessage[] = [user];
  for (const _ of [1, 2]) {
    const answered = await turn({ messages });
    messages.push(...stored(answered.messages), resultsOf(answered, "cold"));
  }
  await turn({ messages });

  const marked = server.requests.map(({ body }) =>
    [body["system"], body["messages"]].map(
      (place) => JSON.stringify(place).split('"cache_control"').length - 1,
    ),
  );
  expect(marked).toEqual([
    [1, 1],
    [1, 2],
    [1, 2],
  ]);
  const last = JSON.stringify(server.requests[2]?.body["messages"]);
  expect(last).toMatch(/"cache_control":\{"type":"ephemeral"\}\}\]\}\]$/);
});

test("Anthropic caches tools where there are no instructions", async () => {
  const { turn, server } = await openGateway("anthropic", () => says("Cold."));

  await turn({ system: "", tools: [WEATHER, { ...WEATHER, name: "forecast" }] });

  expect(server.requests[0]?.body["tools"]).toEqual([
    { name: "weather", description: WEATHER.description, input_schema: WEATHER.inputSchema },
    {
      name: "forecast",
      description: WEATHER.description,
      input_schema: WEATHER.inputSchema,
      cache_control: { type: "ephemeral" },
    },
  ]);
});

test("what Anthropic writes into its cache counts as read", async () => {
  const { turn } = await openGateway("anthropic", () =>
    says("Cold.", { usage: { input: 1_000, cached: 600, written: 300, output: 5 } }),
  );

  expect((await turn()).usage).toEqual({ inputTokens: 1_000, cachedInputTokens: 600, outputTokens: 5 });
});

test("no marks for a cache are sent to servers that do not know them", async () => {
  const { turn, server } = await openGateway("openai", () => says("Cold."));

  await turn();

  expect(JSON.stringify(server.requests[0]?.body)).not.toMatch(/cache/i);
});
