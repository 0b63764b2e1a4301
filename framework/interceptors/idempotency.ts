import { hash } from "node:crypto";
import { type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import { DomainError } from "../errors/domain-error.ts";
import {
  createIdempotency,
  IdempotencyError,
  type IdempotencyOptions,
  type IdempotencyStats,
} from "../policies/idempotency/idempotency.ts";
import { detachRequest } from "./detach-request.ts";
import { failureOutcome, replay, successOutcome } from "./idempotency-outcome.ts";
import { ownHeadersOf } from "./own-headers.ts";
import { canonicalBinary, requestScope } from "./request-key.ts";
import { createHeaderFilter } from "./share-response.ts";

/** Names a request; see https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/. */
export const idempotencyKeyHeader = "idempotency-key";
/** Tells a caller that its answer is that of an earlier call with the same id. */
export const replayedHeader = "x-toolplane-replayed";

export interface RequestIdOptions extends IdempotencyOptions {
  /**
   * Whether a method's request ids are heeded. Default: those of all unary methods but the ones without side effects
   * (`NO_SIDE_EFFECTS`), which may be repeated anyway.
   */
  readonly applies?: (method: UnaryRequest["method"]) => boolean;
  /** Names of request headers that separate ids, such as one that names a tenant. Default: none. */
  readonly scopeHeaders?: readonly string[];
  /**
   * Names of response headers and trailers that repetitions get besides those that describe the answer, such as `etag`.
   */
  readonly sharedHeaders?: readonly string[];
}

export interface RequestIds {
  /** For servers. */
  readonly interceptor: Interceptor;
  stats(): IdempotencyStats;
  /** Waits for work in progress, also for callers who have left: call it when the server has drained. */
  close(): Promise<void>;
}

/**
 * Lets a unary call with side effects happen once, however often a client sends it: the same request id of the same
 * principal for the same method gets the same outcome for 24 h, from every replica that shares the store.
 *
 * - The id is the header `idempotency-key`, or the message's field `request_id` (AIP-155); calls with neither pass.
 *   `x-request-id` is not an idempotency key: proxies set it, anew for each attempt or the same for many calls.
 * - The outcome is the message, the headers and trailers that describe it, or an error. Errors that pass (UNAVAILABLE,
 *   DEADLINE_EXCEEDED, CANCELED, RESOURCE_EXHAUSTED, ABORTED) are none: a repetition tries again. Repetitions are
 *   answered with `x-toolplane-replayed: true`.
 * - The same id with another message is refused: INVALID_ARGUMENT, reason REQUEST_ID_REUSED.
 * - The handler does not stop when its caller leaves or the caller's deadline passes: `context.signal` and
 *   `callContext(context)` are those of the work, which may take `workTimeoutMs`.
 * - While the store cannot be reached, calls with an id are refused with UNAVAILABLE before the handler is called.
 *
 * Place it after authentication, limits and validation. A server that was not made with `serve()` needs the request
 * gate `keepOwnHeaders` as well. Streams have no outcome that could be kept, and pass.
 */
export function createRequestIds(options: RequestIdOptions): RequestIds {
  const { scopeHeaders = [], applies = hasSideEffects, clock = systemClock } = options;
  const { workTimeoutMs = 300_000 } = options;
  const mayShare = createHeaderFilter(options.sharedHeaders);
  const idempotency = createIdempotency(options);

  const interceptor: Interceptor = (next) => async (request: UnaryRequest | StreamRequest) => {
    if (request.stream || !applies(request.method)) {
      return await next(request);
    }
    const requestId = requestIdOf(request);
    if (requestId === undefined) {
      return await next(request);
    }
    if (ownHeadersOf(request.contextValues) === undefined) {
      throw new Error("answers cannot be repeated on this server: give it the request gate keepOwnHeaders");
    }
    let own: { readonly response: UnaryResponse } | { readonly error: unknown } | undefined;
    const identity = {
      scope: requestScope(request, scopeHeaders),
      requestId,
      fingerprint: hash("sha256", canonicalBinary(request.method.input, request.message), "base64url"),
    };
    try {
      const { outcome, replayed } = await idempotency.run(
        identity,
        async (signal) => {
          const deadline = clock.now() + workTimeoutMs;
          try {
            const response = await next(detachRequest(request, signal, () => deadline));
            if (response.stream) {
              throw new ConnectError("a unary call was answered with a stream", Code.Internal);
            }
            own = { response };
            return successOutcome(response, mayShare);
          } catch (error) {
            // What breaks because the work was stopped is not how it ended.
            if (signal.aborted && !hasCode(error)) {
              throw signal.reason;
            }
            const outcome = failureOutcome(error, request, mayShare);
            if (outcome === undefined) {
              throw error;
            }
            own = { error };
            return outcome;
          }
        },
        { signal: request.signal },
      );
      if (!replayed && own !== undefined) {
        if ("error" in own) {
          throw own.error;
        }
        return own.response;
      }
      const response = replay(outcome, request);
      response.header.set(replayedHeader, "true");
      return response;
    } catch (error) {
      throw error instanceof IdempotencyError ? explain(error) : error;
    }
  };

  return { interceptor, stats: idempotency.stats, close: idempotency.close };
}

function hasCode(error: unknown): boolean {
  return error instanceof ConnectError || error instanceof DomainError;
}

function hasSideEffects({ idempotency }: UnaryRequest["method"]): boolean {
  return idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

/** The id by which a request says that it is the same as an earlier one; undefined when it does not. */
export function requestIdOf(
  request: Pick<UnaryRequest, "method" | "message" | "header">,
): string | undefined {
  const given = request.header.get(idempotencyKeyHeader);
  const fromHeader = given === null ? undefined : parseIdempotencyKey(given);
  const fromField = fieldOf(request);
  if (fromHeader !== undefined && fromField !== undefined && fromHeader !== fromField) {
    throw malformed(`the header ${idempotencyKeyHeader} and the field request_id name different ids`);
  }
  return fromHeader ?? fromField;
}

const MAX_ID_LENGTH = 255;

/** A string as the draft wants it, in quotes (RFC 9651), or without, as everyone writes it. */
function parseIdempotencyKey(value: string): string {
  const quoted = /^"((?:[^"\\]|\\["\\])*)"$/.exec(value)?.[1]?.replaceAll(/\\(["\\])/g, "$1");
  const key = quoted ?? value;
  const plain = quoted !== undefined || !/["\\,;\s]/.test(value);
  if (!plain || key === "" || key.length > MAX_ID_LENGTH || !/^[\x20-\x7e]*$/.test(key)) {
    throw malformed(
      `the header ${idempotencyKeyHeader} must be one string of 1 to ${MAX_ID_LENGTH} printable ASCII characters, such as a UUID`,
    );
  }
  return key;
}

const idFields = new WeakMap<DescMessage, DescMessage["fields"][number] | null>();

function fieldOf({ method, message }: Pick<UnaryRequest, "method" | "message">): string | undefined {
  let field = idFields.get(method.input);
  if (field === undefined) {
    const found = method.input.fields.find(({ name }) => name === "request_id");
    const isText = found?.fieldKind === "scalar" && found.scalar === ScalarType.STRING;
    field = isText ? found : null;
    idFields.set(method.input, field);
  }
  const value: unknown = field === null ? undefined : reflect(method.input, message).get(field);
  if (typeof value !== "string" || value === "") {
    return undefined;
  }
  if (value.length > MAX_ID_LENGTH) {
    throw malformed(`request_id must have at most ${MAX_ID_LENGTH} characters`);
  }
  return value;
}

function malformed(message: string): ConnectError {
  return domainConnectError({ code: Code.InvalidArgument, reason: "INVALID_REQUEST_ID", message });
}

/** What callers are told when the policy refuses. */
function explain(error: IdempotencyError): ConnectError {
  switch (error.reason) {
    case "REQUEST_ID_REUSED":
      return domainConnectError({
        code: Code.InvalidArgument,
        reason: error.reason,
        message: error.message,
        fields: [
          { field: "request_id", description: "must be new for every new request", reason: error.reason },
        ],
      });
    case "OUTCOME_NOT_KEPT":
      return domainConnectError({
        code: Code.FailedPrecondition,
        reason: error.reason,
        message: error.message,
        preconditions: [
          {
            type: error.reason,
            subject: "request_id",
            description: "look up what the request has led to instead of repeating it",
          },
        ],
      });
    case "STORE_UNAVAILABLE":
    case "CLOSED":
    case "LEASE_LOST":
      return caused(
        domainConnectError({
          code: Code.Unavailable,
          reason: `IDEMPOTENCY_${error.reason}`,
          message: error.message,
          retryAfterMs: 1_000,
        }),
        error,
      );
    case "TOO_MANY_IN_FLIGHT":
      return domainConnectError({
        code: Code.ResourceExhausted,
        reason: "IDEMPOTENCY_TOO_MANY_IN_FLIGHT",
        message: error.message,
        retryAfterMs: 1_000,
      });
    case "WORK_TIMEOUT":
      return domainConnectError({
        code: Code.DeadlineExceeded,
        reason: "IDEMPOTENCY_WORK_TIMEOUT",
        message: error.message,
      });
  }
}

function caused(error: ConnectError, cause: unknown): ConnectError {
  error.cause = cause;
  return error;
}
