import { create } from "@bufbuild/protobuf";
import { RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Registry } from "../../registry/registry.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createEngine } from "../engine/driver.ts";
import { type ClaimOptions, createMemoryRun } from "../engine/test-support/memory-journal.ts";
import { createRedactor } from "../store/redact.ts";
import { createModelWorks } from "./model-works.ts";
import { scriptedGateway, testModel, wants } from "./test-support/scripted-gateway.ts";
import { openTestRegistry, recordingCalling, registerTools } from "./test-support/test-tools.ts";

let registry: Registry;
let close: () => Promise<void>;

beforeAll(async () => {
  ({ registry, close } = await openTestRegistry());
  await registerTools(registry, "weather", [{ name: "GetForecast" }]);
});

afterAll(() => close());

/** A requirement that takes two turns with two calls each, and then an answer. */
function setUp() {
  const clock = createFakeClock();
  const gateway = scriptedGateway((request, _, { onDelta }) => {
    const turn = request.messages.filter(({ role }) => role === "assistant").length + 1;
    onDelta({ text: `turn ${turn}`, reasoning: "" });
    const name = request.tools[0]?.name ?? "none";
    return turn <= 2
      ? { calls: [1, 2].map((part) => wants(name, { days: turn * 10 + part })) }
      : { text: "done" };
  });
  const calling = recordingCalling();
  const unused = () => Promise.reject(new Error("not part of the test"));
  const engine = createEngine({
    works: {
      ...createModelWorks({
        gateway,
        tools: registry,
        calling,
        cache: undefined,
        settings: { searchToolsAbove: 20, uncachedAgents: new Set() },
        clock,
        redactor: createRedactor(() => []),
        logger: silentLogger,
      }),
      tool: unused,
      test_run: unused,
      comparison: unused,
      workflow: unused,
    },
    clock,
    logger: silentLogger,
    random: () => 0.5,
    maxValueBytes: 1 << 20,
    maxRunBytes: 64 << 20,
  });
  const source = create(RunSourceSchema, {
    kind: { case: "requirement", value: { text: "The weather?", model: testModel.name } },
  });
  const run = createMemoryRun({ source, clock });
  async function drive(options?: ClaimOptions) {
    const { run: claimed, journal } = run.claim(options);
    const signal = new AbortController().signal;
    return await engine.drive(claimed, journal, { signal, onAnswer: run.onAnswer });
  }
  return { gateway, calling, run, drive };
}

test("in the engine, a run goes on after each thing that was recorded and repeats no call that had ended", async () => {
  const whole = setUp();
  await whole.drive();
  expect(whole.run.end).toEqual({ state: "succeeded", output: { text: "done" } });
  expect(whole.run.steps.get("main/turn2/call2")?.end).toMatchObject({ output: { got: { days: 22 } } });
  const { entries } = whole.run;
  expect(entries.length).toBeGreaterThan(15);

  for (let diesAt = 0; diesAt < entries.length; diesAt++) {
    const { gateway, calling, run, drive } = setUp();
    expect(await drive({ diesAt }), `after ${diesAt}`).toBe("left");
    const ended = [...run.steps.values()].filter(({ end }) => end !== undefined).map(({ path }) => path);
    const calledBefore = calling.calls.length;
    const askedBefore = gateway.requests.length;
    expect(await drive()).toBe("finished");
    expect(run.end).toEqual({ state: "succeeded", output: { text: "done" } });
    const calledAgain = calling.calls.slice(calledBefore).map(({ path }) => path);
    expect(calledAgain.filter((path) => ended.includes(path))).toEqual([]);
    const turns = ended.filter((path) => /turn\d+$/.test(path)).length;
    expect(gateway.requests.length - askedBefore).toBe(3 - turns);
    // The same call has the same key on every worker, and different calls have different ones.
    const keys = new Map(calling.calls.map(({ path, idempotencyKey }) => [path, idempotencyKey]));
    expect(new Set(keys.values()).size).toBe(4);
    expect(new Set(calling.calls.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(4);
  }
});
