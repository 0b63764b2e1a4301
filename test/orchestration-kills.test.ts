import { randomInt } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { toJson } from "@bufbuild/protobuf";
import { timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { RunEvent } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { expect, type TestContext, test, vi } from "vitest";
import { startOpenAiServer } from "../server/orchestration/models/test-support/model-servers.ts";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { type CountingBackend, startCountingBackend } from "./support/counting-backend.ts";
import { type KillableServer, startKillableServer } from "./support/killable-server.ts";

/** Pairs of servers, side by side: most of the time they wait for the heartbeat of the dead one to run out. */
const PAIRS = 5;
const KILLS_PER_PAIR = 10;
/** How long a run may take after its worker was killed. */
const TAKEOVER_MS = 30_000;
const CAP = 4;

const unlimited = { unlimited: true };
const CONFIG = {
  inbound: { global: unlimited, per_caller: unlimited, services: {}, concurrency: { disabled: true } },
  orchestration: { max_concurrent_runs: 100 },
};

type Runs = Client<typeof OrchestrationService>;

/** Two servers on one database, with tools and a model. */
interface Pair {
  readonly servers: readonly KillableServer[];
  readonly clients: readonly Runs[];
  readonly backend: CountingBackend;
}

async function startPair(context: TestContext): Promise<Pair> {
  const backend = await startCountingBackend({ latencyMs: () => randomInt(50, 300) });
  const models = await startOpenAiServer(async ({ turn, tools }) => {
    await setTimeout(randomInt(10, 100));
    const name = tools.find((tool) => tool.name.includes("Write"))?.name ?? "";
    return turn <= 3
      ? {
          kind: "answer",
          text: `Turn ${turn}.`,
          calls: [1, 2, 3].map((call) => ({ name, arguments: { text: `turn ${turn} call ${call}` } })),
        }
      : { kind: "answer", text: "All is done." };
  });
  const databaseUrl = await createTestDatabaseUrl();
  const env = {
    TOOLPLANE_DATABASE_URL: databaseUrl,
    OPENAI_BASE_URL: models.url,
    OPENAI_API_KEY: "none",
    TOOLPLANE_MODEL: "openai/scripted",
  };
  const servers: KillableServer[] = [];
  context.onTestFinished(async () => {
    await Promise.all(servers.map((server) => server.close()));
    await models.close();
    backend.close();
  });
  // One after the other: the first makes the tables.
  servers.push(await startKillableServer(CONFIG, env));
  servers.push(await startKillableServer(CONFIG, env));
  const transports = servers.map(({ url }) => createGrpcTransport({ baseUrl: url }));
  const [first] = transports;
  expect.assert(first !== undefined);
  await createClient(RegistryService, first).registerService({
    service: { name: "counted", version: "1.0.0" },
    instance: { id: "counted", endpoint: backend.url, leaseTtl: { seconds: 3_600n } },
  });
  return {
    servers,
    clients: transports.map((transport) => createClient(OrchestrationService, transport)),
    backend,
  };
}

const WRITE = "counted.examples.faults.v1.FaultService.Write";

/** Steps that come after each other, side by side and for each item of a list, and one for a person. */
const GRAPH = JSON.stringify({
  name: "graph",
  max_concurrency: CAP,
  steps: [
    { id: "list", value: ["a", "b", "c", "d", "e", "f"] },
    { id: "first", tool: { name: WRITE, arguments: { text: "first" } } },
    {
      id: "each",
      for_each: { items: "${ steps.list.output }" },
      depends_on: ["first"],
      tool: { name: WRITE, arguments: { text: "each ${ item }" } },
    },
    ...["left", "right"].map((id) => ({
      id,
      depends_on: ["first"],
      tool: { name: WRITE, arguments: { text: id } },
    })),
    { id: "last", depends_on: ["each", "left", "right"], tool: { name: WRITE, arguments: { text: "last" } } },
  ],
});

const APPROVED = JSON.stringify({
  name: "approved",
  max_concurrency: CAP,
  steps: [
    { id: "before", tool: { name: WRITE, arguments: { text: "before" } } },
    { id: "asked", depends_on: ["before"], approval: { message: "Go on?" } },
    { id: "beside", depends_on: ["before"], tool: { name: WRITE, arguments: { text: "beside" } } },
    { id: "after", depends_on: ["asked"], tool: { name: WRITE, arguments: { text: "after" } } },
  ],
});

type Source = NonNullable<NonNullable<Parameters<Runs["startRun"]>[0]["source"]>["kind"]>;

/** What is started, with how many calls it comes to. */
const WORK: readonly { readonly kind: Source; readonly calls: number }[] = [
  {
    calls: 12,
    kind: {
      case: "toolBatch",
      value: {
        maxConcurrency: CAP,
        calls: Array.from({ length: 12 }, (_, index) => ({
          tool: WRITE,
          input: { case: "arguments" as const, value: { text: `call ${index}` } },
        })),
      },
    },
  },
  { calls: 10, kind: { case: "workflow", value: { workflow: { case: "text", value: GRAPH } } } },
  { calls: 3, kind: { case: "workflow", value: { workflow: { case: "text", value: APPROVED } } } },
  {
    calls: 9,
    kind: {
      case: "requirement",
      value: { text: "Do it.", tools: { names: [WRITE] }, budget: { maxParallelCalls: CAP } },
    },
  },
];

/** Answers yes, on either server, as soon as it is asked. More than one may say so. */
async function approve(clients: readonly Runs[], runId: string): Promise<void> {
  // Not `expect.poll`, which knows only one test at a time.
  await vi.waitFor(
    async () => {
      const answers = await Promise.allSettled(
        clients.map((runs) =>
          runs.resolveApproval({ runId, path: "asked", approved: true }, { timeoutMs: 2_000 }),
        ),
      );
      expect(answers.some(({ status }) => status === "fulfilled")).toBe(true);
    },
    { timeout: TAKEOVER_MS, interval: 50 },
  );
}

async function eventsOf(runs: Runs, runId: string, afterSequence = 0n): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const { kind } of runs.watchRun({ runId, afterSequence }, { timeoutMs: TAKEOVER_MS })) {
    if (kind.case === "events") {
      events.push(...kind.value.events);
    }
  }
  return events;
}

/** Checks what a run that has ended has done, at the backend and in its story. */
async function expectDoneOnce({ backend }: Pair, runs: Runs, runId: string, expected: number): Promise<void> {
  const { run } = await runs.getRun({ runId });
  expect(run?.state, run?.error?.message).toBe(RunState.SUCCEEDED);

  const events = await eventsOf(runs, runId);
  expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
  expect(events.filter(({ kind }) => kind.case === "finished")).toHaveLength(1);
  expect(events.at(-1)?.kind.case).toBe("finished");
  const finished = events.filter(({ kind }) => kind.case === "stepFinished");
  const paths = finished.map(({ path }) => path);
  expect(paths).toHaveLength(new Set(paths).size);
  for (const { kind } of finished) {
    expect(kind.case === "stepFinished" && kind.value.step?.state).toBe(StepState.SUCCEEDED);
  }

  // What began once more kept its key, and nothing began whose end was recorded.
  const calls = backend.of(runId);
  const keys = new Map(calls.map(({ text, key }) => [text, key]));
  expect(keys.size).toBe(expected);
  expect(new Set(keys.values()).size).toBe(expected);
  for (const { text, key } of calls) {
    expect(key).toBe(keys.get(text));
  }
  const ends = new Map(
    finished.flatMap(({ time, kind }) => {
      const output = kind.case === "stepFinished" ? kind.value.step?.output : undefined;
      const json = output && toJson(ValueSchema, output);
      const text =
        typeof json === "object" && json !== null && !Array.isArray(json) ? json["instance"] : undefined;
      return typeof text === "string" && time !== undefined ? [[text, timestampMs(time)] as const] : [];
    }),
  );
  for (const { text, arrived } of calls) {
    expect(arrived).toBeLessThanOrEqual(ends.get(text) ?? Number.POSITIVE_INFINITY);
  }
  expect(Math.max(...calls.map(({ beside }) => beside))).toBeLessThanOrEqual(CAP);
}

/** Returns how often runs were taken over. */
async function killOnce(pair: Pair, round: number): Promise<number> {
  const { clients, servers } = pair;
  const starter = clients[round % 2];
  const victim = randomInt(2);
  const survivor = clients[1 - victim];
  expect.assert(starter !== undefined && survivor !== undefined);
  const started = await Promise.all(
    WORK.map(async ({ kind, calls }) => {
      const { run } = await starter.startRun({ source: { kind } });
      return { id: run?.id ?? "", calls };
    }),
  );
  const asked = started[2]?.id ?? "";
  const approved = setTimeout(randomInt(0, 1_500)).then(() => approve(clients, asked));
  await setTimeout(randomInt(0, 900));
  await servers[victim]?.kill();
  await approved;
  let takeovers = 0;
  for (const { id, calls } of started) {
    const { run } = await survivor.getRun(
      { runId: id, wait: { seconds: BigInt(TAKEOVER_MS / 1_000) } },
      { timeoutMs: TAKEOVER_MS + 5_000 },
    );
    expect(run?.endTime, `run ${id} goes on ${TAKEOVER_MS} ms after its worker was killed`).toBeDefined();
    takeovers += run?.takeovers ?? 0;
    await expectDoneOnce(pair, survivor, id, calls);
  }
  await servers[victim]?.restart();
  return takeovers;
}

for (let pair = 1; pair <= PAIRS; pair++) {
  test(`of two servers either may be killed ${KILLS_PER_PAIR} times: every run ends on the other, nothing that had ended is done again (${pair} of ${PAIRS})`, {
    concurrent: true,
    timeout: 600_000,
  }, async (context) => {
    const started = await startPair(context);
    let takeovers = 0;
    for (let round = 0; round < KILLS_PER_PAIR; round++) {
      takeovers += await killOnce(started, round);
    }
    // Otherwise all kills came too late, or at those who had nothing, and showed nothing.
    expect(takeovers).toBeGreaterThan(0);
  });
}
