import { constants } from "node:http2";
import type { Clock } from "../clock.ts";
import { isGone, type NodeRequest, type NodeResponse } from "./node-http.ts";

/** How long a client may go on sending a body that nobody reads, after it was answered, in milliseconds. */
const lingerMs = 2_000;

/** Whether the client has sent everything. Over HTTP/2, Node counts a body as complete when it has been read. */
function isComplete(request: NodeRequest): boolean {
  return request.complete || ("stream" in request && request.stream.endAfterHeaders);
}

/** Calls back when a body that should end has not ended in time. */
export function limitBody(
  request: NodeRequest,
  response: NodeResponse,
  clock: Clock,
  timeoutMs: number,
  onTimeout: () => void,
): void {
  if (isComplete(request)) {
    return;
  }
  const cancel = clock.after(timeoutMs, () => {
    if (!isComplete(request)) {
      onTimeout();
    }
  });
  request.once("end", cancel);
  response.once("close", cancel);
}

/** A client that was answered before it had sent everything is told to stop, and given a moment to do so. */
export function endUnreadBody(request: NodeRequest, response: NodeResponse, clock: Clock): void {
  if (!response.writableEnded || isComplete(request) || isGone(response)) {
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
