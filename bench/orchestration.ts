import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { JsonObject } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { type Run, RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import pLimit from "p-limit";
import { FaultService } from "../examples/typescript/gen/examples/faults/v1/fault_service_pb.js";
import { startOpenAiServer } from "../server/orchestration/models/test-support/model-servers.ts";
import { type FaultsApp, startFaultsApp } from "./faults-app.ts";
import type { BenchRow } from "./row.ts";

setFlagsFromString("--expose-gc");
/** Only what is really in use counts. */
const collect: () => void = runInNewContext("gc");

type Runs = Client<typeof OrchestrationService>;

/** Without what would keep callers or calls back: the runs' own caps are what is measured. */
const CONFIG = `
inbound:
  global: {unlimited: true}
  per_caller: {unlimited: true}
  concurrency: {disabled: true}
`;
const CALL_MS = 2_000;
const STEP_MS = 60;
/** Two layers of so many steps each. */
const LAYER = 20;
const CAP = 16;
const TRIES = 15;
/** Rounds that do not count: code that runs for the first time is slower, on both sides. */
const WARM_UP = 3;
const AGENT_MS = 1_000;
const NODES = 1_000;
const ITEMS = 10_000;
const MIB = 1024 * 1024;

/** What runs cost beside the work that they do. */
export async function run(): Promise<BenchRow[]> {
  const models = await startOpenAiServer(async () => {
    await new Promise((resolve) => setTimeout(resolve, AGENT_MS));
    return { kind: "answer", text: "It is done." };
  });
  const app = await startFaultsApp(CONFIG, 1, {
    OPENAI_BASE_URL: models.url,
    OPENAI_API_KEY: "none",
    TOOLPLANE_MODEL: "openai/bench",
  });
  const runs = createClient(OrchestrationService, createGrpcTransport({ baseUrl: app.url }));
  const backend = createClient(FaultService, createGrpcTransport({ baseUrl: app.backends[0] ?? "" }));
  try {
    return [
      await batch(app, runs, backend),
      await agents(runs),
      await graph(app, runs, backend),
      ...(await sizes(app, runs)),
    ];
  } finally {
    await app.close();
    await models.close();
  }
}

/** Five calls at once, against the time of one that is made without us. */
async function batch(app: FaultsApp, runs: Runs, backend: Client<typeof FaultService>): Promise<BenchRow> {
  await execute(runs, { case: "toolBatch", value: { calls: [{ tool: "faults.Write" }] } });
  await backend.write({});
  await app.setFaults(0, { latency: `${CALL_MS / 1_000}s` });
  const alone = await timed(() => backend.write({}));
  const calls = Array.from({ length: 5 }, (_, index) => ({
    tool: "faults.Write",
    input: { case: "arguments" as const, value: { text: `call ${index}` } },
  }));
  const taken = await timed(() => execute(runs, { case: "toolBatch", value: { calls } }));
  return toRow("5 calls of 2 s, durable", taken, alone, "one call without us", 1.05);
}

/** Three agents at once, against the slowest of them. */
async function agents(runs: Runs): Promise<BenchRow> {
  await runs.putAgent({ agent: { name: "bench", prompt: "Answer shortly.", cacheExcluded: true } });
  const tasks = ["one", "two", "three"].map((task) => ({ agent: "bench", task }));
  const alone = await timed(() => execute(runs, { case: "agentTasks", value: { tasks: tasks.slice(0, 1) } }));
  const taken = await timed(() => execute(runs, { case: "agentTasks", value: { tasks } }));
  return toRow("3 agents at once, a turn of 1 s each", taken, alone, "one agent", 1.1);
}

/** 40 steps in two layers under a cap, against the same calls made by a program that keeps nothing. */
async function graph(app: FaultsApp, runs: Runs, backend: Client<typeof FaultService>): Promise<BenchRow> {
  await app.setFaults(0, { latency: `${STEP_MS / 1_000}s` });
  const layer = (name: string, before: readonly string[]): JsonObject[] =>
    Array.from({ length: LAYER }, (_, index) => ({
      id: `${name}${index}`,
      depends_on: [...before],
      tool: { name: "faults.Write", arguments: { text: `${name} ${index}` } },
    }));
  const first = layer("a", []);
  const text = JSON.stringify({
    name: "bench",
    max_concurrency: CAP,
    steps: [
      ...first,
      ...layer(
        "b",
        first.map(({ id }) => String(id)),
      ),
    ],
  });
  await runs.putWorkflow({ source: { case: "text", value: text } });
  const limit = pLimit(CAP);
  const callLayer = () =>
    Promise.all(
      Array.from({ length: LAYER }, (_, index) => limit(() => backend.write({ text: `peer ${index}` }))),
    );
  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < WARM_UP + TRIES; round++) {
    const kind = { case: "workflow", value: { workflow: { case: "name", value: "bench" } } } as const;
    const taken = await timed(() => execute(runs, kind));
    const takenByPeer = await timed(async () => {
      await callLayer();
      await callLayer();
    });
    if (round >= WARM_UP) {
      ours.push(taken);
      peer.push(takenByPeer);
    }
  }
  return toRow(
    `durable workflow of ${2 * LAYER} steps of ${STEP_MS} ms in 2 layers, cap ${CAP}, median of ${TRIES}`,
    median(ours),
    median(peer),
    "p-limit, nothing kept",
    1.25,
  );
}

/** Large runs: how fast, and what they leave in memory. */
async function sizes(app: FaultsApp, runs: Runs): Promise<BenchRow[]> {
  await app.setFaults(0, {});
  const chainOfTen = Array.from({ length: NODES }, (_, index) => ({
    id: `n${index}`,
    depends_on: index < 10 ? [] : [`n${index - 10}`],
    value: index,
  }));
  const nodes = JSON.stringify({ name: "nodes", max_concurrency: 100, steps: chainOfTen });
  const items = JSON.stringify({
    name: "items",
    max_concurrency: 100,
    steps: [
      {
        id: "each",
        for_each: { items: "${ input.list }" },
        tool: { name: "faults.Write", arguments: { text: "${ string(item) }" } },
      },
    ],
  });
  const list = Array.from({ length: ITEMS }, (_, index) => index);
  return [
    await sized(`a graph of ${NODES} steps`, NODES, () => executeWorkflow(runs, nodes)),
    await sized(`a list of ${ITEMS} items, a call each`, ITEMS, () => executeWorkflow(runs, items, { list })),
  ];
}

async function sized(what: string, steps: number, work: () => Promise<unknown>): Promise<BenchRow> {
  const before = await settledHeap();
  let peak = before;
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().heapUsed);
  }, 20);
  const taken = await timed(work);
  clearInterval(watch);
  const left = (await settledHeap()) - before;
  return {
    area: "orchestration",
    what,
    ours: `${Math.round((steps / taken) * 1_000)} steps/s, at most ${toMib(peak - before)} more, then ${toMib(Math.max(left, 0))}`,
    peer: "–",
    peerName: "",
    ratio: "–",
    target: "at most 256 MiB more",
    pass: peak - before < 256 * MIB,
  };
}

async function settledHeap(): Promise<number> {
  collect();
  await new Promise((resolve) => setTimeout(resolve, 100));
  collect();
  return process.memoryUsage().heapUsed;
}

async function executeWorkflow(runs: Runs, text: string, input: JsonObject = {}): Promise<Run> {
  return await execute(runs, { case: "workflow", value: { workflow: { case: "text", value: text }, input } });
}

type Source = NonNullable<NonNullable<Parameters<Runs["startRun"]>[0]["source"]>["kind"]>;

async function execute(runs: Runs, kind: Source): Promise<Run> {
  const { run: started } = await runs.startRun({ source: { kind } });
  const { run: ended } = await runs.getRun({ runId: started?.id ?? "", wait: { seconds: 600n } });
  if (ended?.state !== RunState.SUCCEEDED) {
    throw new Error(`a run ended ${RunState[ended?.state ?? 0]}: ${ended?.error?.message}`);
  }
  return ended;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function toMib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}

function toRow(what: string, ours: number, peer: number, peerName: string, most: number): BenchRow {
  const ratio = ours / peer;
  return {
    area: "orchestration",
    what,
    ours: `${ours.toFixed(0)} ms`,
    peer: `${peer.toFixed(0)} ms`,
    peerName,
    ratio: `${ratio.toFixed(2)}×`,
    target: `≤ ${most}×`,
    pass: ratio <= most,
  };
}
