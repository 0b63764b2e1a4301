import { type Breaker, createBreaker, createBreakerSet } from "@toolplane/framework/policies";
import { ConsecutiveBreaker, circuitBreaker, handleAll, SamplingBreaker } from "cockatiel";
import OpossumBreaker from "opossum";
import type { BenchRow } from "./row.ts";

/** Many short rounds, in each of which all take their turn: what else the machine does concerns all of them. */
const ROUNDS = 41;
const DECISIONS = 100_000;
const CALLS = 20_000;
/** What one decision may cost, with its result taken, in nanoseconds. */
const LIMIT_NS = 1_000;
const WINDOW_MS = 60_000;
const OPEN_MS = 30_000;

/** One call through a breaker, to work that is done at once. */
type Call = () => Promise<unknown>;

const work = async () => 1;

/** What a decision of a breaker costs, and what a call through one costs beside cockatiel and opossum, in one process. */
export async function run(): Promise<BenchRow[]> {
  return [...decisions(), ...(await successes()), ...(await refusals())];
}

function decisions(): BenchRow[] {
  const plain = createBreaker();
  const timed = createBreaker({ slowCallMs: 10_000 });
  const set = createBreakerSet();
  const names = ["service/weather", "instance/i-1", "method/weather/get"];
  const open = createBreaker();
  open.isolate();
  const rows: readonly (readonly [what: string, decide: () => void])[] = [
    ["leave to call and its result", () => callThrough(plain)],
    ["leave to call and its result, slow calls counted", () => callThrough(timed)],
    [
      "leave of three breakers by name, and its result",
      () => {
        const permit = set.acquire(names);
        if (permit.allowed) {
          permit.record("success");
        }
      },
    ],
    ["a refusal", () => open.tryAcquire()],
  ];
  return rows.map(([what, decide]) => {
    const ns = median(Array.from({ length: ROUNDS }, () => nanosecondsSync(decide)));
    return {
      area: "breaker",
      what,
      ours: `${ns.toFixed(0)} ns`,
      peer: "–",
      peerName: "",
      ratio: "–",
      target: `< ${LIMIT_NS} ns`,
      pass: ns < LIMIT_NS,
    };
  });
}

function callThrough(breaker: Breaker): void {
  const permit = breaker.tryAcquire();
  if (permit.allowed) {
    permit.record("success");
  }
}

async function successes(): Promise<BenchRow[]> {
  const opossum = createOpossum();
  try {
    const consecutive = circuitBreaker(handleAll, {
      halfOpenAfter: OPEN_MS,
      breaker: new ConsecutiveBreaker(3),
    });
    const sampling = circuitBreaker(handleAll, {
      halfOpenAfter: OPEN_MS,
      breaker: new SamplingBreaker({ threshold: 0.5, duration: WINDOW_MS, minimumRps: 1 }),
    });
    const row = createBreaker({ failureRate: Number.POSITIVE_INFINITY });
    return [
      ...(await compare("a call that succeeds, failures in a row counted", ours(row), {
        cockatiel: () => consecutive.execute(work),
      })),
      ...(await compare("a call that succeeds, rates over a window counted too", ours(createBreaker()), {
        cockatiel: () => sampling.execute(work),
        opossum: () => opossum.fire(),
      })),
    ];
  } finally {
    opossum.shutdown();
  }
}

async function refusals(): Promise<BenchRow[]> {
  const breaker = createBreaker();
  breaker.isolate();
  const cockatiel = circuitBreaker(handleAll, {
    halfOpenAfter: OPEN_MS,
    breaker: new ConsecutiveBreaker(3),
  });
  const isolation = cockatiel.isolate();
  const opossum = createOpossum();
  opossum.open();
  try {
    return await compare("a call that is refused", ours(breaker), {
      cockatiel: () => cockatiel.execute(work).catch(refused),
      opossum: () => opossum.fire().catch(refused),
    });
  } finally {
    isolation.dispose();
    opossum.shutdown();
  }
}

function createOpossum() {
  return new OpossumBreaker(work, {
    timeout: false,
    rollingCountTimeout: WINDOW_MS,
    rollingCountBuckets: 20,
    errorThresholdPercentage: 50,
    resetTimeout: OPEN_MS,
  });
}

/** A call as an interceptor makes it. */
function ours(breaker: Breaker): Call {
  return async () => {
    const permit = breaker.tryAcquire();
    if (!permit.allowed) {
      return refused();
    }
    try {
      const result = await work();
      permit.record("success");
      return result;
    } catch (error) {
      permit.record("failure", String(error));
      throw error;
    }
  };
}

function refused(): undefined {
  return undefined;
}

async function compare(what: string, own: Call, peers: Readonly<Record<string, Call>>): Promise<BenchRow[]> {
  const contestants = [own, ...Object.values(peers)].map((call) => ({ call, times: [] as number[] }));
  for (let round = -1; round < ROUNDS; round++) {
    for (const { call, times } of round % 2 === 0 ? contestants : contestants.toReversed()) {
      const time = await nanoseconds(call);
      // The first round warms all up.
      if (round >= 0) {
        times.push(time);
      }
    }
  }
  const [ownTimes = [], ...peerTimes] = contestants.map(({ times }) => times);
  return Object.keys(peers).map((peerName, index) => {
    const times = peerTimes[index] ?? [];
    const ratio = median(times.map((time, round) => time / (ownTimes[round] ?? Number.NaN)));
    return {
      area: "breaker",
      what,
      ours: `${median(ownTimes).toFixed(0)} ns`,
      peer: `${median(times).toFixed(0)} ns`,
      peerName,
      ratio: `${ratio.toFixed(2)}×`,
      target: "> 1×",
      pass: ratio > 1,
    };
  });
}

/** What each of many costs. */
function nanosecondsSync(decide: () => void): number {
  const begin = performance.now();
  for (let count = 0; count < DECISIONS; count++) {
    decide();
  }
  return ((performance.now() - begin) / DECISIONS) * 1e6;
}

async function nanoseconds(call: Call): Promise<number> {
  const begin = performance.now();
  for (let count = 0; count < CALLS; count++) {
    await call();
  }
  return ((performance.now() - begin) / CALLS) * 1e6;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
