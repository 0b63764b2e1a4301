import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { domainErrorOf } from "../../pool/index.ts";

/** Headers and trailers that belong to one hop or to the protocol spoken on it. */
const HOP_HEADERS =
  /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|host|date|server|via|content-.*|accept.*|vary|alt-svc|set-cookie|access-control-.*|grpc-status|grpc-message|grpc-status-details-bin|grpc-encoding|grpc-accept-encoding|connect-.*|:.*)$/;

/**
 * What to tell the caller when a call failed: the backend's own error, without what belongs to the hop it came over;
 * or ours, when we did not get as far or did not take what came.
 */
export function backendError(error: unknown, method: DescMethod, maxResultBytes: number): unknown {
  if (!(error instanceof ConnectError)) {
    return error;
  }
  const known = domainErrorOf(error);
  // What failed to connect has the backend's name on it: the caller adds which instance it was.
  if (known && known.init.code !== Code.Unavailable) {
    return known;
  }
  if (error.code === Code.ResourceExhausted && !error.isWireError && /readMaxBytes/.test(error.rawMessage)) {
    return new DomainError({
      code: Code.ResourceExhausted,
      reason: "RESULT_TOO_LARGE",
      message: `${method.parent.typeName}.${method.name} sent a result of more than ${maxResultBytes} bytes`,
      metadata: { max_bytes: String(maxResultBytes) },
      cause: error,
    });
  }
  for (const name of [...error.metadata.keys()]) {
    if (HOP_HEADERS.test(name)) {
      error.metadata.delete(name);
    }
  }
  return error;
}

/** The backend answered, but not with what its descriptors promise. */
export function invalidResult(method: DescMethod, why: string, cause?: unknown): DomainError {
  return new DomainError({
    code: Code.Internal,
    reason: "INVALID_RESULT",
    message: `The result of ${method.parent.typeName}.${method.name} cannot be used: ${why}`,
    cause,
  });
}
