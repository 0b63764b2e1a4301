import { domainErrorOf } from "../pool/index.ts";

/** What the pool says when an instance is not there any more, or as good as: nothing that a backend says. */
const UNREACHED = new Set(["UNREACHABLE", "CALL_REFUSED", "CONNECTION_LOST"]);

/** What the pool says of requests that no server has seen. */
const NEVER_REACHED = new Set(["UNREACHABLE", "CALL_REFUSED", "POOL_EXHAUSTED", "SHUTTING_DOWN"]);

/** Whether a call failed because there was no connection to the instance, or it was lost. */
export function isUnreached(error: unknown): boolean {
  return UNREACHED.has(reasonOf(error));
}

/**
 * Whether a call failed before any server has acted on it, so that it can be made again whatever it does: no connection
 * could be opened or became free, or the server refused the request unseen (REFUSED_STREAM, or a GOAWAY that leaves it
 * out). False whenever the server may have seen the request, as when its connection broke, and for errors of a backend.
 *
 * Holds for every backend. Takes errors as backends throw them, before anything about the call is added to them.
 */
export function neverReached(error: unknown): boolean {
  return NEVER_REACHED.has(reasonOf(error));
}

function reasonOf(error: unknown): string {
  return domainErrorOf(error)?.init.reason ?? "";
}
