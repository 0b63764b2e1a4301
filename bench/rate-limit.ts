import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { RateLimiterMemory } from "rate-limiter-flexible";
import { createLimitSet } from "../framework/policies/rate-limit/limit-set.ts";
import { createRateLimiter } from "../framework/policies/rate-limit/rate-limiter.ts";
import type { MemoryReport } from "./rate-limit-memory.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 9;
const DECISIONS = 200_000;
const KEYS = 10_000;
/** What one decision may cost. */
const MAX_NANOSECONDS = 1_000;
/** What a million keys may take. */
const MAX_MEGABYTES = 200;

const periodMs = 60_000;
const wide = { limit: 100_000_000, periodMs, burst: 100_000_000 };
const keys = Array.from({ length: KEYS }, (_, index) => `user:${index}`);

/** What a decision costs, and what a million keys take, against the memory limiter of rate-limiter-flexible. */
export async function run(): Promise<BenchRow[]> {
  const ours = createRateLimiter(wide);
  const refusing = createRateLimiter({ limit: 1, periodMs: 3_600_000, burst: 1 });
  const peer = new RateLimiterMemory({ points: wide.limit, duration: periodMs / 1_000 });
  const peerRefusing = new RateLimiterMemory({ points: 1, duration: 3_600 });
  const set = createLimitSet<string>([
    { name: "global", limiter: createRateLimiter(wide), keyOf: () => "all" },
    { name: "service", limiter: createRateLimiter(wide), keyOf: () => "acme.weather.v1.WeatherService" },
    { name: "caller", limiter: createRateLimiter(wide), keyOf: (key) => key },
  ]);
  const costs = await compare({
    ours: () => each((key) => ours.take(key).allowed),
    peer: () => eachAsync((key) => peer.consume(key)),
    refusing: () => each((key) => refusing.take(key).allowed),
    peerRefusing: () => eachAsync((key) => peerRefusing.consume(key).catch(() => undefined)),
    set: () => each((key) => set.take(key)?.allowed === true),
  });
  for (const limiter of [ours, refusing, set]) {
    limiter.close();
  }
  for (const key of keys) {
    // Each has a timer of its own.
    await Promise.all([peer.delete(key), peerRefusing.delete(key)]);
  }
  const memory = await measureMemory("ours");
  const peerMemory = await measureMemory("peer");
  return [
    decisionRow("one decision, allowed", costs.ours, costs.peer),
    decisionRow("one decision, refused", costs.refusing, costs.peerRefusing),
    {
      area: "rate limits",
      what: "three levels decided as one",
      ours: nanoseconds(costs.set),
      peer: "–",
      peerName: "",
      ratio: "–",
      target: "< 1 µs",
      pass: costs.set < MAX_NANOSECONDS,
    },
    {
      area: "rate limits",
      what: "memory of 1,000,000 keys in use",
      ours: megabytes(memory.inUse),
      peer: megabytes(peerMemory.inUse),
      peerName: "RateLimiterMemory",
      ratio: `${(peerMemory.inUse / memory.inUse).toFixed(1)}×`,
      target: `< ${MAX_MEGABYTES} MB`,
      pass: memory.inUse < MAX_MEGABYTES * 1e6,
    },
    {
      area: "rate limits",
      what: "memory of 1,000,000 keys that are as good as new",
      ours: megabytes(memory.afterwards),
      peer: "–",
      peerName: "",
      ratio: "–",
      target: "< 5 MB",
      pass: memory.afterwards < 5e6 && memory.keysAfterwards === 0,
    },
  ];
}

function decisionRow(what: string, ours: number, peer: number): BenchRow {
  return {
    area: "rate limits",
    what: `${what}, ${KEYS.toLocaleString("en")} keys`,
    ours: nanoseconds(ours),
    peer: nanoseconds(peer),
    peerName: "RateLimiterMemory",
    ratio: `${(peer / ours).toFixed(1)}×`,
    target: "< 1 µs, faster than the peer",
    pass: ours < MAX_NANOSECONDS && ours < peer,
  };
}

/** Runs contestants in turns, the first time to warm up. Resolves to the median of each, in nanoseconds a decision. */
async function compare<Name extends string>(
  contestants: Readonly<Record<Name, () => unknown>>,
): Promise<Record<Name, number>> {
  const names = Object.keys(contestants) as Name[];
  const times = new Map<Name, number[]>(names.map((name) => [name, []]));
  for (let round = -1; round < ROUNDS; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const begin = performance.now();
      await contestants[name]();
      if (round >= 0) {
        times.get(name)?.push(((performance.now() - begin) * 1e6) / DECISIONS);
      }
    }
  }
  return Object.fromEntries([...times].map(([name, values]) => [name, median(values)])) as Record<
    Name,
    number
  >;
}

function each(decide: (key: string) => boolean): number {
  let allowed = 0;
  for (let index = 0; index < DECISIONS; index++) {
    allowed += decide(keys[index % KEYS] ?? "") ? 1 : 0;
  }
  return allowed;
}

async function eachAsync(decide: (key: string) => Promise<unknown>): Promise<void> {
  for (let index = 0; index < DECISIONS; index++) {
    await decide(keys[index % KEYS] ?? "");
  }
}

/** In a process of its own, where nothing else takes memory. */
async function measureMemory(contestant: "ours" | "peer"): Promise<MemoryReport> {
  const child = fork(fileURLToPath(new URL("./rate-limit-memory.ts", import.meta.url)), [contestant], {
    execArgv: ["--conditions=toolplane-source", "--expose-gc"],
  });
  const [report] = await once(child, "message");
  child.disconnect();
  return report as MemoryReport;
}

function nanoseconds(value: number): string {
  return `${value.toFixed(0)} ns`;
}

function megabytes(value: number): string {
  return `${(value / 1e6).toFixed(1)} MB`;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
