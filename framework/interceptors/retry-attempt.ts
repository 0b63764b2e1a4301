import { setTimeoutMs, timeoutMsOf } from "./timeout-header.ts";

/** How many attempts there were before this one (https://github.com/grpc/proposal/blob/master/A6-client-retries.md). */
export const previousAttemptsHeader = "grpc-previous-rpc-attempts";

/** When a call that begins now must be over, in milliseconds since 1970; undefined: it may take any time. */
export function attemptsDeadline(header: Headers, nowMs: number): number | undefined {
  const timeoutMs = timeoutMsOf(header);
  return timeoutMs === undefined ? undefined : nowMs + timeoutMs;
}

/**
 * The header of a further attempt: it says which one it is, and leaves the server no more time than the caller has left.
 *
 * @param attempt from 1 up
 */
export function attemptHeader(
  original: Headers,
  attempt: number,
  deadline: number | undefined,
  nowMs: number,
): Headers {
  const header = new Headers(original);
  header.set(previousAttemptsHeader, String(attempt - 1));
  if (deadline !== undefined) {
    setTimeoutMs(header, deadline - nowMs);
  }
  return header;
}
