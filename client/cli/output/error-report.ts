import { Code, type ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
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
export function describeError(error: ConnectError, url: string, exitCode: number): ErrorReport {
  const cause = connectionProblem(error);
  if (cause !== undefined) return unreachable(url, cause, exitCode);
  const info = error.findDetails(ErrorInfoSchema)[0];
  const correlationId = error.metadata.get("x-correlation-id") ?? undefined;
  const violations = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  const conditions = error.findDetails(PreconditionFailureSchema).flatMap((detail) => detail.violations);
  const quotas = error.findDetails(QuotaFailureSchema).flatMap((detail) => detail.violations);
  const isInternal =
    error.code === Code.Internal || error.code === Code.Unknown || error.code === Code.DataLoss;
  return {
    exitCode,
    code: codeName(error.code),
    ...(info?.reason && { reason: info.reason }),
    message: headline(error, violations),
    lines: [
      ...aligned(violations.map(({ field, description }) => [field || "request", description])),
      ...aligned(conditions.map(({ subject, description }) => [subject, description])),
      ...aligned(quotas.map(({ subject, description }) => [subject, description])),
      ...origin(info?.metadata ?? {}),
    ],
    hints: [
      ...error
        .findDetails(RetryInfoSchema)
        .map(({ retryDelay }) => `Try again in ${formatDuration(retryDelay) || "a moment"}.`),
      ...error
        .findDetails(HelpSchema)
        .flatMap(({ links }) => links.map((link) => printable(`${link.description}: ${link.url}`))),
      ...advice(error),
      ...(isInternal && correlationId !== undefined
        ? [`The server's log has more under the correlation id ${printable(correlationId)}.`]
        : []),
    ],
    ...(correlationId !== undefined && { correlationId }),
  };
}

/** `not_found`, as the Connect protocol writes codes. */
export function codeName(code: Code): string {
  return (Code[code] ?? "unknown").replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
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

function unreachable(url: string, cause: string, exitCode: number): ErrorReport {
  return {
    exitCode,
    code: "unavailable",
    reason: "SERVER_UNREACHABLE",
    message: `Cannot reach the Toolplane server at ${url}: ${cause}`,
    lines: [],
    hints: [
      "Is it running? Start it: npx toolplane serve",
      "Is it elsewhere? Say where: --url or TOOLPLANE_URL",
    ],
  };
}

/** The server's message; where every part of it is shown as a field anyway, what they have in common. */
function headline(error: ConnectError, violations: readonly { field: string }[]): string {
  if (violations.length === 0) return capitalised(printable(error.rawMessage)) || codeName(error.code);
  if (violations.every(({ field }) => /^(call\.)?argument/.test(field))) return "The arguments are not valid";
  return "The request is not valid";
}

/** Which service and instance an error comes from. */
function origin(metadata: Readonly<Record<string, string>>): string[] {
  const { service, instance, instance_id: instanceId = instance } = metadata;
  if (!service) return [];
  return [printable(`From service ${service}${instanceId ? `, instance ${instanceId}` : ""}`)];
}

function advice(error: ConnectError): string[] {
  switch (error.code) {
    case Code.Unauthenticated:
      return ["Name a token: --token or TOOLPLANE_TOKEN"];
    case Code.DeadlineExceeded:
      return ["Allow more time: --timeout 2m"];
    case Code.Unimplemented:
      return error.findDetails(ErrorInfoSchema).length === 0
        ? ["Is this a Toolplane server, and as new as this command? See: toolplane version"]
        : [];
    default:
      return [];
  }
}

function aligned(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(0, ...rows.map(([name]) => textWidth(name)));
  return rows.map(([name, text]) => printable(`${name.padEnd(width)}  ${text}`));
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
