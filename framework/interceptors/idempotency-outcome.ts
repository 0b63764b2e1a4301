import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type UnaryRequest, type UnaryResponse } from "@connectrpc/connect";
import { type Status, StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { domainConnectError } from "../errors/connect-error.ts";
import { DomainError } from "../errors/domain-error.ts";
import { toAny } from "../errors/status.ts";
import type { IdempotentOutcome } from "../policies/idempotency/store.ts";
import { callContextKey } from "./call-context.ts";
import { filterHeaders, type HeaderFilter, withOwnHeaders } from "./share-response.ts";

/** Failures that pass: a repetition with the same id tries again. All others are outcomes. */
const transient: ReadonlySet<Code> = new Set([
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
  Code.Aborted,
  Code.Unavailable,
]);

/** What goes beside a message or an error: lists of names and values. */
interface Metadata {
  readonly header: readonly (readonly [name: string, value: string])[];
  readonly trailer: readonly (readonly [name: string, value: string])[];
}

export function successOutcome(response: UnaryResponse, mayShare: HeaderFilter): IdempotentOutcome {
  return {
    kind: "success",
    bytes: pack(
      {
        header: [...filterHeaders(response.header, mayShare)],
        trailer: [...filterHeaders(response.trailer, mayShare)],
      },
      toBinary(response.method.output, response.message),
    ),
  };
}

/** The outcome that an error is; undefined when it may pass. */
export function failureOutcome(
  error: unknown,
  request: UnaryRequest,
  mayShare: HeaderFilter,
): IdempotentOutcome | undefined {
  const failure = toFailure(error, request);
  if (transient.has(failure.code)) {
    return undefined;
  }
  const status = create(StatusSchema, {
    code: failure.code,
    message: failure.rawMessage,
    details: failure.details.map(toAny),
  });
  return {
    kind: "failure",
    bytes: pack(
      { header: [...filterHeaders(failure.metadata, mayShare)], trailer: [] },
      toBinary(StatusSchema, status),
    ),
  };
}

/** What repetitions are told of an error. Whoever made the call gets the error itself. */
function toFailure(error: unknown, request: UnaryRequest): ConnectError {
  if (error instanceof DomainError) {
    return domainConnectError(error.init);
  }
  if (error instanceof ConnectError) {
    return error;
  }
  const correlationId = request.contextValues.get(callContextKey)?.correlationId;
  return domainConnectError({
    code: Code.Internal,
    reason: "INTERNAL",
    message:
      correlationId === undefined
        ? "internal error"
        : `internal error; the server's log tells more under correlation id ${correlationId}`,
    ...(correlationId !== undefined && { metadata: { correlation_id: correlationId } }),
  });
}

/** The answer to a repetition. Throws the failure that the outcome is. */
export function replay({ kind, bytes }: IdempotentOutcome, request: UnaryRequest): UnaryResponse {
  const { metadata, content } = unpack(bytes);
  switch (kind) {
    case "success":
      return {
        stream: false,
        service: request.service,
        method: request.method,
        ...withOwnHeaders(request, {
          header: toHeaders(metadata.header),
          trailer: toHeaders(metadata.trailer),
        }),
        message: fromBinary(request.method.output, content),
      };
    case "failure":
      throw toError(fromBinary(StatusSchema, content), toHeaders(metadata.header));
  }
}

function toError({ code, message, details }: Status, metadata: Headers): ConnectError {
  const error = new ConnectError(message, code, metadata);
  error.details = details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return error;
}

function toHeaders(entries: Metadata["header"]): Headers {
  const headers = new Headers();
  for (const [name, value] of entries) {
    headers.append(name, value);
  }
  return headers;
}

/** The length of the metadata in 4 bytes, the metadata as JSON, the content. */
function pack(metadata: Metadata, content: Uint8Array): Uint8Array {
  const head = Buffer.from(JSON.stringify(metadata));
  const bytes = Buffer.allocUnsafeSlow(4 + head.byteLength + content.byteLength);
  bytes.writeUInt32BE(head.byteLength);
  bytes.set(head, 4);
  bytes.set(content, 4 + head.byteLength);
  return bytes;
}

function unpack(bytes: Uint8Array): { metadata: Metadata; content: Uint8Array } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 4 + buffer.readUInt32BE();
  return {
    // Only `pack` has written it.
    metadata: JSON.parse(buffer.toString("utf8", 4, start)) as Metadata,
    // A copy: fields of type `bytes` would be views of what every caller gets.
    content: Uint8Array.from(buffer.subarray(start)),
  };
}
