import type { AddressInfo } from "node:net";
import type { DescMethod, DescService, Registry } from "@bufbuild/protobuf";
import { Code, type ConnectRouter, type Interceptor } from "@connectrpc/connect";
import type { UniversalClientFn } from "@connectrpc/connect/protocol";
import { Health as HealthService } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { type Clock, MAX_TIMER_MS, systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import type { FinishedCall, Gate } from "../interceptors/begin-call.ts";
import type { Principal } from "../interceptors/call-context.ts";
import { createLogger, type Logger } from "../logging.ts";
import { type CorsOptions, createCors } from "./cors.ts";
import type { Health } from "./health.ts";
import { createHostCheck, isLoopback } from "./host-check.ts";
import { completeLimits, type ServeLimits } from "./limits.ts";
import { localUrl, parseListenAddress } from "./listen-address.ts";
import { listen, type TlsOptions } from "./listener.ts";
import { createLocalClient } from "./local-client.ts";
import { createProbes, createReadiness } from "./probes.ts";
import { createRequestHandler, type HttpHandler } from "./request-handler.ts";
import { routeServices } from "./router.ts";
import { type RegisterOptions, registerServer } from "./self-registration.ts";
import { createStreamMeter, type MethodStreams } from "./stream-meter.ts";

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
  /**
   * Called when a stop was asked for, before running calls are waited for: to end streams that clients open again by
   * themselves, which would use up the time. Must not reject.
   */
  readonly onDrain?: () => Promise<void>;
  /** How long running calls may take to finish after a stop was asked for, in milliseconds. Default: 10 s. */
  readonly drainTimeoutMs?: number;
  /** Refuse calls before their body is read: authentication, limits. In order. */
  readonly gates?: readonly Gate[];
  /** Run around every handler, after errors are taken care of and requests are validated. The first is outermost. */
  readonly interceptors?: readonly Interceptor[];
  /**
   * The deadline of a method's calls that name none, and the latest that they may name, in milliseconds; undefined:
   * `limits.maxTimeoutMs`, which holds in any case. Default: what the method's annotation
   * `(toolplane.annotations.v1.policy).timeout` says.
   */
  readonly timeoutOf?: (method: DescMethod) => number | undefined;
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
  /**
   * For Connect transports of the same process: reaches the services without a connection, and so without TLS and
   * clients' certificates.
   *
   * @param principal whom the calls act for: handlers that call on behalf of their own caller pass it on, so that nobody
   *   may do through them what they may not do themselves. Undefined: nobody; where callers are authenticated, only what
   *   is open to everyone is reached.
   */
  localClient(principal?: Principal): UniversalClientFn;
  /** Whether clients keep up with what they are sent, by method. Streams within the process are not among them. */
  streams(): MethodStreams[];
  /** Aborted when calls have had their time to finish during `close`. Handlers see it in their own signals. */
  readonly shutdownSignal: AbortSignal;
  /**
   * Stops: says NOT_SERVING, deregisters, takes no more connections and tells those that are open to go away, waits
   * for running calls, then ends them with UNAVAILABLE, and closes what is left. Further calls await the first.
   */
  close(): Promise<void>;
}

const healthCheckPath = `/${HealthService.typeName}/Check`;

/** How long calls that were told that the server shuts down may take to say so to their callers. */
const farewellMs = 500;

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
  const { host, port } = parseListenAddress(options.listen ?? "127.0.0.1:0");
  const shutdown = new AbortController();
  const loopback = isLoopback(host);

  const { rpcs, services, health } = routeServices(options, limits, logger, clock, shutdown.signal);
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
  const streams = createStreamMeter(clock);
  const requests = createRequestHandler({
    rpcs,
    probes: createProbes(readiness, { name: options.name, version }),
    http: options.http ?? [],
    hosts: createHostCheck(options.cors?.allowedOrigins, loopback),
    cors: createCors(options.cors ?? {}, loopback),
    limits,
    streams,
    logger,
    clock,
    exempt: (path) => path === healthCheckPath,
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
    await Promise.all([registration?.stop(), options.onDrain?.()]);
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
    localClient: (principal) => createLocalClient(rpcs, principal),
    streams: () => streams.read(),
    shutdownSignal: shutdown.signal,
    close() {
      closing ??= close();
      return closing;
    },
  };
}

function shuttingDown() {
  return domainConnectError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "the server is shutting down: try again",
    retryAfterMs: 0,
  });
}

/** Whether the promise settles in time. */
function within(promise: Promise<void>, ms: number, clock: Clock): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(Math.min(ms, MAX_TIMER_MS), () => resolve(false));
    promise.then(() => resolve(true), reject).finally(cancel);
  });
}
