import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { StreamRequest, UnaryRequest } from "@connectrpc/connect";

/** What names a request, so that a server can tell a repetition from a second request. */
const requestIdHeaders = ["idempotency-key", "x-request-id"];

/** Whether a method says of itself that calling it twice does no more than calling it once. */
export function isIdempotent(method: DescMethod): boolean {
  return method.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
}

/**
 * Whether a call may reach its server twice: its method is idempotent or has no side effects, or it has a request id, in
 * the header `idempotency-key` or `x-request-id` or in the request's own field `request_id` (https://google.aip.dev/155).
 */
export function isRepeatable(request: UnaryRequest | StreamRequest): boolean {
  return (
    isIdempotent(request.method) ||
    requestIdHeaders.some((name) => request.header.has(name)) ||
    (!request.stream && hasRequestId(request))
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
