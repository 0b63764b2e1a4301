const connectTimeout = "connect-timeout-ms";
const grpcTimeout = "grpc-timeout";

const millisecondsIn: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

/** The most that eight digits can say, which is all that gRPC allows: almost 28 hours in milliseconds. */
const MAX_GRPC_MS = 99_999_999;
/** As ten digits can, which Connect allows. */
const MAX_CONNECT_MS = 9_999_999_999;

/**
 * How much time a call's header gives it, in milliseconds, in whichever protocol's words; undefined when it does not say.
 * Interceptors of clients have no other place to see it.
 */
export function timeoutMsOf(header: Headers): number | undefined {
  const connect = header.get(connectTimeout);
  if (connect !== null) {
    return /^\d+$/.test(connect) ? Number(connect) : undefined;
  }
  // https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
  const [, digits, unit = ""] = /^(\d+)([HMSmun])$/.exec(header.get(grpcTimeout) ?? "") ?? [];
  return digits === undefined ? undefined : Number(digits) * (millisecondsIn[unit] ?? 0);
}

/** Says it in the words in which the header has said it before. Changes the header. */
export function setTimeoutMs(header: Headers, ms: number): void {
  const whole = Math.max(1, Math.ceil(ms));
  if (header.has(connectTimeout)) {
    header.set(connectTimeout, String(Math.min(whole, MAX_CONNECT_MS)));
  } else {
    header.set(grpcTimeout, `${Math.min(whole, MAX_GRPC_MS)}m`);
  }
}
