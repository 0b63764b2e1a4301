import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";

const PROTO = fileURLToPath(new URL("../testdata/stock.proto", import.meta.url));

export interface GrpcServer {
  readonly url: string;
  readonly port: number;
  /** Symbols of calls to GetQuote that have arrived. */
  readonly started: string[];
  /** Milliseconds that were left for the latest call. */
  timeLeftMs(): number;
  /** Symbols of calls that their caller cancelled. */
  readonly cancelled: string[];
  /** Calls that are running now, and the most there have been at once. */
  readonly running: { now: number; most: number };
  /** Lets the calls for symbol `WAIT` go on. */
  letGo(): void;
  /** Cuts every connection. */
  close(): void;
}

export interface GrpcServerOptions {
  readonly port?: number;
  /** Which versions of the reflection service to offer. Default both. */
  readonly reflection?: readonly ("v1" | "v1alpha")[];
  readonly maxConcurrentStreams?: number;
}

/** An int64: an object with digits, or a number where the library for the former is missing. */
type Long = object | number;

interface Quote {
  symbol: string;
  priceCents: number;
  headers?: Record<string, string>;
  padding?: Buffer;
}

/** A server of acme.stock.v1 that is written with grpc-js and knows nothing of Connect. */
export async function startGrpcServer(options: GrpcServerOptions = {}): Promise<GrpcServer> {
  const packages = loadSync(PROTO, {
    defaults: true,
    includeDirs: [fileURLToPath(new URL("../testdata", import.meta.url))],
  });
  const service = packages["acme.stock.v1.StockService"] as grpc.ServiceDefinition; // what the file defines
  const server = new grpc.Server({ "grpc.max_concurrent_streams": options.maxConcurrentStreams ?? 100 });
  const started: string[] = [];
  let timeLeftMs = Number.NaN;
  const cancelled: string[] = [];
  const running = { now: 0, most: 0 };
  let waiting: (() => void)[] = [];

  server.addService(service, {
    getQuote(
      call: grpc.ServerUnaryCall<{ symbol: string; size: number }, Quote>,
      done: grpc.sendUnaryData<Quote>,
    ) {
      const { symbol, size } = call.request;
      running.most = Math.max(running.most, ++running.now);
      let answered = false;
      const answer: grpc.sendUnaryData<Quote> = (...result) => {
        answered = true;
        running.now--;
        done(...result);
      };
      started.push(symbol);
      timeLeftMs = Number(call.getDeadline()) - Date.now();
      const quote: Quote = { symbol, priceCents: 4200 };
      switch (symbol) {
        case "MISSING": {
          const metadata = new grpc.Metadata();
          metadata.set("retry-after", "7");
          metadata.set("x-exchange", "XNAS");
          answer({ code: grpc.status.NOT_FOUND, details: "no such share", metadata });
          return;
        }
        case "DOWN":
          answer({ code: grpc.status.UNAVAILABLE, details: "the exchange is closed" });
          return;
        case "SLOW":
        case "WAIT":
          call.on("cancelled", () => {
            if (!answered) {
              running.now--;
              cancelled.push(symbol);
            }
          });
          if (symbol === "WAIT") {
            waiting.push(() => answer(null, quote));
          }
          return;
        case "LARGE":
          answer(null, { ...quote, padding: Buffer.alloc(size) });
          return;
        case "HEADERS": {
          const headers: Record<string, string> = {};
          for (const [name, value] of Object.entries(call.metadata.getMap())) {
            headers[name] = value.toString();
          }
          answer(null, { ...quote, headers });
          return;
        }
        default:
          answer(null, quote);
      }
    },
    watchQuotes(call: grpc.ServerWritableStream<{ symbol: string; count: number }, Quote>) {
      const { symbol, count } = call.request;
      call.on("cancelled", () => cancelled.push(symbol));
      for (let index = 1; index <= (count || 1); index++) {
        call.write({ symbol, priceCents: index });
      }
      if (count > 0) {
        call.end();
      }
    },
    importTrades(
      call: grpc.ServerReadableStream<{ priceCents: Long }, unknown>,
      done: grpc.sendUnaryData<unknown>,
    ) {
      let trades = 0;
      let totalCents = 0;
      call.on("data", ({ priceCents }: { priceCents: Long }) => {
        trades++;
        totalCents += Number(String(priceCents));
      });
      call.on("end", () => done(null, { trades, totalCents }));
    },
    negotiate(call: grpc.ServerDuplexStream<{ symbol: string; priceCents: Long }, unknown>) {
      call.on("data", ({ symbol, priceCents }: { symbol: string; priceCents: Long }) => {
        call.write({ symbol, priceCents: Number(String(priceCents)) + 1 });
      });
      call.on("end", () => call.end());
    },
  });

  const versions = options.reflection ?? ["v1", "v1alpha"];
  new ReflectionService(packages).addToServer({
    addService(definition, implementation) {
      if (versions.some((version) => Object.values(definition)[0]?.path.includes(`.${version}.`))) {
        server.addService(definition, implementation);
      }
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      `127.0.0.1:${options.port ?? 0}`,
      grpc.ServerCredentials.createInsecure(),
      (error, bound) => (error ? reject(error) : resolve(bound)),
    );
  });
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    started,
    timeLeftMs: () => timeLeftMs,
    cancelled,
    running,
    letGo() {
      for (const go of waiting) {
        go();
      }
      waiting = [];
    },
    close: () => server.forceShutdown(),
  };
}
