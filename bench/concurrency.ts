import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { bulkhead } from "cockatiel";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { createAdaptiveConcurrency } from "../framework/policies/concurrency/adaptive-concurrency.ts";
import { createFixedConcurrency } from "../framework/policies/concurrency/fixed-concurrency.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 7;
const DECISIONS = 200_000;
const QUEUED = 20_000;
/** What the backend's workers can do at once. */
const WORKERS = 20;
const OVERLOAD = 3;
const DEADLINE_MS = 600;
const WARM_UP_MS = 1_500;
const MEASURED_MS = 3_000;
/** Requests are sent in as many portions a second. */
const PORTIONS = 100;

/** What a decision costs, and what a limit that finds itself saves when a server is offered more than it can do. */
export async function run(): Promise<BenchRow[]> {
  const decision = await decide();
  const ours = await queue(() => {
    const cap = createFixedConcurrency({ limit: 5, maxWaiting: QUEUED });
    return (work) => cap.run(work);
  });
  const peer = await queue(() => {
    const cap = bulkhead(5, QUEUED);
    return (work) => cap.execute(work);
  });
  const limited = await goodput("limited");
  const unlimited = await goodput("unlimited");
  return [
    {
      area: "concurrency",
      what: "one decision of the adaptive limit, with the end of the work",
      ours: `${decision.toFixed(0)} ns`,
      peer: "–",
      peerName: "",
      ratio: "–",
      target: "< 1 µs",
      pass: decision < 1_000,
    },
    {
      area: "concurrency",
      what: `${QUEUED} calls at once through a cap of 5, each`,
      ours: `${ours.toFixed(0)} ns`,
      peer: `${peer.toFixed(0)} ns`,
      peerName: "cockatiel's bulkhead",
      ratio: `${(peer / ours).toFixed(1)}×`,
      target: "–",
      pass: true,
    },
    {
      area: "concurrency",
      what: `answers within ${DEADLINE_MS} ms at ${OVERLOAD} times what the server can do, as a share of that`,
      ours: `${(limited * 100).toFixed(0)} %`,
      peer: `${(unlimited * 100).toFixed(0)} %`,
      peerName: "no limit",
      ratio: unlimited > 0 ? `${(limited / unlimited).toFixed(1)}×` : "–",
      target: "≥ 80 %",
      pass: limited >= 0.8,
    },
  ];
}

/** Nanoseconds to let a piece of work in and to take note of its end. */
async function decide(): Promise<number> {
  const limiter = createAdaptiveConcurrency();
  const costs: number[] = [];
  for (let round = -1; round < ROUNDS; round++) {
    const begin = performance.now();
    for (let index = 0; index < DECISIONS; index++) {
      limiter.tryAcquire("acme.weather.v1.WeatherService/GetForecast")?.release("done");
    }
    if (round >= 0) {
      costs.push(((performance.now() - begin) / DECISIONS) * 1_000_000);
    }
  }
  return median(costs);
}

type Cap = (work: () => Promise<number>) => Promise<number>;

/** Nanoseconds for each of many calls that come at once. */
async function queue(create: () => Cap): Promise<number> {
  const costs: number[] = [];
  for (let round = -1; round < ROUNDS; round++) {
    const cap = create();
    const begin = performance.now();
    await Promise.all(Array.from({ length: QUEUED }, () => cap(async () => 1)));
    if (round >= 0) {
      costs.push(((performance.now() - begin) / QUEUED) * 1_000_000);
    }
  }
  return median(costs);
}

/** Answers in time under overload, as a share of what the server can do at most. */
async function goodput(kind: "limited" | "unlimited"): Promise<number> {
  const backend = fork(fileURLToPath(new URL("./concurrency-backend.ts", import.meta.url)), [kind], {
    execArgv: ["--conditions=toolplane-source"],
  });
  const [url] = await once(backend, "message");
  const sessionManager = new Http2SessionManager(String(url));
  const client = createClient(TextService, createGrpcTransport({ baseUrl: String(url), sessionManager }));
  try {
    // The first round warms both sides up.
    await capacityOf(client);
    const capacity = await capacityOf(client);
    await offer(client, capacity * OVERLOAD, WARM_UP_MS);
    return (await offer(client, capacity * OVERLOAD, MEASURED_MS)) / capacity;
  } finally {
    sessionManager.abort();
    backend.disconnect();
    await once(backend, "exit");
  }
}

/** Answers a second when the server always has more to do than it can do at once, but not much. */
async function capacityOf(client: Client<typeof TextService>): Promise<number> {
  const calls = WORKERS * 12;
  let left = calls;
  const begin = performance.now();
  await Promise.all(
    Array.from({ length: WORKERS * 2 }, async () => {
      while (left-- > 0) {
        await client.analyzeText({ text: "To be or not to be" });
      }
    }),
  );
  return (calls / (performance.now() - begin)) * 1_000;
}

/** Sends requests at a rate, whatever becomes of them. Returns those that were answered in time, a second. */
async function offer(client: Client<typeof TextService>, rate: number, ms: number): Promise<number> {
  let answered = 0;
  let sent = 0;
  const begin = performance.now();
  const calls: Promise<void>[] = [];
  while (performance.now() - begin < ms) {
    const due = ((performance.now() - begin) / 1_000) * rate;
    for (; sent < due; sent++) {
      calls.push(
        client.analyzeText({ text: "To be or not to be" }, { timeoutMs: DEADLINE_MS }).then(
          () => {
            answered += 1;
          },
          () => {},
        ),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 1_000 / PORTIONS));
  }
  await Promise.all(calls);
  return answered / (ms / 1_000);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
