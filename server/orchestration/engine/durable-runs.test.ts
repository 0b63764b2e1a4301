import { systemClock } from "@toolplane/framework";
import { RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { openTestStore } from "../store/test-support/open-store.ts";
import { createEngine } from "./driver.ts";
import { ReleasedError } from "./engine.ts";
import { createTools, type Tool, workflow } from "./test-support/driving.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

function engineFor(tools: Readonly<Record<string, Tool>>) {
  const { works, calls } = createTools(tools);
  const engine = createEngine({
    works,
    clock: systemClock,
    logger: silentLogger,
    random: Math.random,
    maxValueBytes: 1 << 20,
    maxRunBytes: 64 << 20,
  });
  return { engine, calls };
}

const steps = [
  { id: "cities", tool: { name: "cities" } },
  {
    id: "weather",
    for_each: { items: "${steps.cities.output}" },
    tool: { name: "weather", arguments: { city: "${item}" } },
  },
  { id: "ask", approval: { message: "Publish ${string(size(steps.weather.output))}?" } },
  {
    id: "publish",
    depends_on: ["ask"],
    tool: { name: "publish" },
    fallback: { value: "later: ${error.code}" },
  },
];

test("a run is let go of, gone on with, parked, answered and ended, with PostgreSQL for its journal", async () => {
  const { runs, claims, claim, start, told } = await openTestStore(database);
  const release = new AbortController();
  let isFirst = true;
  const { engine, calls } = engineFor({
    cities: () => ["Ulm", "Bonn", "Kiel"],
    weather: (input) => {
      if (isFirst && (input as { city: string }).city === "Kiel") {
        isFirst = false;
        return new Promise(() => release.abort(new ReleasedError("the server stops")));
      }
      return input;
    },
    publish: () => {
      throw new Error("no");
    },
  });
  const first = await start({ source: workflow({ steps }) });
  const { id } = first.run;
  const control = (signal: AbortSignal) => ({
    signal,
    onAnswer: (callback: () => void) => claims.onAnswer((run) => (run === id ? callback() : undefined)),
  });
  const steady = new AbortController().signal;
  expect(await engine.drive(first.run, first.journal, control(release.signal))).toBe("left");
  expect(await runs.get(id)).toMatchObject({ state: RunState.QUEUED });

  const second = await claim(id, "worker-2", 1);
  expect(await engine.drive(second.run, second.journal, control(steady))).toBe("parked");
  expect(calls.get("cities")).toBe(1);
  expect(await runs.get(id)).toMatchObject({
    state: RunState.WAITING,
    pendingApprovals: [{ path: "ask", message: "Publish 3?" }],
  });

  await runs.resolveApproval(id, "ask", { approved: true, comment: "", by: "user:ada" });
  const third = await claim(id, "worker-1");
  expect(await engine.drive(third.run, third.journal, control(steady))).toBe("finished");
  expect(await runs.get(id)).toMatchObject({ state: RunState.SUCCEEDED, takeovers: 0 });
  const events = await told(id);
  expect(events.filter((kind) => kind === "finished")).toHaveLength(1);
  expect(events.at(-1)).toBe("finished");
});
