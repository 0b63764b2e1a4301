import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "../errors/domain-error.ts";
import type { Outcome } from "../policies/breaker/state.ts";
import { isCircuitOpen } from "./circuit-breaker-refusal.ts";
import { isShed } from "./concurrency-limit.ts";
import { isConnectionLost } from "./retry-failure.ts";

/**
 * What a code says about what was called.
 *
 * - It is to blame for UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN and DATA_LOSS.
 * - INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, UNAUTHENTICATED, FAILED_PRECONDITION, OUT_OF_RANGE and
 *   UNIMPLEMENTED are the caller's mistakes, ABORTED is a conflict between callers, CANCELED is the caller's wish: they
 *   say nothing about it, so that no caller can shut it for others.
 * - RESOURCE_EXHAUSTED says nothing either. It is how a backend that is well keeps one caller, or everyone, within
 *   limits: slowing down is the answer to that, not a stop for all.
 */
export function outcomeOfCode(code: Code): "failure" | "ignored" {
  switch (code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss:
      return "failure";
    case Code.Canceled:
    case Code.InvalidArgument:
    case Code.NotFound:
    case Code.AlreadyExists:
    case Code.PermissionDenied:
    case Code.ResourceExhausted:
    case Code.FailedPrecondition:
    case Code.Aborted:
    case Code.OutOfRange:
    case Code.Unimplemented:
    case Code.Unauthenticated:
      return "ignored";
  }
}

/** The code that an error has, or gets on the way to the caller. */
export function codeOfError(error: unknown): Code {
  return error instanceof DomainError ? error.init.code : ConnectError.from(error).code;
}

/**
 * What an error says about what was called.
 *
 * On a client, a connection that was lost is a failure, whatever code Connect has for it; a refusal by another breaker of
 * this process says nothing. On a server, the failures of its own backends say nothing about it: their own breakers count
 * them, and one backend that is down must not shut the method that calls all of them. Nor does it when the server sheds a
 * call further in: that protects it already, and is over sooner than a breaker closes.
 */
export function outcomeOfError(error: unknown, side: "client" | "server"): "failure" | "ignored" {
  const connectError = error instanceof ConnectError ? error : undefined;
  if (side === "client") {
    if (connectError !== undefined && !connectError.isWireError) {
      if (isConnectionLost(connectError)) {
        return "failure";
      }
      if (isCircuitOpen(connectError)) {
        return "ignored";
      }
    }
  } else if (isShed(error) || isOfBackend(error) || (error instanceof Error && isOfBackend(error.cause))) {
    return "ignored";
  }
  return outcomeOfCode(codeOfError(error));
}

function isOfBackend(error: unknown): boolean {
  return error instanceof ConnectError && (error.isWireError || isCircuitOpen(error));
}

/** The scope of a breaker is in its name: `service/…`, `instance/…`, `method/…`. */
const serviceScope = "service/";

/**
 * What a failure means to the breaker of that name. A service is shut as a whole only when it cannot be reached: an error
 * inside of it, or a lack of time, may be one method's.
 */
export function outcomeForBreaker(outcome: Outcome, error: unknown, breaker: string): Outcome {
  const unreachable = () => codeOfError(error) === Code.Unavailable && !isCircuitOpen(error);
  const lost = () => error instanceof ConnectError && !error.isWireError && isConnectionLost(error);
  return outcome === "failure" && breaker.startsWith(serviceScope) && !unreachable() && !lost()
    ? "ignored"
    : outcome;
}
