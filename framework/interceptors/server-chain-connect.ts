import type { Registry } from "@bufbuild/protobuf";
import type { HandlerContext, Interceptor } from "@connectrpc/connect";
import { createLogger, type Logger } from "../logging.ts";
import { methodPolicies } from "./method-policy.ts";
import { type ObserveCallsOptions, observeCalls } from "./observe-calls.ts";
import { keepOwnHeaders } from "./own-headers.ts";
import { rateLimit } from "./rate-limit.ts";
import {
  type ChainParts,
  closeParts,
  createParts,
  innerInterceptors,
  type ServerChainOptions,
} from "./server-chain.ts";
import { translateErrors } from "./translate-errors.ts";
import { validateRequests } from "./validate.ts";

export interface ConnectChainOptions
  extends ServerChainOptions,
    Pick<ObserveCallsOptions, "onCall" | "peerOf" | "quietServices"> {
  /** Default: a logger to standard output. */
  readonly logger?: Logger | undefined;
  /** Resolves messages in `google.protobuf.Any`, and extensions with rules of one's own. */
  readonly registry?: Registry | undefined;
}

/** To be spread into the options of a Connect router or adapter. */
export interface ConnectChain {
  readonly interceptors: Interceptor[];
  /** Remembers what each answer carries of its own, for interceptors that answer in a handler's place. */
  readonly requestGate: (context: HandlerContext) => void;
  readonly parts: ChainParts;
  /** Ends what the chain owns, when the server has closed: waits for work that goes on without its caller. */
  close(): Promise<void>;
}

/**
 * The chain of `createServerChain` for any other Connect server, in the same order, with what `serve()` does itself:
 * observe, errors, authenticate, rate limit, validate, request ids, cache, deduplicate, breaker, concurrency, handler.
 *
 * What is different: Connect runs interceptors when the message of a unary call was read and parsed, so refusals cost
 * that much more, and messages that cannot be parsed are answered by Connect, unseen. Limits on connections, bodies and
 * headers are the server's own business.
 *
 * @example
 * ```ts
 * const { interceptors, requestGate } = createConnectChain({ authenticate: { verifiers: [apiKeys] } });
 * createServer(connectNodeAdapter({ routes, interceptors, requestGate }));
 * ```
 */
export function createConnectChain(options: ConnectChainOptions = {}): ConnectChain {
  const policyOf = methodPolicies(options.methods);
  const parts = createParts(options, policyOf);
  const { authentication, limits } = parts;
  const { logger = createLogger(), exempt, clock, onCall, peerOf, quietServices } = options;
  return {
    interceptors: [
      observeCalls({
        logger,
        onCall,
        peerOf,
        quietServices,
        clock,
        timeoutOf: (method) => policyOf(method).timeoutMs,
      }),
      translateErrors(),
      ...(authentication ? [authentication.interceptor] : []),
      rateLimit({ limits, exempt }),
      validateRequests(options.registry),
      ...innerInterceptors(options, parts, policyOf),
    ],
    requestGate: keepOwnHeaders,
    parts,
    close: () => closeParts(parts),
  };
}
