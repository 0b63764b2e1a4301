import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ToolScopeSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Registry } from "../../registry/registry.ts";
import { described, instance } from "../../registry/test-support/specs.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createRedactor } from "../store/redact.ts";
import { createModelLoop } from "./loop.ts";
import { createMemoryRun } from "./test-support/memory-run.ts";
import {
  resultsIn,
  scriptedGateway,
  type TurnScript,
  testModel,
  wants,
} from "./test-support/scripted-gateway.ts";
import { openTestRegistry, recordingCalling, registerTools, toolNamed } from "./test-support/test-tools.ts";
import { allowedTools } from "./tool-choice.ts";

let registry: Registry;
let close: () => Promise<void>;

const PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"];

beforeAll(async () => {
  ({ registry, close } = await openTestRegistry());
  await registerTools(registry, "weather", [{ name: "GetForecast" }, { name: "ListCities" }], ["outdoors"]);
  await registerTools(registry, "clock", [{ name: "GetTime" }, { name: "SetAlarm" }], ["indoors", "time"]);
  await registry.register(
    described({ name: "staged", environment: "staging" }),
    instance({ endpoint: "localhost:1" }),
  );
  // A thousand tools beside those.
  const many = Array.from({ length: 1_000 }, (_, index) => ({
    name: `Orbit${PLANETS[index % PLANETS.length]}Probe${index}`,
  }));
  await registerTools(registry, "space", many, ["far"]);
});

afterAll(() => close());

function allowed(scope?: MessageInitShape<typeof ToolScopeSchema>) {
  return allowedTools(scope && create(ToolScopeSchema, scope), {
    tools: registry,
    logger: silentLogger,
  });
}

async function namesOf(scope?: MessageInitShape<typeof ToolScopeSchema>): Promise<string[]> {
  const { candidates } = await allowed(scope).begin("anything", 50);
  return candidates.map(({ tool }) => tool).sort();
}

const FORECAST = toolNamed("weather", "GetForecast");
const CITIES = toolNamed("weather", "ListCities");
const TIME = toolNamed("clock", "GetTime");
const ALARM = toolNamed("clock", "SetAlarm");

describe("a scope allows", () => {
  test("tools by patterns of their names and aliases", async () => {
    expect(await namesOf({ names: ["weather.*", "*.SetAlarm"] })).toEqual([ALARM, FORECAST, CITIES]);
    expect(await namesOf({ names: ["clock.Get*"] })).toEqual([TIME]);
  });

  test("tools by exact names and aliases, also where some are not there", async () => {
    expect(await namesOf({ names: [FORECAST, "clock.GetTime", "gone.GetNothing"] })).toEqual([
      TIME,
      FORECAST,
    ]);
    expect(allowed({ names: ["clock.GetTime"] }).find(ALARM)).toBeUndefined();
  });

  test("tools that have one of the tags, and only those that are named as well", async () => {
    expect(await namesOf({ tags: ["outdoors", "time"] })).toEqual([TIME, ALARM, FORECAST, CITIES]);
    expect(await namesOf({ tags: ["indoors"], names: ["*Alarm"] })).toEqual([ALARM]);
  });

  test("tools of one environment", async () => {
    const staged = "staged.acme.weather.v1.WeatherService.GetForecast";
    expect(await namesOf({ environment: "staging" })).toEqual([staged]);
    expect(allowed().find(staged)).toBeUndefined();
    expect(allowed({ environment: "staging" }).find(FORECAST)).toBeUndefined();
  });

  test("nothing", async () => {
    expect(allowed({ none: true, names: ["weather.*"] }).find(FORECAST)).toBeUndefined();
    expect(allowed({ none: true }).any).toBe(false);
  });
});

test("what is allowed stays as it was said, whatever name it is asked by", () => {
  const tools = allowed({ names: ["weather.*"] });
  expect(tools.find("GetForecast")?.name).toBe(FORECAST);
  for (const name of [ALARM, "clock.SetAlarm", "SetAlarm", "", "*", "weather.*"]) {
    expect(tools.find(name)).toBeUndefined();
  }
});

describe("among more than a thousand tools", () => {
  function setUp(script: TurnScript) {
    const clock = createFakeClock();
    const gateway = scriptedGateway(script);
    const calling = recordingCalling();
    const parts = {
      tools: registry,
      calling,
      searchToolsAbove: 20,
      clock,
      redactor: createRedactor(() => []),
      logger: silentLogger,
    };
    const loop = createModelLoop({ gateway, ...parts });
    const run = createMemoryRun({ clock });
    const ask = (task: string) =>
      run.work(async (context) => {
        const given = {
          model: testModel,
          instructions: "",
          task,
          tools: undefined,
          budget: undefined,
          retriesTurns: true,
        };
        return { output: (await loop(given, context)).text };
      });
    return { gateway, calling, run, ask };
  }

  test("those that fit the task are offered, and a search for others", async () => {
    const { gateway, run, ask } = setUp(() => ({ text: "done" }));
    await ask("Tell me the forecast for cities");
    const offered = gateway.requests[0]?.tools ?? [];
    expect(offered.length).toBeLessThanOrEqual(11);
    expect(offered.map(({ description }) => description)).toEqual(
      expect.arrayContaining([FORECAST, CITIES].map((name) => expect.stringContaining(name))),
    );
    expect(offered.at(-1)?.name).toBe("search_tools");
    expect(run.tellings("toolSelection")).toMatchObject([
      {
        query: "Tell me the forecast for cities",
        allowed: 1_004,
        candidates: expect.arrayContaining([
          expect.objectContaining({ tool: FORECAST, offered: true, score: expect.any(Number) }),
        ]),
      },
    ]);
  });

  test("what the model searches for can be called from the next turn on, and is found again on resuming", async () => {
    const { gateway, calling, run, ask } = setUp((request) => {
      const turn = request.messages.filter(({ role }) => role === "assistant").length + 1;
      const alarm = request.tools.find(({ description }) => description.startsWith(ALARM));
      switch (turn) {
        case 1:
          return { calls: [wants("search_tools", { query: "set an alarm" }), wants("search_tools", {})] };
        case 2:
          return { calls: [wants(alarm?.name ?? "none", { city: "Rome" })] };
        default:
          return { text: "done" };
      }
    });
    const forecast = "Tell me the forecast";
    await ask(forecast);
    expect(gateway.requests[0]?.tools.some(({ description }) => description.startsWith(ALARM))).toBe(false);
    expect(calling.calls).toMatchObject([{ tool: ALARM, arguments: { city: "Rome" } }]);
    expect(resultsIn(gateway.requests[1])).toMatchObject([
      {
        body: {
          result: {
            query: "set an alarm",
            found: expect.arrayContaining([expect.objectContaining({ tool: ALARM })]),
          },
        },
      },
      { isError: true, body: { error: { message: expect.stringContaining("query") } } },
    ]);
    expect(run.tellings("toolSelection").map(({ query }) => query)).toEqual([forecast, "set an alarm"]);

    // Another worker has it all in the journal.
    await ask(forecast);
    expect(gateway.requests).toHaveLength(3);
    expect(run.tellings("toolSelection")).toHaveLength(2);
  });

  test("never more than 64 are offered at once, those that were found last", async () => {
    const { gateway, ask } = setUp((request, number) =>
      number <= 12
        ? {
            calls: [
              wants("search_tools", {
                query: Array.from({ length: 10 }, (_, index) => `Probe${number * 10 + index}`).join(" "),
              }),
            ],
          }
        : { text: String(request.tools.length) },
    );
    await ask("Tell me the forecast");
    const last = gateway.requests.at(-1)?.tools ?? [];
    expect(last).toHaveLength(65);
    expect(last.some(({ description }) => description.includes("Probe129"))).toBe(true);
    expect(new Set(last.map(({ name }) => name)).size).toBe(65);
  });

  test("a few that are named are all offered", async () => {
    expect(await namesOf({ names: ["space.*Probe77", "space.*Probe1*77"] })).toEqual([
      expect.stringContaining("OrbitSaturnProbe77"),
      expect.stringContaining("OrbitVenusProbe177"),
    ]);
  });

  test("a search finds only what is allowed", async () => {
    const found = await allowed({ names: ["clock.*"] }).search("forecast alarm orbit Mars");
    expect(found.map(({ tool }) => tool)).toEqual([ALARM]);
    const far = await allowed({ tags: ["far"] }).search("Mars");
    expect(far).toHaveLength(10);
    expect(far.every(({ tool }) => tool.includes("Mars"))).toBe(true);
  });
});

test("providers get schemas and names in the forms that they accept", async () => {
  const gateway = scriptedGateway(() => ({ text: "done" }), { ...testModel, protocol: "openai" });
  const clock = createFakeClock();
  const calling = recordingCalling();
  const loop = createModelLoop({
    gateway,
    tools: registry,
    calling,
    searchToolsAbove: 20,
    clock,
    redactor: createRedactor(() => []),
    logger: silentLogger,
  });
  await createMemoryRun({ clock }).work(async (context) => {
    const tools = create(ToolScopeSchema, { names: ["weather.*"] });
    const task = {
      model: gateway.find(""),
      instructions: "",
      task: "?",
      tools,
      budget: undefined,
      retriesTurns: true,
    };
    return { output: (await loop(task, context)).text };
  });
  for (const { name, inputSchema } of gateway.requests[0]?.tools ?? []) {
    expect(name).toMatch(/^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/);
    expect(inputSchema).toMatchObject({ type: "object", properties: { city: { type: "string" } } });
  }
});
