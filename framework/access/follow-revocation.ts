import { ConnectError, type HandlerContext } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import type { Clock } from "../clock.ts";
import type { RefusalReason } from "./verifier.ts";

/** How often it is looked whether the credentials of a stream were revoked, in milliseconds. */
const INTERVAL_MS = 60_000;
const REVOKED: RefusalReason = "CREDENTIALS_REVOKED";

/**
 * Ends a stream when its credentials are revoked. Not when they expire, or when the issuer has replaced the key that they
 * were signed with: what was begun in time may go on.
 *
 * @param identify throws the refusal of the credentials, or rejects with it
 */
export function followRevocation(context: HandlerContext, clock: Clock, identify: () => unknown): void {
  const { signal } = context;
  let cancel = () => {};
  function schedule(): void {
    if (!signal.aborted) {
      cancel = clock.after(INTERVAL_MS, look);
    }
  }
  async function look(): Promise<void> {
    try {
      await identify();
    } catch (error) {
      if (isRevoked(error)) {
        (context as EndableContext).abort(error);
      }
    }
    schedule();
  }
  signal.addEventListener("abort", () => cancel(), { once: true });
  schedule();
}

/** What Connect really hands to a gate. */
type EndableContext = HandlerContext & { abort(reason: unknown): void };

function isRevoked(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    error.findDetails(ErrorInfoSchema).some(({ reason }) => reason === REVOKED)
  );
}
