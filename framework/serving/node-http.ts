import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { constants } from "node:http2";

/** A request as Node hands it over, of HTTP/1.1 or HTTP/2. */
export type NodeRequest = IncomingMessage | Http2ServerRequest;

/** The response to such a request. */
export type NodeResponse = ServerResponse | Http2ServerResponse;

export type NodeHandler = (request: NodeRequest, response: NodeResponse) => void;

/** The address of the other end, for logs. */
export function peerOf(request: NodeRequest): string {
  const { remoteAddress, remotePort } = request.socket;
  return remoteAddress === undefined
    ? "unknown"
    : `${remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`;
}

/** The name, and the port if there is one, that the client has called the server by; empty when it has not said. */
export function hostOf(request: NodeRequest): string {
  return ("authority" in request ? request.authority : request.headers.host) ?? "";
}

/** Whether nobody can be answered any more. Node's responses over HTTP/2 do not know themselves. */
export function isGone(response: NodeResponse): boolean {
  return "stream" in response ? response.stream.destroyed || response.stream.closed : response.destroyed;
}

/** What a connection of HTTP/1.1 is told, and HTTP/2 does not know (RFC 9113, section 8.2.2). */
const connectionHeaders = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "te",
];

/** Sends the status and the headers. */
export function writeHead(response: NodeResponse, status: number, headers: Headers): void {
  const overHttp2 = "stream" in response;
  const all: OutgoingHttpHeaders = overHttp2 ? response.getHeaders() : {};
  for (const [name, value] of headers) {
    all[name] = value;
  }
  if (headers.has("set-cookie")) {
    all["set-cookie"] = headers.getSetCookie();
  }
  if (overHttp2) {
    for (const name of connectionHeaders) {
      delete all[name];
    }
    all[constants.HTTP2_HEADER_STATUS] = status;
    // Node's own `writeHead` looks at each header again.
    response.stream.respond(all, { waitForTrailers: true });
  } else {
    response.writeHead(status, all);
  }
}

/** Writes a part of the body; false asks to wait for `drain`. */
export function writeChunk(response: NodeResponse, chunk: Uint8Array): boolean {
  return "stream" in response ? response.write(chunk) : response.write(chunk);
}
