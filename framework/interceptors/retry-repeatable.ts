import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { StreamRequest, UnaryRequest } from "@connectrpc/connect";
import { idempotencyKeyHeader } from "./idempotency.ts";

/** Whether a method says of itself that calling it twice does no more than calling it once. */
export function isIdempotent(method: DescMethod): boolean {
  return method.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
}

/**
 * Whether a call may reach its server twice: its method is idempotent or has no side effects, or it is a unary call with
 * an id by which a server can tell a repetition from a second request, in the header `idempotency-key` or in the request's
 * own field `request_id` (https://google.aip.dev/155).
 *
 * `x-request-id` is no such id, though it sounds like one: it names a call in logs, and most callers who set it have a
 * server that does nothing else with it. Nor is any id one for a stream, whose outcome no server keeps.
 */
export function isRepeatable(request: UnaryRequest | StreamRequest): boolean {
  return (
    isIdempotent(request.method) ||
    (!request.stream && (request.header.has(idempotencyKeyHeader) || hasRequestId(request)))
  );
}

function hasRequestId({ method, message }: UnaryRequest): boolean {
  const field = method.input.field["requestId"];
  return (
    field?.fieldKind === "scalar" &&
    field.name === "request_id" &&
    // Messages have their fields as properties; which ones, only the descriptor knows.
    Boolean((message as unknown as Record<string, unknown>)[field.localName])
  );
}
