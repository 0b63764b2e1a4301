import type { ServerResponse } from "node:http";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Clock } from "../clock.ts";
import { domainConnectError, withErrorInfo } from "../errors/connect-error.ts";
import { correlationIdHeader, correlationIdOf, requestIdHeader } from "../interceptors/correlation-id.ts";
import type { Logger } from "../logging.ts";
import type { Cors } from "./cors.ts";
import { createDeadlineQueue } from "./deadline-queue.ts";
import type { HostCheck } from "./host-check.ts";
import type { ServeLimits } from "./limits.ts";
import { isGone, type NodeHandler, type NodeRequest, type NodeResponse } from "./node-http.ts";
import type { Probe } from "./probes.ts";
import { refuse } from "./refusal.ts";
import { endUnreadBody, limitBody } from "./request-body.ts";
import type { RoutedRpc } from "./router.ts";
import { handleRpc } from "./rpc-handler.ts";
import type { StreamMeter } from "./stream-meter.ts";

/** Answers a plain HTTP request; false means that it is not meant for this handler. */
export type HttpHandler = (request: NodeRequest, response: NodeResponse) => boolean | Promise<boolean>;

export interface RequestHandlerOptions {
  /** By path. */
  readonly rpcs: ReadonlyMap<string, RoutedRpc>;
  /** Answered before anything is shed; by path. */
  readonly probes: ReadonlyMap<string, Probe>;
  /** Asked in turn about everything that is neither probe nor RPC. */
  readonly http: readonly HttpHandler[];
  readonly hosts: HostCheck;
  readonly cors: Cors;
  readonly limits: ServeLimits;
  readonly streams: StreamMeter;
  readonly logger: Logger;
  readonly clock: Clock;
  /** RPCs, by their path, that are answered whatever the load. */
  readonly exempt: (path: string) => boolean;
}

export interface RequestHandler {
  readonly handle: NodeHandler;
  /** From now on, tells HTTP/1.1 clients to close their connections after the response. */
  drain(): void;
}

/**
 * Takes requests off the wire: sheds what is too much before anything is read, hands RPCs on, and answers whatever
 * fails on the way in the request's own protocol.
 */
export function createRequestHandler(options: RequestHandlerOptions): RequestHandler {
  const { rpcs, limits, logger, clock, streams } = options;
  const forRpcs = { limits, clock, streams, bodies: createDeadlineQueue(clock, limits.requestTimeoutMs) };
  /** Responses over HTTP/1.1, whose connections outlast them. */
  const open = new Set<ServerResponse>();
  let running = 0;
  let draining = false;

  function onClose(): void {
    running -= 1;
  }

  function onError(error: unknown): void {
    logger.debug({ err: error }, "a response failed");
  }

  function handle(request: NodeRequest, response: NodeResponse, correlationId: string): void | Promise<void> {
    const path = pathOf(request);
    // Node's HTTP/2 keeps the limit only from when the client has confirmed the server's settings.
    if ("stream" in request && headerListSize(request.rawHeaders) > limits.maxHeaderBytes) {
      refuse(request, response, headersTooLarge(limits.maxHeaderBytes), 431);
      return;
    }
    if (!options.hosts(request, response)) {
      return;
    }
    const probe = options.probes.get(path);
    if (probe !== undefined) {
      return probe(response);
    }
    if (!options.cors(request, response)) {
      return;
    }
    if (!options.exempt(path)) {
      if (running >= limits.maxRequests) {
        refuse(request, response, overloaded());
        return;
      }
      running += 1;
      response.once("close", onClose);
    }
    const rpc = rpcs.get(path);
    if (rpc !== undefined) {
      return handleRpc(rpc, request, response, correlationId, forRpcs);
    }
    return handleHttp(request, response, path);
  }

  async function handleHttp(request: NodeRequest, response: NodeResponse, path: string): Promise<void> {
    limitBody(request, response, clock, limits.requestTimeoutMs, () => request.destroy());
    for (const http of options.http) {
      if (await http(request, response)) {
        return;
      }
    }
    const unknown = new ConnectError(`there is nothing at ${path}`, Code.Unimplemented);
    refuse(request, response, withErrorInfo(unknown, "UNKNOWN_PATH"), 404);
  }

  /** Answers a request whatever happens; never rejects. */
  async function answer(request: NodeRequest, response: NodeResponse): Promise<void> {
    try {
      response.on("error", onError);
      if (!("stream" in response)) {
        response.shouldKeepAlive = !draining && response.shouldKeepAlive;
        open.add(response);
        response.once("close", () => {
          open.delete(response);
          if (draining) {
            request.socket.destroySoon();
          }
        });
      }
      const correlationId = correlationIdOf(
        request.headers[correlationIdHeader] ?? request.headers[requestIdHeader],
      );
      response.setHeader(correlationIdHeader, correlationId);
      await handle(request, response, correlationId);
      endUnreadBody(request, response, clock);
    } catch (error) {
      if (isGone(response)) {
        logger.debug({ err: error, path: pathOf(request) }, "a request failed whose client has left");
        return;
      }
      logger.error({ err: error, path: pathOf(request) }, "a request failed");
      refuse(
        request,
        response,
        domainConnectError({ code: Code.Internal, reason: "INTERNAL", message: "internal error" }),
      );
    }
  }

  return {
    handle(request, response) {
      void answer(request, response);
    },
    drain() {
      draining = true;
      for (const response of open) {
        response.shouldKeepAlive = false;
      }
    },
  };
}

/** Without the query, which may hold a message or a token: it is not to be logged or repeated. */
function pathOf(request: NodeRequest): string {
  return (request.url ?? "").split("?", 1)[0] ?? "";
}

function overloaded(): ConnectError {
  return domainConnectError({
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_REQUESTS",
    message: "the server has too many requests at once: try again later",
    retryAfterMs: 1_000,
  });
}

/** What HTTP/2 counts: name, value and 32 bytes of overhead for each header (RFC 9113, section 6.5.2). */
function headerListSize(rawHeaders: readonly string[]): number {
  return rawHeaders.reduce((size, part) => size + part.length, rawHeaders.length * 16);
}

function headersTooLarge(limit: number): ConnectError {
  return domainConnectError({
    code: Code.ResourceExhausted,
    reason: "HEADERS_TOO_LARGE",
    message: `the request's headers are larger than ${limit} bytes`,
  });
}
