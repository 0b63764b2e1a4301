import { createHash } from "node:crypto";
import type { SecureContextOptions } from "node:tls";
import type { Transport } from "@connectrpc/connect";
import type { CommonTransportOptions, UniversalClientFn } from "@connectrpc/connect/protocol";
import { createTransport as createConnect } from "@connectrpc/connect/protocol-connect";
import { createTransport as createGrpc } from "@connectrpc/connect/protocol-grpc";
import { createTransport as createGrpcWeb } from "@connectrpc/connect/protocol-grpc-web";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import type { Clock, Principal } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
import { Broker } from "./broker.ts";
import type { ConnectionPool } from "./connection-pool.ts";
import { PoolDispatcher } from "./dispatcher.ts";
import { createGrpcUnary } from "./grpc-unary.ts";
import { createPooledClient } from "./http-client.ts";
import { defaultPoolLimits, type PoolLimits } from "./limits.ts";
import { createLinkOpener } from "./open-link.ts";
import { createHttpRoute, createRoute, type Route } from "./route.ts";
import type { Target } from "./target.ts";

export interface ConnectionPoolOptions {
  readonly logger: Logger;
  readonly clock: Clock;
  /** What to change of `defaultPoolLimits`. */
  readonly limits?: Partial<PoolLimits>;
  /** For `https:` targets: authorities to trust instead of the usual ones, and a certificate to present. */
  readonly tls?: SecureContextOptions;
}

/** Messages that a transport reads or writes at most, unless it is told otherwise: 4 MiB. */
const DEFAULT_MESSAGE_BYTES = 4 * 1024 * 1024;
const MAX_WRITE_BYTES = 256 * 1024 * 1024;
/** gRPC allows eight digits of milliseconds, a bit more than a day; Node's timers about 25 of them. */
const MAX_TIMEOUT_MS = 99_999_999;
/** Transports that are kept. They are cheap to make again. */
const MAX_TRANSPORTS = 1_000;

export function createConnectionPool(options: ConnectionPoolOptions): ConnectionPool {
  const { logger, clock, tls } = options;
  const limits = { ...defaultPoolLimits, ...options.limits };
  const broker = new Broker({ clock, logger, limits, openLink: createLinkOpener({ clock, limits, tls }) });
  const transports = new Map<string, Transport>();
  /** Clients that need no connection, by origin. */
  const attached = new Map<string, (principal: Principal | undefined) => UniversalClientFn>();

  /** Without parsing the endpoint, which is normalised: transports are asked for with every call. */
  function attachedTo(endpoint: string) {
    for (const [origin, clientFor] of attached) {
      if (
        endpoint.startsWith(origin) &&
        (endpoint.length === origin.length || endpoint[origin.length] === "/")
      ) {
        return clientFor;
      }
    }
    return undefined;
  }

  return {
    transport(target, { maxMessageBytes = DEFAULT_MESSAGE_BYTES, principal } = {}) {
      const clientFor = attachedTo(target.endpoint);
      const actor = clientFor && principal ? `${principal.role} ${principal.id}` : "";
      const key = [target.protocol, maxMessageBytes, target.endpoint, digest(target.headers), actor].join(
        " ",
      );
      const transport =
        transports.get(key) ??
        createTransport(broker, clock, target, maxMessageBytes, clientFor?.(principal));
      // Moved to the end: the first is the one that was not asked for longest.
      transports.delete(key);
      transports.set(key, transport);
      const [oldest] = transports.keys();
      if (transports.size > MAX_TRANSPORTS && oldest !== undefined) {
        transports.delete(oldest);
      }
      return transport;
    },
    attach(url, clientFor) {
      attached.set(new URL(url).origin, clientFor);
      // Some may have been made for the origin before.
      transports.clear();
    },
    dispatcher: new PoolDispatcher(broker, clock),
    async warm(targets) {
      const routes = new Map<string, Route>();
      for (const target of targets) {
        const route = routeOf(target);
        if (!attached.has(route.origin)) {
          routes.set(route.key, route);
        }
      }
      // More than these would be closed again as idle.
      const kept = [...routes.values()].slice(0, Math.min(limits.maxIdleConnections, limits.maxConnections));
      await Promise.all(
        kept.map((route) =>
          broker.warm(route).catch((error: unknown) => {
            logger.info({ origin: route.origin, err: error }, "could not connect ahead of the first call");
          }),
        ),
      );
    },
    stats: () => broker.stats(),
    close: () => broker.close(),
  };
}

function routeOf({ endpoint, protocol }: Target): Route {
  switch (protocol) {
    case Protocol.UNSPECIFIED:
    case Protocol.GRPC:
      return createRoute(endpoint, "h2");
    case Protocol.CONNECT:
    case Protocol.GRPC_WEB:
      return createRoute(endpoint, "auto");
    case Protocol.HTTP:
      return createHttpRoute(endpoint);
  }
}

function createTransport(
  broker: Broker,
  clock: Clock,
  target: Target,
  maxMessageBytes: number,
  local: UniversalClientFn | undefined,
): Transport {
  const route = routeOf(target);
  const options: CommonTransportOptions = {
    httpClient: local ?? createPooledClient(broker, route),
    baseUrl: target.endpoint,
    useBinaryFormat: true,
    interceptors: [],
    acceptCompression: [compressionGzip, compressionBrotli],
    sendCompression: null,
    compressMinBytes: 1024,
    readMaxBytes: maxMessageBytes,
    writeMaxBytes: MAX_WRITE_BYTES,
  };
  const grpcUnary = local
    ? createGrpc(options).unary
    : createGrpcUnary({
        broker,
        clock,
        route,
        basePath: new URL(target.endpoint).pathname.replace(/\/+$/, ""),
        readMaxBytes: maxMessageBytes,
        acceptCompression: options.acceptCompression,
      });
  const inner = createProtocolTransport(target.protocol, options, grpcUnary);
  const bothWays = createProtocolTransport(
    target.protocol,
    { ...options, httpClient: local ?? createPooledClient(broker, route, { needsHttp2: true }) },
    grpcUnary,
  );
  const hasHeaders = !target.headers.keys().next().done;
  const withTarget = (header: ConstructorParameters<typeof Headers>[0]) => {
    if (!hasHeaders) {
      return header;
    }
    const merged = new Headers(header);
    target.headers.forEach((value, name) => {
      merged.set(name, value);
    });
    return merged;
  };
  return {
    unary: (method, signal, timeoutMs, header, input, values) =>
      inner.unary(method, signal, clampTimeout(timeoutMs), withTarget(header), input, values),
    stream: (method, signal, timeoutMs, header, input, values) =>
      (method.methodKind === "bidi_streaming" ? bothWays : inner).stream(
        method,
        signal,
        clampTimeout(timeoutMs),
        withTarget(header),
        input,
        values,
      ),
  };
}

function createProtocolTransport(
  protocol: Protocol,
  options: CommonTransportOptions,
  grpcUnary: Transport["unary"],
): Transport {
  switch (protocol) {
    case Protocol.CONNECT:
      return createConnect(options);
    case Protocol.GRPC_WEB:
      return createGrpcWeb(options);
    case Protocol.UNSPECIFIED:
    case Protocol.GRPC:
    case Protocol.HTTP:
      return { unary: grpcUnary, stream: createGrpc(options).stream };
  }
}

/** Whole milliseconds from 1 to what fits into eight digits. Connect takes 0 and less for no deadline at all. */
function clampTimeout(timeoutMs: number | undefined): number | undefined {
  return timeoutMs === undefined ? undefined : Math.min(Math.max(Math.ceil(timeoutMs), 1), MAX_TIMEOUT_MS);
}

/** Keeps secrets out of the keys that transports are found by. */
function digest(headers: Headers): string {
  const entries = [...headers];
  return entries.length === 0 ? "" : createHash("sha256").update(JSON.stringify(entries)).digest("base64");
}
