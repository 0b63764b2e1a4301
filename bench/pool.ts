import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { createFileRegistry, type DescMethodUnary } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { anonymous, systemClock } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import pino from "pino";
import { Client, Dispatcher } from "undici";
import { authorityCertificate } from "../framework/test-support/certificates.ts";
import { createUtcpBackend } from "../server/backends/utcp/backend.ts";
import { type ConnectionPool, createConnectionPool } from "../server/pool/index.ts";
import { readStockDescriptors, stockService } from "../server/pool/test-support/stock-connect-server.ts";
import type { BenchRow } from "./row.ts";

/** Rounds of either side, taken in turns so that both meet the same conditions. */
const ROUNDS = 7;
const CALLS_IN_A_ROW = 100;
const CALLS_AT_ONCE = 600;
const CONCURRENCY = 50;

type Call = () => Promise<void>;

/** The same call over the pool and over a connection of its own. */
interface Contest {
  readonly kind: string;
  readonly pooled: Call;
  readonly alone: Call;
}

/** What B5 promises: the pool against a connection per call, on the same work in the same run. */
export async function run(): Promise<BenchRow[]> {
  return [
    ...(await contest("pool-backend.ts", grpcCalls)),
    ...(await contest("pool-http-backend.ts", httpToolCalls)),
  ];
}

async function contest(
  backendFile: string,
  prepare: (url: string, pool: ConnectionPool) => Contest,
): Promise<BenchRow[]> {
  const backend = fork(fileURLToPath(new URL(backendFile, import.meta.url)), {
    execArgv: ["--conditions=toolplane-source"],
  });
  const pool = createConnectionPool({
    logger: pino({ enabled: false }),
    clock: systemClock,
    tls: { ca: authorityCertificate },
  });
  try {
    const [url] = await once(backend, "message");
    return await compare(prepare(String(url), pool), pool);
  } finally {
    await pool.close();
    backend.disconnect();
    await once(backend, "exit");
  }
}

function grpcCalls(endpoint: string, pool: ConnectionPool): Contest {
  const target = { endpoint, protocol: Protocol.GRPC, headers: new Headers() };
  const [method] = stockService(createFileRegistry(readStockDescriptors())).methods;
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
  return {
    kind: "gRPC",
    pooled: () => call(pool.transport(target)),
    async alone() {
      const sessionManager = new Http2SessionManager(endpoint);
      try {
        await call(createGrpcTransport({ baseUrl: endpoint, sessionManager }));
      } finally {
        sessionManager.abort();
      }
    },
  };
}

function httpToolCalls(endpoint: string, pool: ConnectionPool): Contest {
  return {
    kind: "HTTP tool",
    pooled: httpToolCall(endpoint, pool.dispatcher),
    alone: httpToolCall(endpoint, new ConnectionPerRequest()),
  };
}

function httpToolCall(endpoint: string, dispatcher: Dispatcher): Call {
  const manual = {
    tools: [
      {
        name: "quote",
        inputs: { type: "object", properties: { symbol: { type: "string" } } },
        tool_call_template: { call_template_type: "http", url: "/quotes/{symbol}", http_method: "GET" },
      },
    ],
  };
  const definition = { kind: "utcp", bytes: Buffer.from(JSON.stringify(manual)) } as const;
  const invoker = createUtcpBackend({ pool: { dispatcher }, maxResultBytes: 64 * 1024 }).invoker(
    definition,
    "quote",
  );
  const invocation = {
    service: "quotes",
    target: { endpoint, protocol: Protocol.HTTP, headers: new Headers() },
    principal: anonymous,
    headers: new Headers(),
    signal: new AbortController().signal,
    timeoutMs: 10_000,
  };
  return async () => {
    const input = invoker.parse({ symbol: "ACME" }, "arguments");
    for await (const output of invoker.invoke([input], invocation)) {
      output.json();
    }
  };
}

/** undici's own client over HTTP/2, new for each request. */
class ConnectionPerRequest extends Dispatcher {
  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const client = new Client(String(options.origin), {
      allowH2: true,
      connect: { ca: authorityCertificate },
    });
    return client.dispatch(options, {
      onRequestStart: (controller, context) => handler.onRequestStart?.(controller, context),
      onResponseStart: (controller, ...rest) => handler.onResponseStart?.(controller, ...rest),
      onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
      onResponseEnd(controller, trailers) {
        handler.onResponseEnd?.(controller, trailers);
        void client.close();
      },
      onResponseError(controller, error) {
        handler.onResponseError?.(controller, error);
        void client.destroy();
      },
    });
  }
}

async function compare({ kind, pooled, alone }: Contest, pool: ConnectionPool): Promise<BenchRow[]> {
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
      what: `latency of one ${kind} call after another`,
      ours: `${pooledMs.toFixed(3)} ms`,
      peer: `${aloneMs.toFixed(3)} ms`,
      peerName: "a connection per call",
      ratio: `${(gain * 100).toFixed(0)} % lower`,
      target: "≥ 40 % lower",
      pass: gain >= 0.4,
    },
    {
      area: "pool",
      what: `${kind} calls a second, ${CONCURRENCY} at once`,
      ours: pooledRate.toFixed(0),
      peer: aloneRate.toFixed(0),
      peerName: "a connection per call",
      ratio: `${factor.toFixed(1)}×`,
      target: "≥ 3×",
      pass: factor >= 3,
    },
    {
      area: "pool",
      what: `connections reused over ${requests} ${kind} calls`,
      ours: `${(reuse * 100).toFixed(2)} %`,
      peer: "–",
      peerName: "",
      ratio: "–",
      target: "≥ 95 %",
      pass: reuse >= 0.95,
    },
  ];
}

/** Mean milliseconds of a call. */
async function latency(call: Call): Promise<number> {
  const start = performance.now();
  for (let index = 0; index < CALLS_IN_A_ROW; index++) {
    await call();
  }
  return (performance.now() - start) / CALLS_IN_A_ROW;
}

/** Calls a second. */
async function throughput(call: Call): Promise<number> {
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
