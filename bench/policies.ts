import { randomUUID } from "node:crypto";
import {
  createAdaptiveRate,
  createBatcher,
  createCoalescer,
  createFixedConcurrency,
  createIdempotency,
  createMemoryIdempotencyStore,
  createOutlierDetector,
  createRetryBudget,
} from "@toolplane/framework/policies";
import { createFakeClock } from "../framework/test-support/fake-clock.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 15;
const CALLS = 20_000;
/** What one decision may cost, in nanoseconds. */
const LIMIT_NS = 1_000;

/** What a weak backend can take, in calls a second, and for how long it is called. */
const CAPACITY = 40;
const SECONDS = 120;
const STEP_MS = 10;

type Call = () => unknown;

/** What the policies cost a call that no other benchmark measures by themselves, and what an adaptive rate finds. */
export async function run(): Promise<BenchRow[]> {
  return [...(await costs()), await weakBackend()];
}

async function costs(): Promise<BenchRow[]> {
  const detector = createOutlierDetector();
  const instances = ["a", "b", "c"];
  detector.setInstances(instances);
  const budget = createRetryBudget();
  const adaptive = createAdaptiveRate({ initialRate: 1e9, maxRate: 1e9, burst: 1e9 });
  const cap = createFixedConcurrency({ limit: 100 });
  const coalescer = createCoalescer<number>();
  const idempotency = createIdempotency({
    store: createMemoryIdempotencyStore({ maxEntries: 10_000_000 }),
  });
  const batcher = createBatcher<number>({ name: "bench", write: async () => {}, maxPending: CALLS });
  const outcome = { kind: "success", bytes: new Uint8Array(100) } as const;
  let serial = 0;
  try {
    return [
      await decision("outlier ejection: choose among three, begin, end", () => {
        const [first = ""] = detector.eligible(instances);
        detector.begin(first).end("success", 5);
      }),
      await decision("retry budget: a call that needs no repetition", () => budget.count()),
      await call("adaptive rate: a turn and its result", async () =>
        (await adaptive.acquire()).done("success", 5),
      ),
      await call("fixed concurrency: a place that is free", () => cap.run(work)),
      await call("coalescer: a call that nobody shares", () => coalescer.run(String(serial++), work)),
      await call("idempotency: a new request id, in memory", () =>
        idempotency.run({ scope: "ada/Pay", requestId: randomUUID(), fingerprint: "x" }, async () => outcome),
      ),
      await call("batcher: an item, until it is written", batches(batcher.add)),
    ];
  } finally {
    adaptive.close();
    cap.close();
    await idempotency.close();
    await batcher.close();
  }
}

async function work(): Promise<number> {
  return 1;
}

/** Many producers, each of which waits for its item: one alone would wait for the interval each time. */
function batches(add: (item: number) => Promise<void>): Call {
  let pending: Promise<void>[] = [];
  return async () => {
    pending.push(add(1));
    if (pending.length === 500) {
      await Promise.all(pending);
      pending = [];
    }
  };
}

async function decision(what: string, decide: Call): Promise<BenchRow> {
  const ns = await cost(() => {
    for (let count = 0; count < CALLS; count++) {
      decide();
    }
  });
  return { ...row(what, `${ns.toFixed(0)} ns`), target: `< ${LIMIT_NS} ns`, pass: ns < LIMIT_NS };
}

async function call(what: string, make: Call): Promise<BenchRow> {
  const ns = await cost(async () => {
    for (let count = 0; count < CALLS; count++) {
      await make();
    }
  });
  return row(what, `${ns.toFixed(0)} ns`);
}

/** Nanoseconds a call, the median of some rounds after the first. */
async function cost(round: Call): Promise<number> {
  const times: number[] = [];
  for (let number = -1; number < ROUNDS; number++) {
    const begin = performance.now();
    await round();
    if (number >= 0) {
      times.push(((performance.now() - begin) / CALLS) * 1e6);
    }
  }
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? Number.NaN;
}

/** A backend that refuses what is more than it can take, and callers who always have more. Time is simulated. */
async function weakBackend(): Promise<BenchRow> {
  const clock = createFakeClock();
  const rate = createAdaptiveRate({ clock });
  let [room, well, refused] = [1, 0, 0];
  async function caller(): Promise<void> {
    for (;;) {
      const { done } = await rate.acquire();
      const isRefused = room < 1;
      room -= isRefused ? 0 : 1;
      well += isRefused ? 0 : 1;
      refused += isRefused ? 1 : 0;
      done(isRefused ? "failure" : "success", 5);
    }
  }
  const callers = Array.from({ length: 20 }, () => caller().catch(() => {}));
  for (let elapsed = 0; elapsed < SECONDS * 1_000; elapsed += STEP_MS) {
    clock.advance(STEP_MS);
    room = Math.min(1, room + (CAPACITY * STEP_MS) / 1_000);
    await new Promise(setImmediate);
  }
  rate.close();
  await Promise.all(callers);
  const used = well / (CAPACITY * SECONDS);
  return {
    ...row(
      `adaptive rate: used of a backend that takes ${CAPACITY} a second, ${SECONDS} s from 10 a second on (simulated)`,
      `${(used * 100).toFixed(0)} %, ${((refused / (well + refused)) * 100).toFixed(1)} % refused`,
    ),
    target: "≥ 50 %, ≤ 5 % refused",
    pass: used >= 0.5 && refused / (well + refused) <= 0.05,
  };
}

function row(what: string, ours: string): BenchRow {
  return { area: "policies", what, ours, peer: "–", peerName: "", ratio: "–", target: "–", pass: true };
}
