import type { DescMethod, DescService, Registry } from "@bufbuild/protobuf";
import { type ConnectRouter, createConnectRouter } from "@connectrpc/connect";
import type { UniversalHandler, UniversalHandlerOptions } from "@connectrpc/connect/protocol";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import { Health as HealthService } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import type { Clock } from "../clock.ts";
import { beginCall } from "../interceptors/begin-call.ts";
import { methodPolicies } from "../interceptors/method-policy.ts";
import { translateErrors } from "../interceptors/translate-errors.ts";
import { validateRequests } from "../interceptors/validate.ts";
import type { Logger } from "../logging.ts";
import { createHealth, type Health } from "./health.ts";
import type { ServeLimits } from "./limits.ts";
import { reflectionRoutes } from "./reflection.ts";
import type { ServeOptions } from "./serve.ts";

/** One method, as requests reach it. */
export interface RoutedRpc {
  readonly handler: UniversalHandler;
  /** The deadline of calls that name none, and the latest that they may name, in milliseconds. */
  readonly maxTimeoutMs: number;
}

export interface RoutedServices {
  /** By path. */
  readonly rpcs: ReadonlyMap<string, RoutedRpc>;
  /** Every service, health and reflection included. */
  readonly services: readonly DescService[];
  readonly health: Health;
}

/** Answers above this size are compressed for clients that accept it. Events of streams stay below. */
const compressMinBytes = 16 * 1024;

/** Builds the one chain that every call passes, and the services on top of it. */
export function routeServices(
  options: ServeOptions,
  limits: ServeLimits,
  logger: Logger,
  clock: Clock,
  shutdownSignal: AbortSignal,
): RoutedServices {
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
  const own = servicesOf(router);
  const health = createHealth([...own, HealthService].map(({ typeName }) => typeName));
  health.routes(router);
  reflectionRoutes([...own, HealthService], options.documented)(router);
  const services = servicesOf(router);
  for (const { typeName } of services.slice(own.length)) {
    quietServices.add(typeName);
  }
  const timeoutOf = options.timeoutOf ?? annotatedTimeout;
  const rpcs = indexByPath(router.handlers, (method) =>
    Math.min(timeoutOf(method) ?? Number.POSITIVE_INFINITY, limits.maxTimeoutMs),
  );
  return { rpcs, services, health };
}

const policyOf = methodPolicies();

function annotatedTimeout(method: DescMethod): number | undefined {
  return policyOf(method).timeoutMs;
}

function indexByPath(
  handlers: readonly UniversalHandler[],
  maxTimeoutOf: (method: DescMethod) => number,
): Map<string, RoutedRpc> {
  const index = new Map<string, RoutedRpc>();
  for (const handler of handlers) {
    if (index.has(handler.requestPath)) {
      throw new Error(`${handler.requestPath} is routed twice`);
    }
    index.set(handler.requestPath, { handler, maxTimeoutMs: maxTimeoutOf(handler.method) });
  }
  return index;
}

function servicesOf(router: ConnectRouter): readonly DescService[] {
  return [...new Set(router.handlers.map(({ service }) => service))];
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
