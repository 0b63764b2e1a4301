import { isFieldError } from "@bufbuild/protobuf/reflect";
import { Code, type ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { BadRequestSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { addDetail, withErrorInfo } from "./connect-error.ts";

/** The longest part of a caller's own words that is sent back, in characters. */
const MAX_ECHOED = 60;

/** What Connect says when it cannot take a request, and how we say it. Connect tells its errors apart only by their texts. */
const wordings: readonly (readonly [theirs: RegExp, reason: string, ours: (...parts: string[]) => string])[] =
  [
    [
      /^message size (\d+) is larger than configured readMaxBytes (\d+)$/,
      "MESSAGE_TOO_LARGE",
      (size, limit) => `the message has ${size} bytes; this server takes at most ${limit}`,
    ],
    [
      /^message size is larger than configured readMaxBytes (\d+)$/,
      "MESSAGE_TOO_LARGE",
      (limit) => `the message has more than the ${limit} bytes that this server takes`,
    ],
    [
      /^message is larger than configured readMaxBytes (\d+) after decompression$/,
      "MESSAGE_TOO_LARGE",
      (limit) => `the message has, decompressed, more than the ${limit} bytes that this server takes`,
    ],
    [
      /^unknown compression "(.*)": supported encodings are (.*)$/s,
      "UNSUPPORTED_COMPRESSION",
      (given = "", known = "") =>
        `the compression "${echo(given)}" is not supported; use ${known.split(",").join(" or ")}, or none`,
    ],
    [
      /^protocol error: invalid (grpc|connect) timeout value: (.*)$/s,
      "INVALID_TIMEOUT",
      (protocol, given = "") =>
        protocol === "grpc"
          ? `grpc-timeout must be up to 8 digits and one of the units H, M, S, m, u, n, but is "${echo(given)}"`
          : `connect-timeout-ms must be up to 10 digits, but is "${echo(given)}"`,
    ],
    [
      /^connect-protocol-version must be "(.*)": got "(.*)"$/s,
      "UNSUPPORTED_PROTOCOL_VERSION",
      (known, given = "") => `connect-protocol-version must be "${known}", but is "${echo(given)}"`,
    ],
    [/^decompression failed$/, "MALFORMED_REQUEST", () => "the message cannot be decompressed"],
    [
      /^received compressed envelope, but do not know how to decompress$/,
      "MALFORMED_REQUEST",
      () => "a message is marked as compressed, but no header says how",
    ],
    [
      /^protocol error: incomplete envelope$/,
      "MALFORMED_REQUEST",
      () => "the request ends in the middle of a message",
    ],
    [
      /^protocol error: promised (\d+) bytes, received (\d+)$/,
      "MALFORMED_REQUEST",
      (promised, received) =>
        `the request was announced with ${promised} bytes, but ${received} have arrived`,
    ],
    [
      /^protocol error: missing input message for \S+ method$/,
      "MALFORMED_REQUEST",
      () => "the request has no message, but this method takes one",
    ],
    [
      /^protocol error: received extra input message for \S+ method$/,
      "MALFORMED_REQUEST",
      () => "the request has several messages, but this method takes one",
    ],
    [/^unexpected end flag$/, "MALFORMED_REQUEST", () => "a message has a flag that only answers may have"],
    [
      /^parse binary: .*maximum recursion depth of (\d+) reached$/s,
      "NESTED_TOO_DEEP",
      (depth) =>
        `messages are nested deeper than ${depth} levels; an object or list in a google.protobuf.Struct counts as two`,
    ],
    [/^parse binary: (.*)$/s, "MALFORMED_REQUEST", (why) => `the message is not valid Protobuf: ${why}`],
  ];

/**
 * Makes a failure to receive a message the caller's, in our words, and says which field is concerned where that is known.
 * Connect calls malformed Protobuf "internal".
 *
 * The error is changed in place: for unary calls Connect parses before any interceptor runs, so that there is no
 * other way to reach it.
 */
export function explainReceiveFailure(error: ConnectError): void {
  const code = error.code === Code.Internal ? Code.InvalidArgument : error.code;
  const { message, reason } = inOurWords(error.rawMessage, code);
  Object.assign(error, { code, rawMessage: message, message: `[${codeToString(code)}] ${message}` });
  withErrorInfo(error, reason);
  const field = code === Code.InvalidArgument ? fieldOf(error.cause) : undefined;
  if (field !== undefined) {
    addDetail(error, BadRequestSchema, {
      fieldViolations: [{ field, description: message, reason: "MALFORMED" }],
    });
  }
}

function inOurWords(text: string, code: Code): { message: string; reason: string | undefined } {
  for (const [theirs, reason, ours] of wordings) {
    const found = theirs.exec(text);
    if (found !== null) {
      return { message: ours(...found.slice(1)), reason };
    }
  }
  return { message: text, reason: code === Code.InvalidArgument ? "MALFORMED_REQUEST" : undefined };
}

function echo(given: string): string {
  return given.length > MAX_ECHOED ? `${given.slice(0, MAX_ECHOED)}…` : given;
}

/** The name of the innermost field that could not be parsed, where protobuf-es tells. */
function fieldOf(error: unknown): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (isFieldError(cause)) {
      return cause.field().name;
    }
  }
  return undefined;
}
