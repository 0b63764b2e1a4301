import type { ServerResponse } from "node:http";
import { constants } from "node:http2";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest } from "@connectrpc/connect/protocol";
import type { Clock } from "../clock.ts";
import { domainConnectError, withErrorInfo } from "../errors/connect-error.ts";
import { abortable } from "../interceptors/abortable.ts";
import { type CallRecord, callRecordKey } from "../interceptors/call-record.ts";
import type { Logger } from "../logging.ts";
import { correlationIdHeader, correlationIdOf } from "./correlation-id.ts";
import type { Cors } from "./cors.ts";
import type { ServeLimits } from "./limits.ts";
import { isGone, type NodeHandler, type NodeRequest, type NodeResponse, peerOf } from "./node-http.ts";
import { refuse } from "./refusal.ts";
import { writeResponse } from "./response-writer.ts";
import { clampTimeout, rpcProtocol } from "./rpc-protocol.ts";

/** Answers a plain HTTP request; false means that it is not meant for this handler. */
export type HttpHandler = (request: NodeRequest, response: NodeResponse) => boolean | Promise<boolean>;

export interface RequestHandlerOptions {
  readonly rpcs: readonly UniversalHandler[];
  /** Answered first, whatever the load. */
  readonly probes: HttpHandler;
  /** Asked in turn about everything that is neither probe nor RPC. */
  readonly http: readonly HttpHandler[];
  readonly cors: Cors;
  readonly limits: ServeLimits;
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

/** How long a client may go on sending a body that nobody reads, after it was answered. */
const lingerMs = 2_000;

/**
 * Takes requests off the wire: sheds what is too much before anything is read, hands RPCs to Connect, and answers
 * whatever fails on the way in the request's own protocol. Connect's own adapter writes failures to the console,
 * throws on requests without an authority, and waits forever for clients that left.
 */
export function createRequestHandler(options: RequestHandlerOptions): RequestHandler {
  const { limits, logger, clock } = options;
  const rpcs = indexByPath(options.rpcs);
  /** Responses over HTTP/1.1, whose connections outlast them. */
  const open = new Set<ServerResponse>();
  let running = 0;
  let draining = false;

  async function handle(request: NodeRequest, response: NodeResponse, correlationId: string): Promise<void> {
    const path = (request.url ?? "").split("?", 1)[0] ?? "";
    if (await options.probes(request, response)) {
      return;
    }
    if (!options.cors(request, response)) {
      return;
    }
    // Node's HTTP/2 keeps the limit only from when the client has confirmed the server's settings.
    if ("stream" in request && headerListSize(request.rawHeaders) > limits.maxHeaderBytes) {
      refuse(request, response, headersTooLarge(limits.maxHeaderBytes), 431);
      return;
    }
    if (!options.exempt(path)) {
      if (running >= limits.maxRequests) {
        refuse(request, response, overloaded());
        return;
      }
      running += 1;
      response.once("close", () => {
        running -= 1;
      });
    }
    const rpc = rpcs.get(path);
    if (rpc !== undefined) {
      await handleRpc(rpc, request, response, correlationId);
      return;
    }
    limitBody(request, response, () => request.destroy());
    for (const http of options.http) {
      if (await http(request, response)) {
        return;
      }
    }
    const unknown = new ConnectError(`there is nothing at ${path}`, Code.Unimplemented);
    refuse(request, response, withErrorInfo(unknown, "UNKNOWN_PATH"), 404);
  }

  async function handleRpc(
    rpc: UniversalHandler,
    request: NodeRequest,
    response: NodeResponse,
    correlationId: string,
  ): Promise<void> {
    const call = new AbortController();
    const reading = new AbortController();
    const record: CallRecord = {
      stage: "receiving",
      failure: undefined,
      outcome: undefined,
      finish: () => {},
      correlationId,
      peer: peerOf(request),
      stopReading: (reason) => reading.abort(reason),
    };
    response.once("close", () => {
      call.abort(new ConnectError("the caller left", Code.Canceled));
    });
    const { methodKind } = rpc.method;
    if (methodKind === "unary" || methodKind === "server_streaming") {
      limitBody(request, response, () => {
        const waited = `the message did not arrive within ${limits.requestTimeoutMs} ms`;
        call.abort(new ConnectError(waited, Code.DeadlineExceeded));
      });
    }
    let head: RequestHead;
    try {
      head = requestHead(request, limits);
    } catch (error) {
      const malformed = ConnectError.from(error, Code.InvalidArgument);
      refuse(request, response, withErrorInfo(malformed, "MALFORMED_REQUEST"));
      return;
    }
    try {
      const answer = await rpc({
        ...head,
        // Leaving the iteration must not destroy the request, which would take the response with it.
        body: abortable(request.iterator({ destroyOnReturn: false }), reading.signal),
        signal: call.signal,
        contextValues: createContextValues().set(callRecordKey, record),
      });
      await writeResponse(answer, response, { clock, stallTimeoutMs: limits.idleTimeoutMs });
    } finally {
      record.finish();
    }
  }

  /** Calls back when a body that should end has not ended in time. */
  function limitBody(request: NodeRequest, response: NodeResponse, onTimeout: () => void): void {
    const cancel = clock.after(limits.requestTimeoutMs, () => {
      if (!request.complete) {
        onTimeout();
      }
    });
    request.once("end", cancel);
    response.once("close", cancel);
  }

  /** Answers a request whatever happens; never rejects. */
  async function answer(request: NodeRequest, response: NodeResponse): Promise<void> {
    try {
      response.on("error", (error) => logger.debug({ err: error }, "a response failed"));
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
      const correlationId = correlationIdOf(request.headers);
      response.setHeader(correlationIdHeader, correlationId);
      await handle(request, response, correlationId);
      endUnreadBody(request, response, clock);
    } catch (error) {
      if (isGone(response)) {
        logger.debug({ err: error, path: request.url }, "a request failed whose client has left");
        return;
      }
      logger.error({ err: error, path: request.url }, "a request failed");
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

function indexByPath(rpcs: readonly UniversalHandler[]): Map<string, UniversalHandler> {
  const index = new Map<string, UniversalHandler>();
  for (const rpc of rpcs) {
    if (index.has(rpc.requestPath)) {
      throw new Error(`${rpc.requestPath} is routed twice`);
    }
    index.set(rpc.requestPath, rpc);
  }
  return index;
}

function overloaded(): ConnectError {
  return domainConnectError({
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_REQUESTS",
    message: "the server has too many requests at once: try again later",
    retryAfterMs: 1_000,
  });
}

type RequestHead = Pick<UniversalServerRequest, "httpVersion" | "method" | "url" | "header">;

/** What Connect needs to know besides the body. Throws when the request cannot be understood. */
function requestHead(request: NodeRequest, limits: ServeLimits): RequestHead {
  const method = request.method ?? "";
  const secure = "encrypted" in request.socket;
  const url = new URL(request.url ?? "", `${secure ? "https" : "http"}://${authorityOf(request)}`);
  if (method === "GET") {
    checkQuery(url.searchParams);
  }
  const header = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (!name.startsWith(":") && value !== undefined) {
      header.set(name, Array.isArray(value) ? value.join(", ") : value);
    }
  }
  clampTimeout(header, rpcProtocol(method, request.headers), limits.maxTimeoutMs);
  return { httpVersion: request.httpVersion, method, url: url.toString(), header };
}

function authorityOf(request: NodeRequest): string {
  const authority = "authority" in request ? request.authority : request.headers.host;
  // HTTP/1.0 has no Host.
  return authority === undefined || authority === "" ? "localhost" : authority;
}

/** Connect takes a failure to decode base64 for one of its own. */
function checkQuery(query: URLSearchParams): void {
  if (query.get("base64") === "1") {
    base64Decode(query.get("message") ?? "");
  }
}

/** A client that was answered before it had sent everything is told to stop, and given a moment to do so. */
function endUnreadBody(request: NodeRequest, response: NodeResponse, clock: Clock): void {
  if (request.complete || isGone(response)) {
    return;
  }
  if ("stream" in request) {
    const { stream } = request;
    // Node discards trailers that it has not sent when a stream is closed.
    stream.once("wantTrailers", () => setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR)));
    return;
  }
  request.resume();
  const cancel = clock.after(lingerMs, () => request.socket.destroy());
  request.once("end", cancel);
  request.once("close", cancel);
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
