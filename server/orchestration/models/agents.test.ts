import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError, type Principal } from "@toolplane/framework";
import { createResponseCache, type ResponseCache } from "@toolplane/framework/policies";
import { type Agent, AgentSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  createMemoryStore,
  type MemoryStore,
} from "../../../framework/policies/cache/test-support/memory-store.ts";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Registry } from "../../registry/registry.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { constantTemplate } from "../expressions/template.ts";
import { createRedactor } from "../store/redact.ts";
import { createModelWorks } from "./model-works.ts";
import { createMemoryRun } from "./test-support/memory-run.ts";
import { scriptedGateway, type TurnScript, wants } from "./test-support/scripted-gateway.ts";
import { openTestRegistry, recordingCalling, registerTools } from "./test-support/test-tools.ts";

let registry: Registry;
let close: () => Promise<void>;

beforeAll(async () => {
  ({ registry, close } = await openTestRegistry());
  await registerTools(registry, "weather", [{ name: "GetForecast", readOnly: true }, { name: "SetAlarm" }]);
});

afterAll(() => close());

const ada: Principal = { id: "user:ada", role: "caller" };
const bob: Principal = { id: "user:bob", role: "caller" };

const agentOf = (init: MessageInitShape<typeof AgentSchema> = {}): Agent =>
  create(AgentSchema, { name: "poet", prompt: "Write a poem.", version: 1, ...init });

function openCache(store?: MemoryStore): ResponseCache {
  const cache = createResponseCache({
    name: "agents",
    ...(store && { durable: { store, secrets: [Buffer.alloc(32, 7)] } }),
  });
  onTestFinished(() => cache.close());
  return cache;
}

function setUp(
  script: TurnScript = (_, number) => ({ text: `answer ${number}` }),
  { cache = openCache(), uncached = [] }: { cache?: ResponseCache; uncached?: string[] } = {},
) {
  const clock = createFakeClock();
  const gateway = scriptedGateway(script);
  const calling = recordingCalling();
  const works = createModelWorks({
    gateway,
    tools: registry,
    calling,
    cache,
    settings: { searchToolsAbove: 20, uncachedAgents: new Set(uncached) },
    clock,
    redactor: createRedactor(() => []),
    logger: silentLogger,
  });
  /** Gives a task to an agent in a run of its own. */
  function give(task: string, agent = agentOf(), principal = ada) {
    const run = createMemoryRun({ clock, principal });
    const action = {
      kind: "agent" as const,
      agent,
      task: constantTemplate(task),
    };
    return { run, output: run.work((context) => works.agent(action, { task }, context)) };
  }
  return { cache, clock, gateway, calling, works, give };
}

test("an agent without a scope has no tools, and is told its prompt", async () => {
  const { give, gateway } = setUp(() => ({ text: '["roses", "red"]' }));
  const { output } = give("About roses");
  await expect(output).resolves.toMatchObject({
    output: { text: '["roses", "red"]', json: ["roses", "red"] },
    usage: { turns: 1, inputTokens: 100n, outputTokens: 10n },
  });
  expect(gateway.requests).toMatchObject([
    {
      system: expect.stringMatching(/^Write a poem\./),
      messages: [{ role: "user", content: "About roses" }],
      tools: [],
    },
  ]);
});

test("the same task is answered from the cache, which says what that saves", async () => {
  const { give, gateway, cache } = setUp();
  const first = await give("About roses").output;
  const { run, output } = give("About roses");
  const second = await output;
  expect(second).toMatchObject({ output: first.output, reused: true });
  expect(second.usage).toMatchObject({ turns: 0, savedTokens: 110n });
  expect(second.usage?.savedCostUsd).toBeCloseTo(0.0002, 12);
  expect(run.usage()).toMatchObject({ turns: 0, savedTokens: 110n });
  expect(gateway.requests).toHaveLength(1);
  expect(cache.stats()).toMatchObject({
    memoryHits: 1,
    misses: 1,
    loads: 1,
    loadFailures: 0,
    tokensSaved: 110,
  });
});

test("another replica, or this one after a restart, gives what was kept", async () => {
  const store = createMemoryStore();
  const here = setUp(undefined, { cache: openCache(store) });
  const first = await here.give("About roses").output;
  await here.cache.flush();
  const there = setUp(undefined, { cache: openCache(store) });
  expect(await there.give("About roses").output).toMatchObject({ output: first.output, reused: true });
  expect(there.gateway.requests).toHaveLength(0);
});

test.each<[string, string, MessageInitShape<typeof AgentSchema>]>([
  ["task", "About lilies", {}],
  ["version of the agent", "About roses", { version: 2 }],
  ["prompt", "About roses", { prompt: "Write a limerick." }],
  ["agent", "About roses", { name: "writer" }],
  ["scope", "About roses", { tools: { names: ["weather.*"] } }],
])("another %s is asked anew", async (_, task, change) => {
  const { give, gateway } = setUp();
  await give("About roses").output;
  await give(task, agentOf(change)).output;
  expect(gateway.requests).toHaveLength(2);
});

test("an agent that is excluded, by itself or by the configuration, is asked each time", async () => {
  const { give, gateway } = setUp(undefined, { uncached: ["gambler"] });
  for (const agent of [agentOf({ cacheExcluded: true }), agentOf({ name: "gambler" })]) {
    await give("Roll the dice", agent).output;
    await give("Roll the dice", agent).output;
  }
  expect(gateway.requests).toHaveLength(4);
});

test("all answers of an agent can be purged by its tag", async () => {
  const { give, gateway, cache } = setUp();
  await give("About roses").output;
  expect(await cache.purge({ kind: "tag", tag: "agent:poet" })).toBe(1);
  await give("About roses").output;
  expect(gateway.requests).toHaveLength(2);
});

test("an answer that was forced by the end of the budget is not kept", async () => {
  const { give, gateway } = setUp();
  const agent = agentOf({ tools: { names: ["weather.*"] }, budget: { maxTurns: 1 } });
  await give("About roses", agent).output;
  await give("About roses", agent).output;
  expect(gateway.requests).toHaveLength(2);
});

test("an attempt at a task asks an overloaded model once: further ones are the task's own attempts", async () => {
  const overloaded = new DomainError({ code: Code.Unavailable, reason: "MODEL_OVERLOADED", message: "busy" });
  const { give, gateway } = setUp(() => {
    throw overloaded;
  });
  const { run, output } = give("a task");
  await expect(output).rejects.toThrow("busy");
  expect(gateway.requests).toHaveLength(1);
  expect(run.delays).toEqual([]);
});

test("a failure is not kept", async () => {
  const { give } = setUp((_, number) =>
    number === 1 ? { text: "", finish: "content-filter" } : { text: "roses" },
  );
  await expect(give("About roses").output).rejects.toThrow("content filter");
  await expect(give("About roses").output).resolves.toMatchObject({ output: { text: "roses" } });
});

describe("an answer that needed tools", () => {
  const calls =
    (tool: string): TurnScript =>
    (request) => {
      const offered = request.tools.find(({ description }) => description.includes(tool));
      return request.messages.length === 1
        ? { calls: [wants(offered?.name ?? "none", {})] }
        : { text: "done" };
    };
  const agent = agentOf({ tools: { names: ["weather.*"] } });

  test("without side effects is kept, for whoever asked", async () => {
    const { give, calling } = setUp(calls("GetForecast"));
    await give("Do it", agent).output;
    expect(await give("Do it", agent).output).toMatchObject({ reused: true });
    expect(calling.calls).toHaveLength(1);
    await give("Do it", agent, bob).output;
    expect(calling.calls).toHaveLength(2);
  });

  test("with side effects is not: whoever asks again wants them to happen", async () => {
    const { give, calling } = setUp(calls("SetAlarm"));
    await give("Do it", agent).output;
    await give("Do it", agent).output;
    expect(calling.calls).toHaveLength(2);
  });
});

test("once its model has begun, a task is finished and not answered from the cache", async () => {
  const { give, works, gateway, calling, clock } = setUp((request) =>
    request.messages.length === 1
      ? { calls: [wants(request.tools[0]?.name ?? "none", {})] }
      : { text: "my own answer" },
  );
  const agent = agentOf({ tools: { names: ["*.GetForecast"] } });
  const action = {
    kind: "agent" as const,
    agent,
    task: constantTemplate("Do it"),
  };
  const run = createMemoryRun({ clock, principal: ada });
  const work = () => run.work((context) => works.agent(action, { task: "Do it" }, context));
  const dies = run.work(
    (context) => works.agent(action, { task: "Do it" }, context),
    ({ path, phase }) => path === "main/turn1/call1" && phase === "recorded",
  );
  await expect(dies).rejects.toThrow("main/turn1/call1 recorded");
  await give("Do it", agent).output;
  const asked = gateway.requests.length;
  const resumed = await work();
  expect(resumed.reused).toBeUndefined();
  expect(gateway.requests).toHaveLength(asked + 1);
  expect(calling.calls.filter(({ path }) => path === "main/turn1/call1")).toHaveLength(2);
});

test("simultaneous tasks do not wait for each other", async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const { give, gateway } = setUp(async (_, number) => {
    await gates[number - 1]?.promise;
    return { text: `answer ${number}` };
  });
  const [first, second] = [give("About roses"), give("About roses")];
  await expect.poll(() => gateway.requests.length).toBe(2);
  gates[1]?.resolve();
  await expect(second.output).resolves.toMatchObject({ output: { text: "answer 2" } });
  gates[0]?.resolve();
  await expect(first.output).resolves.toMatchObject({ output: { text: "answer 1" } });
});

test("a requirement has all tools unless it says otherwise, and its own instructions", async () => {
  const { works, gateway, clock } = setUp();
  const run = createMemoryRun({ clock });
  const action = {
    kind: "requirement" as const,
    text: constantTemplate("The weather?"),
    model: "",
    instructions: "In German.",
    tools: undefined,
    budget: undefined,
  };
  const output = await run.work((context) => works.requirement(action, { text: "The weather?" }, context));
  expect(output.output).toEqual({ text: "answer 1" });
  expect(gateway.requests[0]).toMatchObject({
    system: expect.stringMatching(/^You get done.*\n\nIn German\.\n\nRules/s),
    messages: [{ role: "user", content: "The weather?" }],
  });
  expect(gateway.requests[0]?.tools).toHaveLength(2);
});
