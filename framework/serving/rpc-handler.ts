import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import type {
  UniversalHandler,
  UniversalServerRequest,
  UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import type { Clock } from "../clock.ts";
import { withErrorInfo } from "../errors/connect-error.ts";
import { type CallRecord, callRecordKey } from "../interceptors/call-record.ts";
import { CallValues } from "../interceptors/call-values.ts";
import type { DeadlineQueue } from "./deadline-queue.ts";
import type { ServeLimits } from "./limits.ts";
import { hostOf, type NodeRequest, type NodeResponse, peerOf } from "./node-http.ts";
import { refuse } from "./refusal.ts";
import { RequestBody } from "./request-body.ts";
import { writeResponse } from "./response-writer.ts";
import type { RoutedRpc } from "./router.ts";
import { clampTimeout, rpcProtocol } from "./rpc-protocol.ts";
import type { StreamMeter } from "./stream-meter.ts";

/**
 * Hands a request to Connect and writes the answer. Connect's own adapter writes failures to the console, throws on
 * requests without an authority, and waits forever for clients that left.
 */
export async function handleRpc(
  { handler, maxTimeoutMs }: RoutedRpc,
  request: NodeRequest,
  response: NodeResponse,
  correlationId: string,
  {
    limits,
    clock,
    streams,
    bodies,
  }: {
    readonly limits: ServeLimits;
    readonly clock: Clock;
    readonly streams: StreamMeter;
    readonly bodies: DeadlineQueue;
  },
): Promise<void> {
  const call = new AbortController();
  const body = new RequestBody(request);
  let over = false;
  const record: CallRecord = {
    stage: "receiving",
    failure: undefined,
    outcome: undefined,
    finish: () => {},
    abandon: undefined,
    correlationId,
    peer: peerOf(request),
    stopReading: (reason) => body.stop(reason),
  };
  response.once("close", () => {
    // To abort a signal whose call is over takes time and tells nobody anything.
    if (!over) {
      call.abort(new ConnectError("the caller left", Code.Canceled));
    }
  });
  const { methodKind } = handler.method;
  if (methodKind === "unary" || methodKind === "server_streaming") {
    body.limit(bodies, () => {
      const waited = `the message did not arrive within ${limits.requestTimeoutMs} ms`;
      call.abort(new ConnectError(waited, Code.DeadlineExceeded));
    });
  }
  let head: RequestHead;
  try {
    head = requestHead(request, maxTimeoutMs);
  } catch (error) {
    body.close();
    const malformed = ConnectError.from(error, Code.InvalidArgument);
    refuse(request, response, withErrorInfo(malformed, "MALFORMED_REQUEST"));
    return;
  }
  const stream = streams.open(handler);
  try {
    const answer = await handler({
      ...head,
      body,
      signal: call.signal,
      contextValues: new CallValues().set(callRecordKey, record),
    });
    if (answer.status >= 400 && answer.body === undefined) {
      refuseUnspoken(request, response, answer, handler);
      return;
    }
    await writeResponse(answer, response, { clock, stallTimeoutMs: limits.idleTimeoutMs, stream });
  } finally {
    over = true;
    body.close();
    stream?.closed();
    record.finish();
  }
}

/** Says why Connect has not even tried: it answers with nothing but a status where it finds no protocol to speak. */
function refuseUnspoken(
  request: NodeRequest,
  response: NodeResponse,
  answer: UniversalServerResponse,
  { allowedMethods }: UniversalHandler,
): void {
  switch (answer.status) {
    case 405: {
      response.setHeader("allow", allowedMethods.join(", "));
      const error = new ConnectError(
        `${request.method} is not possible here, but ${allowedMethods.join(" and ")} is`,
        Code.Unimplemented,
      );
      refuse(request, response, withErrorInfo(error, "METHOD_NOT_ALLOWED"), 405);
      break;
    }
    case 505: {
      // A client that expects both directions at once would wait for ever on a connection that stays open.
      response.setHeader("connection", "close");
      const error = new ConnectError("streams in both directions need HTTP/2", Code.FailedPrecondition);
      refuse(request, response, withErrorInfo(error, "HTTP_2_REQUIRED"), 505);
      break;
    }
    default: {
      const type = request.headers["content-type"] ?? "";
      const error = new ConnectError(`"${type}" is no content type of this method`, Code.InvalidArgument);
      refuse(request, response, withErrorInfo(error, "UNSUPPORTED_MEDIA_TYPE"), answer.status);
    }
  }
}

type RequestHead = Pick<UniversalServerRequest, "httpVersion" | "method" | "url" | "header">;

/** What Connect needs to know besides the body. Throws when the request cannot be understood. */
function requestHead(request: NodeRequest, maxTimeoutMs: number): RequestHead {
  const method = request.method ?? "";
  const origin = originOf("encrypted" in request.socket, hostOf(request) || "localhost");
  let url = `${origin}${request.url}`;
  // Anything else is the path of a method as it is.
  if (method === "GET") {
    const parsed = new URL(request.url ?? "", origin);
    checkQuery(parsed.searchParams);
    url = parsed.href;
  }
  const header = new Headers();
  const given = request.headers;
  for (const name in given) {
    const value = given[name];
    if (value !== undefined && !name.startsWith(":")) {
      header.set(name, Array.isArray(value) ? value.join(", ") : value);
    }
  }
  clampTimeout(header, rpcProtocol(method, request.headers), maxTimeoutMs);
  return { httpVersion: request.httpVersion, method, url, header };
}

let lastOrigin = { secure: false, host: "", origin: "" };

/** What URLs of a host begin with. The host is checked once for all calls that name the same one in a row. */
function originOf(secure: boolean, host: string): string {
  if (lastOrigin.host !== host || lastOrigin.secure !== secure) {
    const { origin } = new URL(`${secure ? "https" : "http"}://${host}`);
    lastOrigin = { secure, host, origin };
  }
  return lastOrigin.origin;
}

/** Connect takes a failure to decode base64 for one of its own. */
function checkQuery(query: URLSearchParams): void {
  if (query.get("base64") === "1") {
    base64Decode(query.get("message") ?? "");
  }
}
