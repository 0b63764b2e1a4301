import type { JsonObject } from "@bufbuild/protobuf";
import { type FaultsApp, startFaultsApp } from "./faults-app.ts";
import type { BenchRow } from "./row.ts";

/** Every instance takes so long when it is well. */
const WELL = { latency: "0.005s" };
/** How many callers call at once, one call after the other. */
const CALLERS = 8;
/** What the first seconds are, which do not count, and how long is measured. In milliseconds. */
const SETTLE_MS = 4_000;
const MEASURE_MS = 6_000;
/** How long it is measured, before each of them, what it is like when all is well. */
const HEALTHY_MS = 4_000;

interface Load {
  readonly calls: number;
  readonly successes: number;
  readonly p99Ms: number;
}

/** Without limits on callers: they are not what is measured. */
const CONFIG = `
inbound:
  global: {unlimited: true}
  per_caller: {unlimited: true}
  concurrency: {disabled: true}
outbound:
  deduplication: {disabled: true}
`;

/** One of three instances fails, hangs or crawls: what callers notice of it after the first seconds. */
export async function run(): Promise<BenchRow[]> {
  const app = await startFaultsApp(CONFIG, 3);
  try {
    return await measureAll(app);
  } finally {
    await app.close();
  }
}

async function measureAll(app: FaultsApp): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const [tool, kind] of [
    ["faults.Read", "calls that may be repeated"],
    ["faults.Write", "calls that may not"],
  ] as const) {
    for (const [what, faults] of [
      ["fails", { ...WELL, errorRate: 1 }],
      ["fails with INTERNAL", { ...WELL, errorRate: 1, errorCode: "INTERNAL" }],
      ["hangs", { hangRate: 1 }],
      ["crawls", { latency: "1s" }],
      ["resets connections", { ...WELL, disconnectRate: 1 }],
      ["answers with garbage", { ...WELL, badFrameRate: 1 }],
    ] as const) {
      // Right before, since what else the machine does changes by the minute.
      const healthy = await measure(app, tool, WELL, 0, HEALTHY_MS);
      const load = await measure(app, tool, faults, SETTLE_MS, MEASURE_MS);
      rows.push(toRow(`one of three ${what}, ${kind}`, load, healthy));
    }
  }
  return rows;
}

async function measure(
  app: FaultsApp,
  tool: string,
  faults: JsonObject,
  settleMs: number,
  measureMs: number,
): Promise<Load> {
  for (let index = 0; index < 3; index++) {
    await app.setFaults(index, index === 2 ? faults : WELL);
  }
  await app.forgive();
  const began = performance.now();
  const latencies: number[] = [];
  let successes = 0;
  async function callOn(): Promise<void> {
    for (;;) {
      const start = performance.now();
      if (start - began >= settleMs + measureMs) {
        return;
      }
      const call = {
        tool,
        input: { case: "arguments", value: { text: "x" } },
        timeout: { seconds: 10n },
      } as const;
      const succeeded = await app.tools.callTool({ call }).then(
        () => true,
        () => false,
      );
      if (start - began >= settleMs) {
        latencies.push(performance.now() - start);
        successes += succeeded ? 1 : 0;
      }
    }
  }
  await Promise.all(Array.from({ length: CALLERS }, callOn));
  latencies.sort((one, other) => one - other);
  return {
    calls: latencies.length,
    successes,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? Number.POSITIVE_INFINITY,
  };
}

function toRow(what: string, load: Load, healthy: Load): BenchRow {
  const rate = load.successes / load.calls;
  const ratio = load.p99Ms / healthy.p99Ms;
  return {
    area: "faults",
    what: `${what}: p99 after ${SETTLE_MS / 1_000} s, ${(rate * 100).toFixed(2)} % of ${load.calls} calls succeed`,
    ours: `${load.p99Ms.toFixed(1)} ms`,
    peer: `${healthy.p99Ms.toFixed(1)} ms`,
    peerName: "all three well",
    ratio: `${ratio.toFixed(2)}×`,
    target: "≤ 2×, ≥ 99.9 %",
    pass: rate >= 0.999 && ratio <= 2,
  };
}
