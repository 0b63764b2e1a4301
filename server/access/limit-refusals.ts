import { Code, ConnectError } from "@connectrpc/connect";
import { anonymous, type Clock, type Gate } from "@toolplane/framework";
import { callerKey, LOCAL_PEER, rateLimitError } from "@toolplane/framework/interceptors";
import {
  createLimitSet,
  createRateLimiter,
  type LimitSet,
  type RateLimit,
} from "@toolplane/framework/policies";

export interface LimitedRefusals {
  readonly gate: Gate;
  /** Its level is `address`. */
  readonly limits: LimitSet<string>;
}

/**
 * Limits how often an address is told that its credentials are not good enough; beyond, its calls are refused with
 * RESOURCE_EXHAUSTED. Whose credentials are good is never refused here, whatever others at the same address do.
 *
 * Nothing would be saved by looking at the limit first: a key is looked up in memory, and a wrong signature costs less
 * than the request that it came in. But clients that try again and again learn here when to come back.
 */
export function limitRefusals(gate: Gate, limit: RateLimit, clock: Clock): LimitedRefusals {
  const limiter = createRateLimiter({ ...limit, clock });
  const limits = createLimitSet<string>([{ name: "address", limiter, keyOf: (address) => address }], {
    clock,
  });
  return {
    limits,
    async gate(call, context) {
      try {
        await gate(call, context);
      } catch (error) {
        const decision =
          call.peer !== LOCAL_PEER && isRefusal(error) ? limits.take(addressOf(call.peer)) : undefined;
        throw decision?.allowed === false ? rateLimitError(decision) : error;
      }
    },
  };
}

function isRefusal(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    (error.code === Code.Unauthenticated || error.code === Code.PermissionDenied)
  );
}

function addressOf(peer: string): string {
  return callerKey(anonymous, peer).replace(/^address:/, "");
}
