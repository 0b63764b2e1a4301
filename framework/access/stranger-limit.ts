import type { DescMethod } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { domainConnectError } from "../errors/connect-error.ts";

const DEFAULT_MAX = 500;

/**
 * Counts calls that need no credentials for as long as they run. What is returned throws RESOURCE_EXHAUSTED when there
 * are `max` already.
 */
export function limitStrangers(max = DEFAULT_MAX): (method: DescMethod, signal: AbortSignal) => void {
  let running = 0;
  return (method, signal) => {
    // What decides whether a server is restarted must not depend on what strangers do.
    if (method === Health.method.check) {
      return;
    }
    if (running >= max) {
      throw domainConnectError({
        code: Code.ResourceExhausted,
        reason: "TOO_MANY_STRANGERS",
        message: `${max} calls that need no credentials run already: try again later`,
        retryAfterMs: 1_000,
      });
    }
    if (signal.aborted) {
      return;
    }
    running++;
    // Connect aborts the signal of every call, also when it has ended well.
    signal.addEventListener(
      "abort",
      () => {
        running--;
      },
      { once: true },
    );
  };
}
