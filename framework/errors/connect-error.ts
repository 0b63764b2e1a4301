import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import type { Logger } from "../logging.ts";
import { DomainError, type DomainErrorInit } from "./domain-error.ts";

/** The `google.rpc.ErrorInfo.domain` of every error that is ours. */
export const errorDomain = "toolplane";

/** What is known about the call that failed. */
export interface FailedCall {
  readonly correlationId: string;
  readonly logger: Logger;
  /** The call's signal: what fails because of it is reported with its reason. */
  readonly signal?: AbortSignal;
}

/**
 * Says in the terms of the wire what went wrong in a handler. This is the only place that does.
 *
 * - A `DomainError` is sent as it is, its cause is logged.
 * - A `ConnectError` of a backend is passed on untouched; any other one gets an `ErrorInfo` when it has none.
 * - Whatever was thrown because the call was aborted becomes the reason of the abort.
 * - Everything else is INTERNAL: it is logged, and the caller is told nothing but the correlation id.
 */
export function toConnectError(error: unknown, call: FailedCall): ConnectError {
  if (error instanceof DomainError) {
    if (error.init.cause !== undefined) {
      call.logger.warn({ err: error.init.cause, reason: error.init.reason }, error.message);
    }
    return domainConnectError(error.init);
  }
  if (error instanceof ConnectError) {
    return error.isWireError ? error : withErrorInfo(error);
  }
  if (call.signal?.aborted && isAbort(error)) {
    return abortReason(call.signal);
  }
  return internalError(error, call);
}

/** The error that an aborted signal stands for. */
export function abortReason(signal: AbortSignal): ConnectError {
  return signal.reason instanceof ConnectError
    ? withErrorInfo(signal.reason)
    : withErrorInfo(
        new ConnectError("the call was cancelled", Code.Canceled, undefined, undefined, signal.reason),
      );
}

/** INTERNAL: logged with its cause; the caller gets the correlation id to ask about. */
export function internalError(cause: unknown, { correlationId, logger }: FailedCall): ConnectError {
  logger.error({ err: cause }, "internal error");
  return domainConnectError({
    code: Code.Internal,
    reason: "INTERNAL",
    message: `internal error; the server's log tells more under correlation id ${correlationId}`,
    metadata: { correlation_id: correlationId },
  });
}

/** A domain error in the terms of the wire. */
export function domainConnectError(init: DomainErrorInit): ConnectError {
  const error = new ConnectError(init.message, init.code, init.headers);
  addDetail(error, ErrorInfoSchema, {
    reason: init.reason,
    domain: errorDomain,
    metadata: { ...init.metadata },
  });
  // What is wrong with a request as a whole, the message says.
  const fields = init.fields?.filter(({ field }) => field !== "") ?? [];
  if (fields.length > 0) {
    addDetail(error, BadRequestSchema, {
      fieldViolations: fields.map(({ field, description, reason }) => ({
        field,
        description,
        reason: reason ?? "",
      })),
    });
  }
  if (init.resource !== undefined) {
    addDetail(error, ResourceInfoSchema, {
      resourceType: init.resource.type,
      resourceName: init.resource.name,
      description: init.message,
    });
  }
  if (init.preconditions !== undefined) {
    addDetail(error, PreconditionFailureSchema, {
      violations: init.preconditions.map((violation) => ({ ...violation })),
    });
  }
  if (init.retryAfterMs !== undefined) {
    addDetail(error, RetryInfoSchema, {
      retryDelay: durationFromMs(Math.max(0, Math.ceil(init.retryAfterMs))),
    });
  }
  if (init.quotas !== undefined) {
    addDetail(error, QuotaFailureSchema, { violations: init.quotas.map((violation) => ({ ...violation })) });
  }
  return error;
}

/** Adds an `ErrorInfo` whose reason is the code's name, unless the error has one. Changes the error. */
export function withErrorInfo(error: ConnectError, reason?: string): ConnectError {
  const present = error.details.some(
    (detail) => ("desc" in detail ? detail.desc.typeName : detail.type) === ErrorInfoSchema.typeName,
  );
  if (!present) {
    addDetail(error, ErrorInfoSchema, {
      reason: reason ?? codeToString(error.code).toUpperCase(),
      domain: errorDomain,
    });
  }
  return error;
}

/** Adds a detail. Changes the error. */
export function addDetail<Desc extends DescMessage>(
  error: ConnectError,
  desc: Desc,
  value: MessageInitShape<Desc>,
): void {
  error.details.push({ desc, value });
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError");
}
