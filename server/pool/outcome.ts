import type { IncomingHttpHeaders } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Outcome } from "./connection.ts";

/** Statuses with which a server or a proxy before it says that it cannot serve now. */
const UNAVAILABLE_STATUSES = [502, 503, 504];

/** True when headers or trailers say that the server cannot serve now. Other errors are no fault of the connection. */
export function saysUnavailable(headers: IncomingHttpHeaders): boolean {
  return isUnavailable(Number(headers[":status"])) || Number(headers["grpc-status"]) === Code.Unavailable;
}

export function isUnavailable(status: number): boolean {
  return UNAVAILABLE_STATUSES.includes(status);
}

/** How a request ended, as far as its connection is concerned. */
export function outcomeOf(ok: boolean, signal: AbortSignal | undefined): Outcome {
  if (ok) {
    return "ok";
  }
  return signal?.aborted && !timedOut(signal) ? "neutral" : "failed";
}

/** True for the deadlines of Connect and for those of AbortSignal.timeout. */
export function timedOut(signal: AbortSignal | undefined): boolean {
  const reason: unknown = signal?.reason;
  return reason instanceof ConnectError
    ? reason.code === Code.DeadlineExceeded
    : reason instanceof DOMException && reason.name === "TimeoutError";
}
