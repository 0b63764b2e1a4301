import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { DomainError } from "../errors/domain-error.ts";
import type { Failure } from "../policies/retry/retry-decision.ts";

/** Sent by gRPC servers: how long to wait; anything but a number from 0 up forbids another attempt. */
const pushBackHeader = "grpc-retry-pushback-ms";

/**
 * What a failed RPC means for a repetition:
 *
 * - UNAVAILABLE is transient (https://google.aip.dev/194), and so is a connection that was refused or lost, whatever code
 *   Connect has for it.
 * - RESOURCE_EXHAUSTED and ABORTED are when the server says how long to wait. Without that, the first may stand for
 *   a message that is too large, and the second for a sequence of calls that has to begin anew.
 * - DEADLINE_EXCEEDED is permanent: the time that a repetition would need is over.
 * - Everything else is permanent.
 *
 * Servers ask for a wait with `grpc-retry-pushback-ms`, `google.rpc.RetryInfo` or `Retry-After`, the first of them counts.
 *
 * @param nowMs the time in milliseconds since 1970, for `Retry-After` with a date
 */
export function classifyFailure(error: unknown, nowMs: number = Date.now()): Failure {
  if (error instanceof DomainError) {
    return classify(error.init.code, error.init.retryAfterMs, wasUnsent(error));
  }
  if (!(error instanceof ConnectError)) {
    return { kind: "permanent" };
  }
  const pushBack = pushBackOf(error, nowMs);
  if (pushBack === "never") {
    return { kind: "forbidden" };
  }
  return !error.isWireError && isConnectionLost(error)
    ? { kind: "transient", unsent: wasUnsent(error) }
    : classify(error.code, pushBack, wasUnsent(error));
}

function classify(code: Code, pushBackMs: number | undefined, unsent: boolean): Failure {
  const wait = pushBackMs === undefined ? {} : { pushBackMs };
  switch (code) {
    case Code.Unavailable:
      return { kind: "transient", unsent, ...wait };
    case Code.ResourceExhausted:
    case Code.Aborted:
      return pushBackMs === undefined ? { kind: "permanent" } : { kind: "transient", unsent, ...wait };
    case Code.Canceled:
    case Code.Unknown:
    case Code.InvalidArgument:
    case Code.DeadlineExceeded:
    case Code.NotFound:
    case Code.AlreadyExists:
    case Code.PermissionDenied:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
    case Code.Unimplemented:
    case Code.Internal:
    case Code.DataLoss:
    case Code.Unauthenticated:
      return { kind: "permanent" };
  }
}

function pushBackOf(error: ConnectError, nowMs: number): number | "never" | undefined {
  const given = error.metadata.get(pushBackHeader);
  if (given !== null) {
    return /^\d{1,10}$/.test(given) ? Number(given) : "never";
  }
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  if (delay !== undefined) {
    return Math.max(0, durationMs(delay));
  }
  const retryAfter = error.metadata.get("retry-after");
  return retryAfter === null ? undefined : retryAfterMs(retryAfter, nowMs);
}

/** Seconds or a date (RFC 9110, section 10.2.3). */
function retryAfterMs(value: string, nowMs: number): number | undefined {
  if (/^\d{1,10}$/.test(value)) {
    return Number(value) * 1_000;
  }
  // `Date.parse` makes a year of any number.
  const date = /^[A-Za-z]{3}/.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** connect-node has ABORTED for a connection that was reset, and CANCELED for one that was closed under an HTTP/2 stream. */
export function isConnectionLost(error: ConnectError): boolean {
  switch (error.code) {
    case Code.Aborted:
      return causes(error).some((cause) => codeOf(cause) === "ECONNRESET");
    case Code.Canceled:
      return error.rawMessage.startsWith("http/2 stream closed with error code CANCEL");
    default:
      return false;
  }
}

/**
 * Whether a call certainly had no effect: no connection could be made, or the server turned the stream away unseen
 * (REFUSED_STREAM; RFC 9113, section 8.7).
 */
function wasUnsent(error: Error): boolean {
  return (
    (error instanceof ConnectError && !error.isWireError && error.rawMessage.includes("REFUSED_STREAM")) ||
    causes(error).some(isConnectFailure)
  );
}

function isConnectFailure(error: Error): boolean {
  if (error instanceof AggregateError) {
    return (
      error.errors.length > 0 && error.errors.every((one) => one instanceof Error && isConnectFailure(one))
    );
  }
  const syscall = "syscall" in error ? error.syscall : undefined;
  return syscall === "connect" || syscall === "getaddrinfo";
}

function codeOf(error: Error): unknown {
  return "code" in error ? error.code : undefined;
}

/** An error's causes, the nearest first, and no more than a few. */
function causes(error: Error): Error[] {
  const found: Error[] = [];
  for (let cause = error.cause; cause instanceof Error && found.length < 10; cause = cause.cause) {
    found.push(cause);
  }
  return found;
}
