import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { createFileRegistry, type DescMethodUnary } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { createConnectionPool } from "../server/pool/index.ts";
import { readStockDescriptors, stockService } from "../server/pool/test-support/stock-connect-server.ts";
import type { BenchRow } from "./row.ts";

/** Rounds of either side, taken in turns so that both meet the same conditions. */
const ROUNDS = 7;
const CALLS_IN_A_ROW = 100;
const CALLS_AT_ONCE = 600;
const CONCURRENCY = 50;

/** What B5 promises: the pool against a connection per call, on the same work in the same run. */
export async function run(): Promise<BenchRow[]> {
  const backend = fork(fileURLToPath(new URL("./pool-backend.ts", import.meta.url)), {
    execArgv: ["--conditions=toolplane-source"],
  });
  const pool = createConnectionPool({ logger: pino({ enabled: false }), clock: systemClock });
  try {
    const [url] = await once(backend, "message");
    const target = { endpoint: String(url), protocol: Protocol.GRPC, headers: new Headers() };
    const service = stockService(createFileRegistry(readStockDescriptors()));
    const [method] = service.methods;
    if (!method) {
      throw new Error("the test service has no methods");
    }
    const getQuote: DescMethodUnary = { ...method, methodKind: "unary" };
    const call = async (transport: Transport) => {
      await transport.unary(getQuote, undefined, 10_000, undefined, { symbol: "ACME" } as Record<
        string,
        unknown
      >);
    };
    const pooled = () => call(pool.transport(target));
    const alone = async () => {
      const sessionManager = new Http2SessionManager(target.endpoint);
      try {
        await call(createGrpcTransport({ baseUrl: target.endpoint, sessionManager }));
      } finally {
        sessionManager.abort();
      }
    };

    await throughput(pooled);
    await throughput(alone);
    const samples = {
      pooledMs: [] as number[],
      aloneMs: [] as number[],
      pooledRate: [] as number[],
      aloneRate: [] as number[],
    };
    for (let round = 0; round < ROUNDS; round++) {
      samples.pooledMs.push(await latency(pooled));
      samples.aloneMs.push(await latency(alone));
      samples.pooledRate.push(await throughput(pooled));
      samples.aloneRate.push(await throughput(alone));
    }
    const pooledMs = median(samples.pooledMs);
    const aloneMs = median(samples.aloneMs);
    const pooledRate = median(samples.pooledRate);
    const aloneRate = median(samples.aloneRate);
    const gain = 1 - pooledMs / aloneMs;
    const factor = pooledRate / aloneRate;
    const { requests, reused } = pool.stats();
    const reuse = reused / requests;
    return [
      {
        area: "pool",
        what: "latency of one gRPC call after another",
        ours: `${pooledMs.toFixed(3)} ms`,
        peer: `${aloneMs.toFixed(3)} ms`,
        peerName: "a connection per call",
        ratio: `${(gain * 100).toFixed(0)} % lower`,
        target: "≥ 40 % lower",
        pass: gain >= 0.4,
      },
      {
        area: "pool",
        what: `gRPC calls a second, ${CONCURRENCY} at once`,
        ours: pooledRate.toFixed(0),
        peer: aloneRate.toFixed(0),
        peerName: "a connection per call",
        ratio: `${factor.toFixed(1)}×`,
        target: "≥ 3×",
        pass: factor >= 3,
      },
      {
        area: "pool",
        what: `connections reused over ${requests} calls`,
        ours: `${(reuse * 100).toFixed(2)} %`,
        peer: "–",
        peerName: "",
        ratio: "–",
        target: "≥ 95 %",
        pass: reuse >= 0.95,
      },
    ];
  } finally {
    await pool.close();
    backend.disconnect();
    await once(backend, "exit");
  }
}

/** Mean milliseconds of a call. */
async function latency(call: () => Promise<void>): Promise<number> {
  const start = performance.now();
  for (let index = 0; index < CALLS_IN_A_ROW; index++) {
    await call();
  }
  return (performance.now() - start) / CALLS_IN_A_ROW;
}

/** Calls a second. */
async function throughput(call: () => Promise<void>): Promise<number> {
  const start = performance.now();
  let left = CALLS_AT_ONCE;
  await Promise.all(
    Array.from({ length: CONCURRENCY }, async () => {
      while (left-- > 0) {
        await call();
      }
    }),
  );
  return (CALLS_AT_ONCE / (performance.now() - start)) * 1000;
}

function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN;
}
