import { startFaultsApp } from "./faults-app.ts";
import type { BenchRow } from "./row.ts";

const CALLS = 5;
const SECONDS = 2;

/** Without limits on callers: they are not what is measured. */
const CONFIG = "inbound: { global: { unlimited: true }, per_caller: { unlimited: true } }";

/** Many calls at once: what they take together, beside the slowest of them. */
export async function run(): Promise<BenchRow[]> {
  const app = await startFaultsApp(CONFIG, 1);
  try {
    await app.setFaults(0, { latency: `${SECONDS}s` });
    const began = performance.now();
    const calls = Array.from({ length: CALLS }, (_, index) => ({
      tool: "faults.Write",
      input: { case: "arguments", value: { text: String(index) } } as const,
    }));
    let succeeded = 0;
    for await (const { outcome } of app.tools.callTools({ calls })) {
      succeeded += outcome.case === "response" ? 1 : 0;
    }
    const seconds = (performance.now() - began) / 1_000;
    return [
      {
        area: "calls",
        what: `${CALLS} calls of ${SECONDS} s in one CallTools`,
        ours: `${seconds.toFixed(2)} s`,
        peer: `${SECONDS} s`,
        peerName: "the slowest of them",
        ratio: `${(seconds / SECONDS).toFixed(2)}×`,
        target: "≤ 2.1 s",
        pass: succeeded === CALLS && seconds <= 2.1,
      },
    ];
  } finally {
    await app.close();
  }
}
