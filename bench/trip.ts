import type { JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type FaultsApp, startFaultsApp } from "./faults-app.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 10;
/** How long the breakers stay open here, so that recovery does not take half a minute. In milliseconds. */
const OPEN_MS = 500;
/** A backend that fails slowly: what a breaker spares its callers. */
const FAILING = { errorRate: 1, latency: "0.05s" };
const WELL = { latency: "0s" };

const config = (breakers: boolean) => `
inbound:
  global: {unlimited: true}
  per_caller: {unlimited: true}
outbound:
  breaker: {open_duration: ${OPEN_MS / 1_000}s, max_open_duration: ${OPEN_MS / 1_000}s, disabled: ${!breakers}}
  outliers: {disabled: true}
  deduplication: {disabled: true}
`;

interface Ending {
  readonly kind: "ok" | "failed" | "refused";
  readonly ms: number;
}

/** One instance that fails and recovers: how soon the breaker opens, what a refusal costs, how soon calls succeed again. */
export async function run(): Promise<BenchRow[]> {
  const withBreakers = await startFaultsApp(config(true), 1);
  const without = await startFaultsApp(config(false), 1);
  try {
    const sent: number[] = [];
    const refusals: number[] = [];
    const failures: number[] = [];
    const recoveries: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await fail(withBreakers, FAILING);
      sent.push(await callsUntilRefused(withBreakers));
      refusals.push((await call(withBreakers)).ms);
      await fail(without, FAILING);
      failures.push((await call(without)).ms);
      await withBreakers.setFaults(0, WELL);
      recoveries.push(await timeToSuccess(withBreakers));
    }
    const refusal = median(refusals);
    const failure = median(failures);
    const slowest = Math.max(...recoveries);
    return [
      {
        area: "breaker",
        what: `calls that reach a failing backend before its breaker opens, most of ${ROUNDS} rounds`,
        ours: String(Math.max(...sent)),
        peer: "–",
        peerName: "",
        ratio: "–",
        target: "≤ 3",
        pass: Math.max(...sent) <= 3,
      },
      {
        area: "breaker",
        what: "a call to a backend that fails after 50 ms, median",
        ours: `${refusal.toFixed(1)} ms`,
        peer: `${failure.toFixed(1)} ms`,
        peerName: "without breakers",
        ratio: `${(failure / refusal).toFixed(1)}× faster`,
        target: "faster",
        pass: refusal < failure,
      },
      {
        area: "breaker",
        what: `from the backend's recovery to the first success, open for ${OPEN_MS} ms, slowest of ${ROUNDS}`,
        ours: `${slowest.toFixed(0)} ms`,
        peer: "–",
        peerName: "",
        ratio: "–",
        target: `< ${2 * OPEN_MS} ms`,
        pass: slowest < 2 * OPEN_MS,
      },
    ];
  } finally {
    await withBreakers.close();
    await without.close();
  }
}

async function fail(app: FaultsApp, faults: JsonObject): Promise<void> {
  await app.forgive();
  await app.setFaults(0, faults);
}

async function callsUntilRefused(app: FaultsApp): Promise<number> {
  for (let calls = 0; calls < 100; calls++) {
    if ((await call(app)).kind === "refused") {
      return calls;
    }
  }
  return Number.POSITIVE_INFINITY;
}

async function timeToSuccess(app: FaultsApp): Promise<number> {
  const began = performance.now();
  while ((await call(app)).kind !== "ok") {
    if (performance.now() - began > 20 * OPEN_MS) {
      return Number.POSITIVE_INFINITY;
    }
  }
  return performance.now() - began;
}

/** Not to be repeated, so that each call reaches the backend at most once. */
async function call({ tools }: FaultsApp): Promise<Ending> {
  const began = performance.now();
  const kind = await tools
    .callTool({ call: { tool: "faults.Write", input: { case: "arguments", value: { text: "x" } } } })
    .then(
      () => "ok" as const,
      (error: unknown) => {
        const { code, rawMessage } = ConnectError.from(error);
        return code === Code.Unavailable && /^Nothing was sent/.test(rawMessage)
          ? ("refused" as const)
          : ("failed" as const);
      },
    );
  return { kind, ms: performance.now() - began };
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
