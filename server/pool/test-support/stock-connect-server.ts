import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { fileURLToPath } from "node:url";
import {
  createFileRegistry,
  type DescMethod,
  type DescService,
  type FileRegistry,
  fromBinary,
} from "@bufbuild/protobuf";
import { type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

const TESTDATA = fileURLToPath(new URL("../testdata", import.meta.url));

/** The descriptors of acme.stock.v1 as the Buf compiler writes them, with comments. */
export function readStockDescriptors(): FileDescriptorSet {
  const buf = fileURLToPath(import.meta.resolve("@bufbuild/buf/bin/buf"));
  const bytes = execFileSync(process.execPath, [
    buf,
    "build",
    TESTDATA,
    "--as-file-descriptor-set",
    "-o",
    "-",
  ]);
  return fromBinary(FileDescriptorSetSchema, bytes);
}

/** `h1` and `h1s`: HTTP/1.1; `h2c`: HTTP/2 without TLS; `h2s`: HTTP/2 or HTTP/1.1 over TLS. */
export type Kind = "h1" | "h1s" | "h2c" | "h2s";

export interface ConnectServer {
  readonly url: string;
  /** Symbols of calls to GetQuote that have arrived. */
  readonly started: string[];
  /** The deadlines that calls came with, as they were written. */
  readonly timeouts: (string | undefined)[];
  /** Symbols of calls that their caller cancelled. */
  readonly cancelled: string[];
  /** The HTTP versions that calls came over. */
  readonly versions: string[];
  /** Connections accepted so far. */
  readonly connections: () => number;
  /** Cuts every connection. */
  close(): Promise<void>;
}

export const testCertificate = {
  cert: readFileSync(`${TESTDATA}/cert.pem`, "utf8"),
  key: readFileSync(`${TESTDATA}/key.pem`, "utf8"),
};

/** A server of acme.stock.v1 that is written with connect-node. */
export async function startConnectServer(
  kind: Kind,
  descriptors: FileDescriptorSet = readStockDescriptors(),
): Promise<ConnectServer> {
  const started: string[] = [];
  const timeouts: (string | undefined)[] = [];
  const cancelled: string[] = [];
  const versions: string[] = [];
  let connections = 0;
  const service = stockService(createFileRegistry(descriptors));
  const adapter = connectNodeAdapter({ routes: (router) => addRoutes(router, service, started, cancelled) });
  const handler: NodeHandler = (request, response) => {
    versions.push(request.httpVersion);
    timeouts.push((request.headers["grpc-timeout"] ?? request.headers["connect-timeout-ms"])?.toString());
    adapter(request, response);
  };
  const server = listenerOf(kind, handler);
  const sockets = new Set<Socket>();
  server.on(kind.endsWith("s") ? "secureConnection" : "connection", (socket: Socket) => {
    connections++;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // what a TCP server that listens has
  return {
    url: `${kind.endsWith("s") ? "https" : "http"}://127.0.0.1:${port}`,
    started,
    timeouts,
    cancelled,
    versions,
    connections: () => connections,
    async close() {
      server.close();
      for (const socket of sockets) {
        socket.destroy();
      }
      if (server.listening) {
        await once(server, "close");
      }
    },
  };
}

/** Connect's handler takes the requests of HTTP/1.1 and of HTTP/2. */
type NodeHandler = ReturnType<typeof connectNodeAdapter>;

function listenerOf(kind: Kind, handler: NodeHandler): http.Server | http2.Http2Server {
  switch (kind) {
    case "h1":
      return http.createServer(handler);
    case "h1s":
      return https.createServer(testCertificate, handler);
    case "h2c":
      return http2.createServer(handler);
    case "h2s":
      return http2.createSecureServer({ ...testCertificate, allowHTTP1: true }, handler);
  }
}

export function stockService(registry: FileRegistry): DescService {
  const service = registry.getService("acme.stock.v1.StockService");
  if (!service) {
    throw new Error("the test descriptors have no StockService");
  }
  return service;
}

interface Trade {
  readonly symbol: string;
  readonly priceCents: bigint;
}

function addRoutes(
  router: ConnectRouter,
  service: DescService,
  started: string[],
  cancelled: string[],
): void {
  // Messages of dynamic descriptors are untyped: the handlers say what they expect.
  const method = (name: string): DescMethod => {
    const found = service.methods.find((candidate) => candidate.localName === name);
    if (!found) {
      throw new Error(`no method ${name}`);
    }
    return found;
  };
  router.rpc({ ...method("getQuote"), methodKind: "unary" }, async (request, context) => {
    const { symbol } = request as unknown as Trade;
    started.push(symbol);
    if (symbol === "MISSING") {
      throw new ConnectError("no such share", Code.NotFound, { "x-exchange": "XNAS", "retry-after": "7" });
    }
    if (symbol === "SLOW") {
      await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
      cancelled.push(symbol);
    }
    const headers = Object.fromEntries(context.requestHeader);
    return { symbol, priceCents: 4200n, headers: symbol === "HEADERS" ? headers : {} };
  });
  router.rpc(
    { ...method("watchQuotes"), methodKind: "server_streaming" },
    async function* (request, context) {
      const { symbol, count } = request as unknown as Trade & { count: number };
      for (let index = 1; index <= (count || 1); index++) {
        yield { symbol, priceCents: BigInt(index) };
      }
      if (count === 0) {
        await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
        cancelled.push(symbol);
      }
    },
  );
  router.rpc({ ...method("importTrades"), methodKind: "client_streaming" }, async (requests) => {
    let trades = 0;
    let totalCents = 0n;
    for await (const request of requests) {
      trades++;
      totalCents += (request as unknown as Trade).priceCents;
    }
    return { trades, totalCents };
  });
  router.rpc({ ...method("negotiate"), methodKind: "bidi_streaming" }, async function* (requests) {
    for await (const request of requests) {
      const { symbol, priceCents } = request as unknown as Trade;
      yield { symbol, priceCents: priceCents + 1n };
    }
  });
}
