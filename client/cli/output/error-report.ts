import { Code, type ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import type { DomainError } from "@toolplane/framework";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { ExitCode, exitCodeOf } from "../exit-code.ts";
import { formatDuration } from "./format.ts";
import { oneLine, printable } from "./text-width.ts";

/** An error in the words of the command line. */
export interface ErrorReport {
  readonly exitCode: number;
  /** The code in lower case, such as `not_found`. */
  readonly code: string;
  /** A stable reason in UPPER_SNAKE_CASE, where the server gave one. */
  readonly reason?: string;
  readonly message: string;
  /** The fields that are wrong, or what has to be changed before it can work. */
  readonly violations: readonly Violation[];
  /** Further facts. */
  readonly notes: readonly string[];
  /** What to try next. */
  readonly hints: readonly string[];
  /** Finds the request in the server's logs. */
  readonly correlationId?: string;
}

/** One thing that is wrong, and what would be right. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** Puts an error of an RPC, with all that its details say, into words. */
export function describeError(error: ConnectError, url: string): ErrorReport {
  const exitCode = exitCodeOf(error.code);
  const cause = connectionProblem(error);
  if (cause !== undefined) return unreachable(url, cause);
  const infos = error.findDetails(ErrorInfoSchema);
  // A backend's own details come first; the server adds where they come from.
  const ours = infos.find(({ domain }) => domain === "toolplane");
  const fromBackend = ours?.reason === "BACKEND_ERROR";
  const reason = (fromBackend ? infos[0] : ours)?.reason;
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
    message: saysOnlyFields(error.rawMessage, fields, fromBackend)
      ? fieldsHeadline(fields)
      : sentence(error.rawMessage, error.code),
    violations: [...fields.map(toViolation), ...conditions.map(toViolation)],
    notes: fromBackend ? [origin(ours?.metadata ?? {}, error.code, reason)] : [],
    hints: [
      ...error
        .findDetails(RetryInfoSchema)
        .map(({ retryDelay }) => `Try again in ${formatDuration(retryDelay) || "a moment"}.`),
      ...error
        .findDetails(HelpSchema)
        .flatMap(({ links }) => links.map((link) => printable(`${link.description}: ${link.url}`))),
      ...advice(error),
      ...(isOurFault(error.code) && correlationId && !error.rawMessage.includes(correlationId)
        ? [`The server's log has more under the correlation id ${printable(correlationId)}.`]
        : []),
    ],
    ...(correlationId && { correlationId }),
  };
}

/**
 * Puts an error into words that a server in this process has thrown while it started. Whatever has to be changed in its
 * configuration, the exit code is the same.
 */
export function describeDomainError({ init }: DomainError): ErrorReport {
  const { code, reason, message, fields = [] } = init;
  const isMistake = init.preconditions?.some(({ type }) => type === "CONFIGURATION") ?? false;
  // Where the message says all there is to say, it is said once.
  const preconditions = init.preconditions?.filter(({ description }) => description !== message) ?? [];
  return {
    exitCode: isMistake ? ExitCode.invalidArguments : exitCodeOf(code),
    code: codeToString(code),
    reason,
    message: fields.length > 0 ? "The configuration is not valid" : sentence(message, code),
    violations: [...fields.map(toViolation), ...preconditions.map(toViolation)],
    notes: [],
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
    violations: [],
    notes: [],
    hints: [
      "Is it running? Start it: npx toolplane serve",
      "Is it elsewhere? Say where: --url or TOOLPLANE_URL",
    ],
  };
}

/** What fields that are wrong have in common; each of them is shown below. */
function fieldsHeadline(fields: readonly { field: string }[]): string {
  const areArguments = fields.every(({ field }) => /^(call\.)?argument/.test(field));
  if (areArguments) return "The arguments are not valid";
  return fields.every(({ field }) => INPUT.test(field))
    ? "The input is not valid"
    : "The request is not valid";
}

/** Whether the message has no more to say than the fields; what a backend writes into it may be its own words. */
function saysOnlyFields(
  message: string,
  fields: readonly { description: string }[],
  fromBackend: boolean,
): boolean {
  if (fields.length === 0) return false;
  return !fromBackend || message === "" || fields.every(({ description }) => message.includes(description));
}

/** Which service and instance an error comes from, and the code and reason that it gave. */
function origin(
  { service, version, instance_id }: Readonly<Record<string, string>>,
  code: Code,
  reason: string | undefined,
): string {
  const from = ["From", service, version, instance_id && `(instance ${instance_id})`]
    .filter(Boolean)
    .join(" ");
  const given = [codeToString(code), reason === "BACKEND_ERROR" ? "" : reason].filter(Boolean).join(", ");
  return oneLine(`${from}: ${given}`);
}

function advice(error: ConnectError): string[] {
  switch (error.code) {
    case Code.NotFound:
      return error
        .findDetails(ResourceInfoSchema)
        .flatMap(({ resourceType }) => LOOK_AROUND[resourceType.toLowerCase()] ?? []);
    case Code.Unauthenticated:
      return ["Name a token: --token or TOOLPLANE_TOKEN"];
    case Code.DeadlineExceeded:
      return ["Allow more time: --timeout 2m"];
    case Code.Unimplemented:
      return error.findDetails(ErrorInfoSchema).length > 0
        ? []
        : ["Is this a Toolplane server, and as new as this command? See: toolplane version"];
    default:
      return [];
  }
}

/** Where to look for a thing that does not exist. */
const LOOK_AROUND: Readonly<Record<string, string>> = {
  service: "See what is registered: toolplane services",
  tool: "Find tools by words: toolplane tools search <words>",
  workflow: "See which are kept: toolplane workflow list",
  agent: "See which are kept: toolplane agent list",
  run: "See which there are: toolplane run list",
  "api key": "See which keys there are: toolplane keys list --all",
};

function isOurFault(code: Code): boolean {
  return code === Code.Internal || code === Code.Unknown || code === Code.DataLoss;
}

function toViolation(detail: { description: string } & ({ field: string } | { subject: string })): Violation {
  return {
    field: oneLine("field" in detail ? asWritten(detail.field) : detail.subject),
    description: oneLine(detail.description),
  };
}

/** The input of a workflow, as the server names its fields. */
const INPUT = /^source\.workflow\.input(\.|$)/;

/** A field of a call's arguments, or of a workflow's input, as the user has written it. */
function asWritten(field: string): string {
  if (field === "source.workflow.input") return "input";
  return field.replace(INPUT, "").replace(/^(call\.)?(arguments\.?|argument_stream(?=\[))/, "");
}

function sentence(message: string, code: Code): string {
  const text = printable(message) || codeToString(code).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
