import { Code, ConnectError } from "@connectrpc/connect";
import { domainErrorOf } from "../pool/index.ts";

/** Whether a call failed because there was no connection to the instance, or it was lost: nothing that a backend says. */
export function isUnreached(error: unknown): boolean {
  const ours = domainErrorOf(error);
  if (ours) {
    return ours.init.reason === "UNREACHABLE";
  }
  return (
    error instanceof ConnectError &&
    error.code === Code.Unavailable &&
    !error.isWireError &&
    // An HTTP tool's status 503 comes with details.
    error.details.length === 0
  );
}
