import { Code } from "@connectrpc/connect";
import { backoffDelayMs } from "@toolplane/framework/policies";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import type { PlanRetry } from "../plan.ts";
import { reasonOf, retryAfterMs } from "./statuses.ts";

const transientCodes: ReadonlySet<number> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.ResourceExhausted,
  Code.Internal,
  Code.Unknown,
]);

/** Whether what failed with this code may succeed when it is tried again: see RetryPolicy in the contract. */
export function isTransient(code: number): boolean {
  return transientCodes.has(code);
}

/** What a further attempt would come to as well, although its code says that it may pass. */
const lastingReasons: ReadonlySet<string> = new Set([
  "OUTPUT_TOO_LARGE",
  "RUN_OUTPUT_TOO_LARGE",
  "STEP_CRASHES_WORKER",
  "TURN_BUDGET",
  "TOKEN_BUDGET",
  "COST_BUDGET",
  "TIME_BUDGET",
]);

/**
 * How long to wait before the next attempt, in milliseconds: a random part of a bound that doubles with each failure, and
 * at least as long as whoever failed asks for. Undefined: there is to be no further attempt.
 *
 * @param failures attempts that have failed, from 1
 * @param leftMs there is no attempt that could not begin within this time
 */
export function retryDelayMs(
  error: Status,
  {
    failures,
    retry,
    leftMs,
    random,
  }: {
    readonly failures: number;
    readonly retry: PlanRetry;
    readonly leftMs: number;
    readonly random: () => number;
  },
): number | undefined {
  if (failures >= retry.attempts || !isTransient(error.code) || lastingReasons.has(reasonOf(error))) {
    return undefined;
  }
  const bounds = { baseDelayMs: retry.initialBackoffMs, maxDelayMs: retry.maxBackoffMs };
  const delay = Math.ceil(Math.max(backoffDelayMs(failures, bounds, random), retryAfterMs(error) ?? 0));
  return delay < leftMs ? delay : undefined;
}
