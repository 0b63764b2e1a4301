import { Code, type ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import type { DomainError } from "@toolplane/framework";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { exitCodeOf } from "../exit-code.ts";
import { formatDuration } from "./format.ts";
import { printable, textWidth } from "./text-width.ts";

/** An error in the words of the command line. */
export interface ErrorReport {
  readonly exitCode: number;
  /** The code in lower case, such as `not_found`. */
  readonly code: string;
  /** A stable reason in UPPER_SNAKE_CASE, where the server gave one. */
  readonly reason?: string;
  readonly message: string;
  /** Facts that belong to the message, such as the fields that are wrong. */
  readonly lines: readonly string[];
  /** What to try next. */
  readonly hints: readonly string[];
  /** Finds the request in the server's logs. */
  readonly correlationId?: string;
}

/** Puts an error of an RPC, with all that its details say, into words. */
export function describeError(error: ConnectError, url: string): ErrorReport {
  const exitCode = exitCodeOf(error.code);
  const cause = connectionProblem(error);
  if (cause !== undefined) return unreachable(url, cause);
  const infos = error.findDetails(ErrorInfoSchema);
  // A backend's own details come first; the server adds where they come from.
  const ours = infos.find(({ domain }) => domain === "toolplane");
  const reason = (ours?.reason === "BACKEND_ERROR" ? infos[0] : ours)?.reason;
  const correlationId = error.metadata.get("x-correlation-id") ?? ours?.metadata["correlation_id"];
  const fields = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  const conditions = [
    ...error.findDetails(PreconditionFailureSchema).flatMap(({ violations }) => violations),
    ...error.findDetails(QuotaFailureSchema).flatMap(({ violations }) => violations),
  ];
  return {
    exitCode,
    code: codeToString(error.code),
    ...(reason && { reason }),
    message: fields.length > 0 ? fieldsHeadline(fields) : sentence(error.rawMessage, error.code),
    lines: [
      ...aligned(fields.map(({ field, description }) => [field, description])),
      ...aligned(conditions.map(({ subject, description }) => [subject, description])),
      ...(ours?.reason === "BACKEND_ERROR" ? [origin(ours.metadata)] : []),
    ],
    hints: [
      ...error
        .findDetails(RetryInfoSchema)
        .map(({ retryDelay }) => `Try again in ${formatDuration(retryDelay) || "a moment"}.`),
      ...error
        .findDetails(HelpSchema)
        .flatMap(({ links }) => links.map((link) => printable(`${link.description}: ${link.url}`))),
      ...advice(error, infos.length > 0),
      ...(isOurFault(error.code) && correlationId && !error.rawMessage.includes(correlationId)
        ? [`The server's log has more under the correlation id ${printable(correlationId)}.`]
        : []),
    ],
    ...(correlationId && { correlationId }),
  };
}

/** Puts an error into words that a server in this process has thrown while it started. */
export function describeDomainError({ init }: DomainError): ErrorReport {
  const { code, reason, message, fields = [], preconditions = [] } = init;
  return {
    exitCode: exitCodeOf(code),
    code: codeToString(code),
    reason,
    message: fields.length > 0 ? "The configuration is not valid" : sentence(message, code),
    lines: [
      ...aligned(fields.map(({ field, description }) => [field, description])),
      ...aligned(preconditions.map(({ subject, description }) => [subject, description])),
    ],
    hints: [],
  };
}

/** Why the server could not even be asked, or undefined when the error comes from a server. */
function connectionProblem(error: ConnectError): string | undefined {
  for (let cause: unknown = error.cause; cause instanceof Error; cause = cause.cause) {
    const code = "code" in cause ? cause.code : undefined;
    switch (code) {
      case "ECONNREFUSED":
        return "the connection was refused";
      case "ENOTFOUND":
      case "EAI_AGAIN":
        return "the host name is not known";
      case "ETIMEDOUT":
      case "EHOSTUNREACH":
      case "ENETUNREACH":
        return "the host does not answer";
      case "ECONNRESET":
      case "EPIPE":
        return "the connection was lost";
      case "HPE_INVALID_CONSTANT":
        return "what listens there does not speak HTTP";
      case "DEPTH_ZERO_SELF_SIGNED_CERT":
      case "SELF_SIGNED_CERT_IN_CHAIN":
      case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
      case "CERT_HAS_EXPIRED":
      case "ERR_TLS_CERT_ALTNAME_INVALID":
        return `its certificate is not trusted: ${cause.message}`;
    }
  }
  return undefined;
}

function unreachable(url: string, cause: string): ErrorReport {
  return {
    exitCode: exitCodeOf(Code.Unavailable),
    code: codeToString(Code.Unavailable),
    reason: "SERVER_UNREACHABLE",
    message: `Cannot reach the Toolplane server at ${url}: ${cause}`,
    lines: [],
    hints: [
      "Is it running? Start it: npx toolplane serve",
      "Is it elsewhere? Say where: --url or TOOLPLANE_URL",
    ],
  };
}

/** What fields that are wrong have in common; each of them is shown below. */
function fieldsHeadline(fields: readonly { field: string }[]): string {
  const areArguments = fields.every(({ field }) => /^(call\.)?argument/.test(field));
  return areArguments ? "The arguments are not valid" : "The request is not valid";
}

/** Which service and instance an error comes from. */
function origin({ service, version, instance_id }: Readonly<Record<string, string>>): string {
  return printable(
    ["From", service, version, instance_id && `(instance ${instance_id})`].filter(Boolean).join(" "),
  );
}

function advice(error: ConnectError, saysWhy: boolean): string[] {
  switch (error.code) {
    case Code.Unauthenticated:
      return ["Name a token: --token or TOOLPLANE_TOKEN"];
    case Code.DeadlineExceeded:
      return ["Allow more time: --timeout 2m"];
    case Code.Unimplemented:
      return saysWhy
        ? []
        : ["Is this a Toolplane server, and as new as this command? See: toolplane version"];
    default:
      return [];
  }
}

function isOurFault(code: Code): boolean {
  return code === Code.Internal || code === Code.Unknown || code === Code.DataLoss;
}

function aligned(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(0, ...rows.map(([name]) => textWidth(name)));
  return rows.map(([name, text]) => printable(width === 0 ? text : `${name.padEnd(width)}  ${text}`));
}

function sentence(message: string, code: Code): string {
  const text = printable(message) || codeToString(code).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
