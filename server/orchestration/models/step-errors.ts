import { Code, ConnectError } from "@connectrpc/connect";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";

/** Failures that may pass, as `RetryPolicy` names them. */
const passing: ReadonlySet<number> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.ResourceExhausted,
  Code.Internal,
  Code.Unknown,
]);

/** Whether the same may succeed at another time. */
export function mayPass({ code }: Pick<Status, "code">): boolean {
  return passing.has(code);
}

/** The error that a recorded failure stands for, with its details. */
export function errorOf({ code, message, details }: Status): ConnectError {
  const known = Code[code] === undefined ? Code.Unknown : code;
  const error = new ConnectError(message, known);
  error.details.push(
    ...details.map(({ typeUrl, value }) => ({ type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value })),
  );
  return error;
}
