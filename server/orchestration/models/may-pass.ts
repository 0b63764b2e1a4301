import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import { retryDelayMs } from "../engine/retry-delay.ts";

/** Whether the engine would try again after a failure, had it an attempt left. */
export function mayPass(error: Status): boolean {
  const retry = { attempts: 2, initialBackoffMs: 0, maxBackoffMs: 0 };
  const leftMs = Number.POSITIVE_INFINITY;
  return retryDelayMs(error, { failures: 1, retry, leftMs, random: () => 0 }) !== undefined;
}
