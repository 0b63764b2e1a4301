import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { LoadOrder } from "./chain-load.ts";
import { stepRows } from "./chain-steps.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 61;
const CALLS = 500;
const CONCURRENCY = 32;
/** Rounds that are not counted, until the code is compiled. */
const WARM_UP = 30;
/** What the chain has to keep of a bare handler's throughput. */
const LEAST_RATIO = 0.85;

/** The servers that are compared with a bare handler, by what they are called in the results. */
const servers: Readonly<Record<string, readonly string[]>> = {
  "serve() alone": ["serve"],
  "the whole chain": ["chain"],
};
const WHOLE = "the whole chain";

interface Contestant {
  readonly process: ChildProcess;
  readonly url: string;
}

/** What was measured of one server, by round. */
interface Turns {
  /** Calls a second. */
  readonly rates: number[];
  /** Processor time a call of the thread that serves, in microseconds. */
  readonly costs: number[];
}

/**
 * What the whole chain leaves of the throughput of a handler behind connect-node's adapter. Each server takes turns with the
 * bare one many times, each in a process of its own, as is the client, so that what else the machine does concerns both.
 */
export async function run(): Promise<BenchRow[]> {
  const load = startProcess("./chain-load.ts", []);
  const started: ChildProcess[] = [load];
  const rows: BenchRow[] = [];
  try {
    const bare = await start(["bare"]);
    started.push(bare.process);
    for (const [name, args] of Object.entries(servers)) {
      const one = await start(args);
      started.push(one.process);
      rows.push(...rowsOf(name, ...(await compare(one, bare, load))));
    }
  } finally {
    for (const child of started) {
      child.disconnect();
    }
  }
  return [...rows, ...(await stepRows())];
}

async function compare(one: Contestant, bare: Contestant, load: ChildProcess): Promise<[Turns, Turns]> {
  const ours: Turns = { rates: [], costs: [] };
  const theirs: Turns = { rates: [], costs: [] };
  const pair = [
    { contestant: one, turns: ours },
    { contestant: bare, turns: theirs },
  ];
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const { contestant, turns } of round % 2 === 0 ? pair : pair.toReversed()) {
      await takeTurn(contestant, load, round >= 0 ? turns : undefined);
    }
  }
  return [ours, theirs];
}

function rowsOf(name: string, one: Turns, bare: Turns): BenchRow[] {
  const ratio = medianRatio(one.rates, bare.rates);
  const costRatio = medianRatio(bare.costs, one.costs);
  const target = name === WHOLE ? `> ${LEAST_RATIO}×` : "–";
  return [
    {
      area: "chain",
      what: `calls a second through ${name}, ${CONCURRENCY} at once over gRPC`,
      ours: median(one.rates).toFixed(0),
      peer: median(bare.rates).toFixed(0),
      peerName: "bare handler",
      ratio: `${ratio.toFixed(2)}×`,
      target,
      pass: name !== WHOLE || ratio > LEAST_RATIO,
    },
    {
      area: "chain",
      what: `processor time of a call through ${name}`,
      ours: `${median(one.costs).toFixed(0)} µs`,
      peer: `${median(bare.costs).toFixed(0)} µs`,
      peerName: "bare handler",
      ratio: `${costRatio.toFixed(2)}×`,
      target: "–",
      pass: true,
    },
  ];
}

async function start(args: readonly string[]): Promise<Contestant> {
  const server = startProcess("./chain-backend.ts", args);
  const [{ url }] = (await once(server, "message")) as [{ url: string }];
  return { process: server, url };
}

/** Its output goes where logs of a server without readers go. */
function startProcess(file: string, args: readonly string[]): ChildProcess {
  return fork(fileURLToPath(new URL(file, import.meta.url)), args, {
    execArgv: ["--conditions=toolplane-source"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
}

async function takeTurn(contestant: Contestant, load: ChildProcess, turns: Turns | undefined): Promise<void> {
  const before = await cpuOf(contestant);
  const order: LoadOrder = { url: contestant.url, calls: CALLS, concurrency: CONCURRENCY };
  const { seconds } = await ask<{ seconds: number }>(load, order);
  const after = await cpuOf(contestant);
  turns?.rates.push(CALLS / seconds);
  turns?.costs.push((after - before) / CALLS);
}

async function cpuOf({ process: server }: Contestant): Promise<number> {
  return (await ask<{ cpuUs: number }>(server, {})).cpuUs;
}

async function ask<Answer>(child: ChildProcess, question: object): Promise<Answer> {
  child.send(question);
  const [answer] = await once(child, "message");
  return answer as Answer;
}

/** The median over the rounds of the quotient within each round. */
function medianRatio(ours: readonly number[], theirs: readonly number[]): number {
  return median(ours.map((value, round) => value / (theirs[round] ?? Number.NaN)));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
