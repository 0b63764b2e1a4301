import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import type { BenchRow } from "./row.ts";

const ROUNDS = 7;
const CALLS = 3_000;
const CONCURRENCY = 50;

interface Contestant {
  readonly process: ChildProcess;
  readonly client: Client<typeof TextService>;
  readonly session: Http2SessionManager;
  readonly rates: number[];
}

/** What `serve()` adds (context, limits, validation, errors, logs) costs, against the handlers of connect-node alone. */
export async function run(): Promise<BenchRow[]> {
  const ours = await start("serve");
  const peer = await start("adapter");
  try {
    for (let round = -1; round < ROUNDS; round++) {
      for (const { client, rates } of round % 2 === 0 ? [ours, peer] : [peer, ours]) {
        const rate = await throughput(client);
        // The first round warms both up.
        if (round >= 0) {
          rates.push(rate);
        }
      }
    }
  } finally {
    stop(ours);
    stop(peer);
  }
  const [ourRate, peerRate] = [median(ours.rates), median(peer.rates)];
  return [
    {
      area: "serving",
      what: `unary gRPC calls a second through serve(), ${CONCURRENCY} at once`,
      ours: ourRate.toFixed(0),
      peer: peerRate.toFixed(0),
      peerName: "connectNodeAdapter",
      ratio: `${(ourRate / peerRate).toFixed(2)}×`,
      target: "–",
      pass: true,
    },
  ];
}

async function start(kind: "serve" | "adapter"): Promise<Contestant> {
  const child = fork(fileURLToPath(new URL("./serving-backend.ts", import.meta.url)), [kind], {
    execArgv: ["--conditions=toolplane-source"],
  });
  const [url] = await once(child, "message");
  const session = new Http2SessionManager(String(url));
  const client = createClient(
    TextService,
    createGrpcTransport({ baseUrl: String(url), sessionManager: session }),
  );
  return { process: child, client, session, rates: [] };
}

function stop({ process: child, session }: Contestant): void {
  session.abort();
  child.disconnect();
}

/** Calls a second. */
async function throughput(client: Client<typeof TextService>): Promise<number> {
  const begin = performance.now();
  let left = CALLS;
  const worker = async () => {
    while (left-- > 0) {
      await client.analyzeText({ text: "To be or not to be" });
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return (CALLS / (performance.now() - begin)) * 1_000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
