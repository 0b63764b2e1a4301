import type { AddressInfo } from "node:net";
import type { DescService, Registry } from "@bufbuild/protobuf";
import { Code, type ConnectRouter, createConnectRouter, type Interceptor } from "@connectrpc/connect";
import type { UniversalHandlerOptions } from "@connectrpc/connect/protocol";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import { Health as HealthService } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { type Clock, MAX_TIMER_MS, systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import { invalidArgument } from "../errors/domain-error.ts";
import { beginCall, type FinishedCall, type Gate } from "../interceptors/begin-call.ts";
import { translateErrors } from "../interceptors/translate-errors.ts";
import { validateRequests } from "../interceptors/validate.ts";
import { createLogger, type Logger } from "../logging.ts";
import { type CorsOptions, createCors, isLoopback } from "./cors.ts";
import { createHealth, type Health } from "./health.ts";
import { completeLimits, type ServeLimits } from "./limits.ts";
import { listen, type TlsOptions } from "./listener.ts";
import { createReadiness, probeEndpoints } from "./probes.ts";
import { reflectionRoutes } from "./reflection.ts";
import { createRequestHandler, type HttpHandler } from "./request-handler.ts";
import { type RegisterOptions, registerServer } from "./self-registration.ts";

export interface ServeOptions {
  /** The service's name, as it is logged and registered: 1 to 63 letters, digits, `_` or `-`. */
  readonly name: string;
  /** Its version. Default: `0.0.0`. */
  readonly version?: string;
  /** Adds the services, as with any Connect router. */
  readonly routes: (router: ConnectRouter) => void;
  /** `host:port` to listen on; port 0 chooses a free one. Default: `127.0.0.1:0`. */
  readonly listen?: string;
  /**
   * A serialized `google.protobuf.FileDescriptorSet` that holds the services' files with their comments, which generated
   * code lacks. Reflection passes them on, and the registry makes them the descriptions of tools. Default: no comments.
   */
  readonly documented?: Uint8Array | undefined;
  /** Serves TLS. Default: cleartext. */
  readonly tls?: TlsOptions | undefined;
  readonly cors?: CorsOptions;
  readonly limits?: Partial<ServeLimits>;
  /** Default: a logger to standard output. */
  readonly logger?: Logger;
  readonly clock?: Clock;
  /**
   * Registers the server in a Toolplane registry once it listens. Default: in the one that `TOOLPLANE_URL` names;
   * `false`: nowhere.
   */
  readonly register?: RegisterOptions | false;
  /** Rejects while the server cannot do its work; seen in `/readyz` and `grpc.health.v1`. Default: always ready. */
  readonly ready?: () => Promise<void>;
  /** How long running calls may take to finish after a stop was asked for, in milliseconds. Default: 10 s. */
  readonly drainTimeoutMs?: number;
  /** Refuse calls before their body is read: authentication, limits. In order. */
  readonly gates?: readonly Gate[];
  /** Run around every handler, after errors are taken care of and requests are validated. The first is outermost. */
  readonly interceptors?: readonly Interceptor[];
  /** Answer plain HTTP requests, in order. RPCs, `/healthz` and `/readyz` come first. */
  readonly http?: readonly HttpHandler[];
  /** Called once for every finished call, for metrics. */
  readonly onCall?: (call: FinishedCall) => void;
  /** Resolves messages in `google.protobuf.Any` and extensions in JSON. */
  readonly registry?: Registry;
}

/** A server that listens. */
export interface Server {
  /** Where it is reached from the same machine, such as `http://127.0.0.1:7400`. */
  readonly url: string;
  readonly address: AddressInfo;
  /** What `grpc.health.v1` says about it and each of its services. */
  readonly health: Health;
  /** Every service it serves, health and reflection included. */
  readonly services: readonly DescService[];
  readonly logger: Logger;
  /** Aborted when calls have had their time to finish during `close`. Handlers see it in their own signals. */
  readonly shutdownSignal: AbortSignal;
  /**
   * Stops: says NOT_SERVING, deregisters, takes no more connections and tells those that are open to go away, waits
   * for running calls, then ends them with UNAVAILABLE, and closes what is left. Further calls await the first.
   */
  close(): Promise<void>;
}

/** How long calls that were told that the server shuts down may take to say so to their callers. */
const farewellMs = 500;

/** Answers above this size are compressed for clients that accept it. Events of streams stay below. */
const compressMinBytes = 16 * 1024;

/**
 * Serves Connect services on one port: gRPC, gRPC-Web and Connect over HTTP/2 and HTTP/1.1, with health, reflection,
 * limits, validation, typed errors, structured logs, draining and registration.
 *
 * A call passes: limits on connections and requests → context (correlation id, deadline, principal) → gates → body →
 * errors → validation → interceptors → handler. Its end is logged and reported whatever happened.
 *
 * @example
 * ```ts
 * const server = await serve({
 *   name: "greeter",
 *   routes: (router) => router.service(GreetService, { greet: ({ name }) => ({ greeting: `Hello, ${name}!` }) }),
 * });
 * closeOnSignals(server);
 * ```
 */
export async function serve(options: ServeOptions): Promise<Server> {
  const clock = options.clock ?? systemClock;
  const logger = options.logger ?? createLogger({ name: options.name });
  const limits = completeLimits(options.limits);
  const version = options.version ?? "0.0.0";
  const { host, port } = parseListen(options.listen ?? "127.0.0.1:0");
  const shutdown = new AbortController();

  const { router, services, health } = route(options, limits, logger, clock, shutdown.signal);
  const readiness = createReadiness({
    check: options.ready,
    onChange: (ready) => {
      for (const service of ["", ...services.map(({ typeName }) => typeName)]) {
        health.set(service, ready ? "SERVING" : "NOT_SERVING");
      }
    },
    clock,
    logger,
  });
  const requests = createRequestHandler({
    rpcs: router.handlers,
    probes: probeEndpoints(readiness, { name: options.name, version }),
    http: options.http ?? [],
    cors: createCors(options.cors ?? {}, isLoopback(host)),
    limits,
    logger,
    clock,
    exempt: (path) => path === `/${HealthService.typeName}/Check`,
  });
  const listener = await listen({
    host,
    port,
    tls: options.tls,
    limits,
    logger,
    clock,
    onRequest: requests.handle,
  });
  const { address } = listener;
  const secure = options.tls !== undefined;
  await readiness.look();
  const registration =
    options.register === false
      ? undefined
      : registerServer(
          options.register ?? {},
          { name: options.name, version, address, secure, logger, clock },
          process.env,
        );
  const url = localUrl(address, secure);
  logger.info({ url, services: services.map(({ typeName }) => typeName) }, "serving");

  async function close(): Promise<void> {
    logger.info("draining");
    readiness.stop("shutting down");
    health.drain();
    await registration?.stop();
    requests.drain();
    listener.drain();
    // Watches of health have said what they had to say.
    health.close();
    const closed = listener.closed();
    if (!(await within(closed, options.drainTimeoutMs ?? 10_000, clock))) {
      shutdown.abort(shuttingDown());
      if (!(await within(closed, farewellMs, clock))) {
        listener.destroy();
        await closed;
      }
    }
    shutdown.abort(shuttingDown());
    logger.info("closed");
  }
  let closing: Promise<void> | undefined;

  return {
    url,
    address,
    health,
    services,
    logger,
    shutdownSignal: shutdown.signal,
    close() {
      closing ??= close();
      return closing;
    },
  };
}

/** Builds the one chain that every call passes, and the services on top of it. */
function route(
  options: ServeOptions,
  limits: ServeLimits,
  logger: Logger,
  clock: Clock,
  shutdownSignal: AbortSignal,
) {
  const quietServices = new Set<string>();
  const chain: Partial<UniversalHandlerOptions> = {
    requestGate: beginCall({
      logger,
      clock,
      onCall: options.onCall,
      gates: options.gates ?? [],
      quietServices,
    }),
    interceptors: [translateErrors(), validateRequests(options.registry), ...(options.interceptors ?? [])],
    readMaxBytes: limits.maxMessageBytes,
    // Longer ones were shortened before.
    maxTimeoutMs: Number.MAX_SAFE_INTEGER,
    acceptCompression: [compressionGzip, compressionBrotli],
    compressMinBytes,
    shutdownSignal,
    jsonOptions: jsonOptions(options.registry),
  };
  const router = keepChain(createConnectRouter(chain), chain);
  options.routes(router);
  const own = [...new Set(router.handlers.map(({ service }) => service))];
  const health = createHealth([...own, HealthService].map(({ typeName }) => typeName));
  health.routes(router);
  reflectionRoutes([...own, HealthService], options.documented)(router);
  const services = [...new Set(router.handlers.map(({ service }) => service))];
  for (const { typeName } of services.slice(own.length)) {
    quietServices.add(typeName);
  }
  return { router, services, health };
}

/**
 * Options that are given to a router together with a service replace the router's own, interceptors included. Here
 * they come on top.
 */
function keepChain(router: ConnectRouter, chain: Partial<UniversalHandlerOptions>): ConnectRouter {
  const merged = (own: Partial<UniversalHandlerOptions> = {}): Partial<UniversalHandlerOptions> => ({
    ...own,
    ...chain,
    ...(own.readMaxBytes === undefined ? {} : { readMaxBytes: own.readMaxBytes }),
    ...(own.compressMinBytes === undefined ? {} : { compressMinBytes: own.compressMinBytes }),
    jsonOptions: { ...own.jsonOptions, ...chain.jsonOptions },
    interceptors: [...(chain.interceptors ?? []), ...(own.interceptors ?? [])],
  });
  const kept: ConnectRouter = {
    handlers: router.handlers,
    service(service, implementation, own) {
      router.service(service, implementation, merged(own));
      return kept;
    },
    rpc(method, implementation, own) {
      router.rpc(method, implementation, merged(own));
      return kept;
    },
  };
  return kept;
}

/** Connect hands its JSON options on to where they can name a text decoder: one that refuses malformed UTF-8. */
function jsonOptions(registry: Registry | undefined): NonNullable<UniversalHandlerOptions["jsonOptions"]> {
  const withDecoder = {
    textDecoder: new TextDecoder("utf-8", { fatal: true }),
    ...(registry === undefined ? {} : { registry }),
  };
  return withDecoder;
}

function shuttingDown() {
  return domainConnectError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "the server is shutting down: try again",
    retryAfterMs: 0,
  });
}

/** Reads `host:port`; IPv6 addresses are in brackets. */
function parseListen(listen: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(listen);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65_535)) {
    throw invalidArgument([
      { field: "listen", description: `"${listen}" is not an address to listen on; write host:port` },
    ]);
  }
  return { host, port };
}

function localUrl({ address, port, family }: AddressInfo, secure: boolean): string {
  const host = address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "[::1]" : address;
  const bracketed = family === "IPv6" && !host.startsWith("[") ? `[${host}]` : host;
  return `${secure ? "https" : "http"}://${bracketed}:${port}`;
}

/** Whether the promise settles in time. */
function within(promise: Promise<void>, ms: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(Math.min(ms, MAX_TIMER_MS), () => resolve(false));
    promise.then(() => resolve(true), reject).finally(cancel);
  });
}
