/** How many attempts there were before this one (https://github.com/grpc/proposal/blob/master/A6-client-retries.md). */
export const previousAttemptsHeader = "grpc-previous-rpc-attempts";

const millisecondsIn: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

/** When a call must be over, in milliseconds since 1970; undefined: it may take any time. */
export function deadlineOf(header: Headers, nowMs: number): number | undefined {
  const timeoutMs = timeoutOf(header);
  return timeoutMs === undefined ? undefined : nowMs + timeoutMs;
}

/** In whichever protocol's header it is. Transports have no other place in which an interceptor can see it. */
function timeoutOf(header: Headers): number | undefined {
  const connect = header.get("connect-timeout-ms");
  if (connect !== null) {
    return /^\d+$/.test(connect) ? Number(connect) : undefined;
  }
  const [, digits, unit = ""] = /^(\d+)([HMSmun])$/.exec(header.get("grpc-timeout") ?? "") ?? [];
  return digits === undefined ? undefined : Number(digits) * (millisecondsIn[unit] ?? 0);
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
    const leftMs = Math.max(1, Math.ceil(deadline - nowMs));
    if (header.has("connect-timeout-ms")) {
      header.set("connect-timeout-ms", String(leftMs));
    } else {
      header.set("grpc-timeout", `${leftMs}m`);
    }
  }
  return header;
}
