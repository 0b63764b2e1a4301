import { create } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Logger, toStatus } from "@toolplane/framework";
import { Code as RpcCode } from "@toolplane/gen/google/rpc/code_pb.js";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { milliseconds } from "../../config/durations.ts";

/** An error as it is kept with a step. What no caller is to see is logged under the run and the step. */
export function statusOf(
  error: unknown,
  { runId, path, logger }: { readonly runId: string; readonly path: string; readonly logger: Logger },
): Status {
  const call = { correlationId: `${runId}/${path}`, logger: logger.child({ run: runId, step: path }) };
  return create(StatusSchema, toStatus(error, call));
}

/** The error that a kept one stands for, with all its details. */
export function errorOf(status: Status, message = status.message): ConnectError {
  const error = new ConnectError(message, status.code in Code ? (status.code as Code) : Code.Unknown);
  error.details = status.details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return error;
}

/** As expressions and outputs show it, such as `{ code: "UNAVAILABLE", message: "…" }`. */
export function errorScope({ code, message }: Status): { code: string; message: string } {
  return { code: RpcCode[code] ?? "UNKNOWN", message };
}

/** Empty: there is none. */
export function reasonOf({ details }: Status): string {
  for (const detail of details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info !== undefined) {
      return info.reason;
    }
  }
  return "";
}

/** How long whoever failed asks to be left alone. Undefined: they do not say. */
export function retryAfterMs({ details }: Status): number | undefined {
  for (const detail of details) {
    const info = anyUnpack(detail, RetryInfoSchema);
    if (info?.retryDelay !== undefined) {
      return Math.max(0, milliseconds(info.retryDelay, 0));
    }
  }
  return undefined;
}
