import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { domainConnectError, errorDomain } from "../errors/connect-error.ts";
import type { BreakerRefusal } from "../policies/breaker/state.ts";

/** The `google.rpc.ErrorInfo.reason` of a call that a breaker refused. */
const REASON = "CIRCUIT_OPEN";

/**
 * What a caller gets whose call a breaker refused: UNAVAILABLE with `google.rpc.ErrorInfo` (reason CIRCUIT_OPEN; the
 * breaker's name and state), and, where it is known when it is worth trying again, `google.rpc.RetryInfo` and
 * `Retry-After`.
 */
export function circuitOpenError({ name, state, retryAfterMs }: BreakerRefusal): ConnectError {
  const seconds = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1_000));
  return domainConnectError({
    code: Code.Unavailable,
    reason: REASON,
    message:
      seconds === undefined
        ? `"${name}" is isolated: it is not called until its breaker is reset`
        : `"${name}" has failed and is not called for now; try again in ${seconds} s`,
    metadata: { breaker: name, state },
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    ...(seconds !== undefined && { headers: { "retry-after": String(seconds) } }),
  });
}

/** Whether an error is what a breaker refused a call with, here or on a server. */
export function isCircuitOpen(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    error.code === Code.Unavailable &&
    error
      .findDetails(ErrorInfoSchema)
      .some(({ reason, domain }) => reason === REASON && domain === errorDomain)
  );
}
