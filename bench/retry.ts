import { ExponentialBackoff, handleAll, retry as peerRetry } from "cockatiel";
import { createHedger } from "../framework/policies/hedge/hedger.ts";
import { createRetrier } from "../framework/policies/retry/retrier.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 9;
const CALLS = 100_000;
const CALLS_TO_DEAD_TARGET = 2_000;
/** A fifth of the calls, and 3 a second over the budget's window of 10 s. */
const MOST_ATTEMPTS = CALLS_TO_DEAD_TARGET * 1.2 + 30;

const call = { repeatable: true };
const succeed = async () => 1;

/** What wrapping a call that succeeds costs, and how much more a target gets that is down; against cockatiel's retry. */
export async function run(): Promise<BenchRow[]> {
  const classify = () => ({ kind: "transient" }) as const;
  const ours = createRetrier({ classify });
  const peer = peerRetry(handleAll, { maxAttempts: 2, backoff: new ExponentialBackoff() });
  const hedger = createHedger({ classify });
  const samples = {
    ours: [] as number[],
    peer: [] as number[],
    hedged: [] as number[],
    bare: [] as number[],
  };
  for (let round = -1; round < ROUNDS; round++) {
    const costs = {
      ours: await cost(() => ours.run(succeed, call)),
      peer: await cost(() => peer.execute(succeed)),
      hedged: await cost(() => hedger.run(succeed, call)),
      bare: await cost(succeed),
    };
    // The first round warms all of them up.
    if (round >= 0) {
      samples.ours.push(costs.ours);
      samples.peer.push(costs.peer);
      samples.hedged.push(costs.hedged);
      samples.bare.push(costs.bare);
    }
  }
  const bare = median(samples.bare);
  const [ourCost, peerCost, hedgeCost] = [samples.ours, samples.peer, samples.hedged].map(
    (costs) => median(costs) - bare,
  ) as [number, number, number];
  const fast = { classify, baseDelayMs: 1, maxDelayMs: 1 };
  const ourAttempts = await attemptsAtDeadTarget(createRetrier(fast).run.bind(null), call);
  const peerAttempts = await attemptsAtDeadTarget(
    (work) =>
      peerRetry(handleAll, {
        maxAttempts: 2,
        backoff: new ExponentialBackoff({ initialDelay: 1, maxDelay: 1 }),
      }).execute(work),
    call,
  );
  return [
    {
      area: "retries",
      what: "what a retrier adds to a call that succeeds",
      ours: nanoseconds(ourCost),
      peer: nanoseconds(peerCost),
      peerName: "cockatiel",
      ratio: `${(peerCost / ourCost).toFixed(1)}×`,
      target: "< 1 µs",
      pass: ourCost < 1_000,
    },
    {
      area: "retries",
      what: "what a hedger adds to a call that succeeds",
      ours: nanoseconds(hedgeCost),
      peer: "–",
      peerName: "",
      ratio: "–",
      target: "–",
      pass: true,
    },
    {
      area: "retries",
      what: `attempts that a dead target gets for ${CALLS_TO_DEAD_TARGET} calls`,
      ours: String(ourAttempts),
      peer: String(peerAttempts),
      peerName: "cockatiel, no budget",
      ratio: `${(peerAttempts / ourAttempts).toFixed(1)}×`,
      target: `≤ ${MOST_ATTEMPTS}`,
      pass: ourAttempts <= MOST_ATTEMPTS,
    },
  ];
}

/** Nanoseconds a call, one after the other. */
async function cost(one: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  for (let index = 0; index < CALLS; index++) {
    await one();
  }
  return ((performance.now() - begin) / CALLS) * 1_000_000;
}

type Run = (work: () => Promise<unknown>, circumstances: typeof call) => Promise<unknown>;

async function attemptsAtDeadTarget(run: Run, circumstances: typeof call): Promise<number> {
  let attempts = 0;
  const fail = async () => {
    attempts += 1;
    throw new Error("down");
  };
  await Promise.allSettled(Array.from({ length: CALLS_TO_DEAD_TARGET }, () => run(fail, circumstances)));
  return attempts;
}

function nanoseconds(value: number): string {
  return `${value.toFixed(0)} ns`;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
