import { create, type JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Clock, errorDomain } from "@toolplane/framework";
import { ErrorInfoSchema, RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { toDuration } from "../../config/durations.ts";
import type { ExchangeFailure, HttpAnswer } from "./http-exchange.ts";

/** How much of a failed answer's body the error carries, in bytes. */
const MAX_EXCERPT_BYTES = 2048;
/** A longer `Retry-After` says nothing that a caller could use. */
const MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000;

/** The result of a tool: JSON as it is, text as a string, anything else as `{mime_type, data}` with base64. */
export function readResult({ status, headers, body }: HttpAnswer): JsonValue {
  if (status === 204 || body.byteLength === 0) {
    return null;
  }
  const contentType = headers.get("content-type") ?? "";
  const mimeType = contentType.split(";")[0]?.trim().toLowerCase() ?? "";
  if (/[/+]json$/.test(mimeType)) {
    return parseJson(body);
  }
  if (mimeType === "" || /^text\/|[/+](xml|yaml|javascript|x-www-form-urlencoded)$/.test(mimeType)) {
    const text = decode(body, /charset="?([^";\s]+)/i.exec(contentType)?.[1] ?? "utf-8");
    if (text !== undefined) {
      return text;
    }
  }
  return { mime_type: mimeType || "application/octet-stream", data: Buffer.from(body).toString("base64") };
}

/** Integers that a double cannot hold become strings, as they are in the JSON form of Protobuf. */
function keepDigits(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  return typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
    ? context?.source
    : value;
}

function parseJson(body: Uint8Array): JsonValue {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body), keepDigits);
  } catch (cause) {
    throw backendError(
      Code.Internal,
      "INVALID_RESULT",
      "the tool's answer is not the JSON that it says to be",
      {},
      cause,
    );
  }
}

function decode(body: Uint8Array, charset: string): string | undefined {
  try {
    return new TextDecoder(charset, { fatal: true }).decode(body);
  } catch {
    // Not text in that encoding, or an encoding that nobody knows: the caller gets the bytes.
    return undefined;
  }
}

/** The error that an answer with a status of 300 or above stands for. */
export function statusError({ status, headers, body }: HttpAnswer, clock: Clock): ConnectError {
  const excerpt = new TextDecoder().decode(body.subarray(0, MAX_EXCERPT_BYTES));
  const said = messageOf(body) ?? excerpt.trim().slice(0, 200);
  const metadata = { http_status: String(status), ...(excerpt && { body: excerpt }) };
  const message = `the tool answered with HTTP status ${status}${said ? `: ${said}` : ""}`;
  const error = backendError(codeOf(status), "HTTP_STATUS", message, metadata);
  const retryAfter = headers.get("retry-after");
  const delayMs = retryAfter === null ? undefined : delayOf(retryAfter, clock.now());
  if (retryAfter !== null && delayMs !== undefined) {
    error.metadata.set("retry-after", String(Math.ceil(delayMs / 1000)));
    error.details.push({
      desc: RetryInfoSchema,
      value: create(RetryInfoSchema, { retryDelay: toDuration(delayMs) }),
    });
  }
  return error;
}

/** The error for an exchange that brought no answer. */
export function exchangeError(failure: ExchangeFailure, message: string, cause: unknown): ConnectError {
  switch (failure) {
    case "UNREACHABLE":
      return backendError(Code.Unavailable, "BACKEND_UNREACHABLE", message, {}, cause);
    case "TOO_LARGE":
      return backendError(Code.ResourceExhausted, "RESULT_TOO_LARGE", message, {}, cause);
    case "REDIRECTED":
      return backendError(Code.FailedPrecondition, "REDIRECT_REFUSED", message, {}, cause);
    case "UNREADABLE":
      return backendError(Code.Internal, "INVALID_RESULT", message, {}, cause);
  }
}

function backendError(
  code: Code,
  reason: string,
  message: string,
  metadata: Readonly<Record<string, string>>,
  cause?: unknown,
): ConnectError {
  const info = create(ErrorInfoSchema, { reason, domain: errorDomain, metadata: { ...metadata } });
  return new ConnectError(message, code, undefined, [{ desc: ErrorInfoSchema, value: info }], cause);
}

/** The inverse of the mapping in google/rpc/code.proto, where several codes share a status the mildest one. */
function codeOf(status: number): Code {
  switch (status) {
    case 400:
    case 422:
      return Code.InvalidArgument;
    case 401:
    case 407:
      return Code.Unauthenticated;
    case 403:
      return Code.PermissionDenied;
    case 404:
    case 410:
      return Code.NotFound;
    case 405:
    case 501:
      return Code.Unimplemented;
    case 408:
    case 504:
      return Code.DeadlineExceeded;
    case 409:
      return Code.Aborted;
    case 412:
    case 428:
      return Code.FailedPrecondition;
    case 416:
      return Code.OutOfRange;
    case 413:
    case 429:
      return Code.ResourceExhausted;
    case 499:
      return Code.Canceled;
    case 500:
      return Code.Internal;
    case 502:
    case 503:
      return Code.Unavailable;
    default:
      return Code.Unknown;
  }
}

/** The sentence in an error document of one of the usual shapes, RFC 9457 among them. */
function messageOf(body: Uint8Array): string | undefined {
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder().decode(body));
  } catch {
    return undefined; // An HTML page or plain text: its beginning is shown instead.
  }
  const holder = field(document, "error");
  const candidates = [
    field(holder, "message"),
    holder,
    field(document, "message"),
    field(document, "detail"),
  ];
  return candidates.find((text) => typeof text === "string")?.slice(0, 200);
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null && Object.hasOwn(value, name)
    ? Reflect.get(value, name)
    : undefined;
}

/** Seconds, or a date (RFC 9110, 10.2.3). */
function delayOf(retryAfter: string, now: number): number | undefined {
  const delay = /^\d{1,9}$/.test(retryAfter.trim())
    ? Number(retryAfter) * 1000
    : Date.parse(retryAfter) - now;
  return Number.isFinite(delay) ? Math.min(Math.max(delay, 0), MAX_RETRY_AFTER_MS) : undefined;
}
