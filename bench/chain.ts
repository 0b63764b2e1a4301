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
const WARM_UP = 16;
/** What the chain has to keep of a bare handler's throughput. */
const LEAST_RATIO = 0.85;

/** The servers, by what they are called in the results. The first is what the others are compared with. */
const servers = {
  bare: ["bare"],
  serve: ["serve"],
  chain: ["chain"],
} as const;

interface Contestant {
  readonly process: ChildProcess;
  readonly url: string;
  /** Calls a second, by round. */
  readonly rates: number[];
  /** Processor time a call in microseconds, by round. */
  readonly costs: number[];
}

/**
 * What the whole chain leaves of the throughput of a handler behind connect-node's adapter. The servers take turns many
 * times, each in a process of its own, as is the client, so that what else the machine does concerns all of them alike.
 */
export async function run(names: Readonly<Record<string, readonly string[]>> = servers): Promise<BenchRow[]> {
  const load = startProcess("./chain-load.ts", []);
  const contestants = new Map<string, Contestant>();
  try {
    for (const [name, args] of Object.entries(names)) {
      contestants.set(name, await start(args));
    }
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      const order = [...contestants.values()];
      for (const contestant of round % 2 === 0 ? order : order.toReversed()) {
        await takeTurn(contestant, load, round >= 0);
      }
    }
  } finally {
    load.disconnect();
    for (const { process: server } of contestants.values()) {
      server.disconnect();
    }
  }
  const [bare, ...others] = [...contestants];
  const rows = bare === undefined ? [] : others.flatMap(([name, one]) => rowsOf(name, one, bare[1]));
  return [...rows, ...(await stepRows())];
}

function rowsOf(name: string, one: Contestant, bare: Contestant): BenchRow[] {
  const ratio = medianRatio(one.rates, bare.rates);
  const costRatio = medianRatio(bare.costs, one.costs);
  const whole = name === "chain";
  const what = whole ? "the whole chain" : name === "serve" ? "serve() alone" : name;
  const passes = !whole || ratio >= LEAST_RATIO;
  const target = whole ? `> ${LEAST_RATIO}×` : "–";
  return [
    {
      area: "chain",
      what: `calls a second through ${what}, ${CONCURRENCY} at once over gRPC`,
      ours: median(one.rates).toFixed(0),
      peer: median(bare.rates).toFixed(0),
      peerName: "bare handler",
      ratio: `${ratio.toFixed(2)}×`,
      target,
      pass: passes,
    },
    {
      area: "chain",
      what: `processor time of a call through ${what}`,
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
  return { process: server, url, rates: [], costs: [] };
}

/** Its output goes where logs of a server without readers go. */
function startProcess(file: string, args: readonly string[]): ChildProcess {
  return fork(fileURLToPath(new URL(file, import.meta.url)), args, {
    execArgv: ["--conditions=toolplane-source"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
}

async function takeTurn(contestant: Contestant, load: ChildProcess, counts: boolean): Promise<void> {
  const before = await cpuOf(contestant);
  const order: LoadOrder = { url: contestant.url, calls: CALLS, concurrency: CONCURRENCY };
  const { seconds } = await ask<{ seconds: number }>(load, order);
  const after = await cpuOf(contestant);
  if (counts) {
    contestant.rates.push(CALLS / seconds);
    contestant.costs.push((after - before) / CALLS);
  }
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
