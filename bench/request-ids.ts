import { randomUUID } from "node:crypto";
import { type FaultsApp, startFaultsApp } from "./faults-app.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 9;
const CALLS = 100;

/** Without limits on callers, which are not what is measured. */
const CONFIG = `
inbound:
  global: {unlimited: true}
  per_caller: {unlimited: true}
`;

/** What a request id costs a call through a whole server, and how much work calls with the same one make. */
export async function run(): Promise<BenchRow[]> {
  const app = await startFaultsApp(CONFIG, 1);
  try {
    const times = { plain: [] as number[], fresh: [] as number[], repeated: [] as number[] };
    const repeated = randomUUID();
    await write(app, repeated);
    for (let round = -1; round < ROUNDS; round++) {
      const plain = await milliseconds(() => write(app, ""));
      const fresh = await milliseconds(() => write(app, randomUUID()));
      const again = await milliseconds(() => write(app, repeated));
      if (round >= 0) {
        times.plain.push(plain);
        times.fresh.push(fresh);
        times.repeated.push(again);
      }
    }
    const [plain, fresh, again] = [median(times.plain), median(times.fresh), median(times.repeated)];
    return [
      {
        ...row("a call with a new request id, recorded in PostgreSQL", `${fresh.toFixed(2)} ms`),
        peer: `${plain.toFixed(2)} ms`,
        peerName: "without an id",
        ratio: `${(plain / fresh).toFixed(2)}×`,
      },
      row("a repetition that gets the recorded outcome", `${again.toFixed(2)} ms`),
      await writesOfOneId(app),
    ];
  } finally {
    await app.close();
  }
}

/** The backend counts what it writes, and says so in its answer. */
async function writesOfOneId(app: FaultsApp): Promise<BenchRow> {
  const before = await write(app, "");
  const requestId = randomUUID();
  const answers = await Promise.all(Array.from({ length: CALLS }, () => write(app, requestId)));
  const writes = (await write(app, "")) - before - 1;
  return {
    ...row(`writes of ${CALLS} calls at once with one request id`, String(writes)),
    target: "1",
    pass: writes === 1 && new Set(answers).size === 1,
  };
}

/** Returns how many writes the backend has made. */
async function write({ tools }: FaultsApp, requestId: string): Promise<number> {
  const { result } = await tools.callTool({
    call: { tool: "faults.Write", requestId, input: { case: "arguments", value: { text: "x" } } },
  });
  const json = result?.value.case === "json" ? result.value.value : undefined;
  const fields = json?.kind.case === "structValue" ? json.kind.value.fields : {};
  const writes = fields["writes"]?.kind;
  return writes?.case === "stringValue" ? Number(writes.value) : Number.NaN;
}

async function milliseconds(call: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  for (let count = 0; count < CALLS; count++) {
    await call();
  }
  return (performance.now() - begin) / CALLS;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function row(what: string, ours: string): BenchRow {
  return { area: "request ids", what, ours, peer: "–", peerName: "", ratio: "–", target: "–", pass: true };
}
