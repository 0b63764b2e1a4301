import { setImmediate as turn } from "node:timers/promises";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Dispatcher } from "undici";
import type { Target } from "../../pool/target.ts";
import { createJsonSchemaCheck } from "../../schema/index.ts";
import type { DiscoveredTool, Discovery, SourceProblem } from "../source.ts";
import { fillTemplate, type SecretLookup, secretsOf } from "./credentials.ts";
import { isObject, manualInvalid, readManual, type UtcpTool, writeManual } from "./document.ts";
import { ExchangeError, exchange } from "./http-exchange.ts";
import { baseOf, expandUrl, type HttpMethod, parseHttpTemplate } from "./template.ts";

const MAX_MANUAL_BYTES = 16 * 1024 * 1024;
/** Compiling schemas of a large manual must not hold up other requests: let them in after so many. */
const TOOLS_PER_TURN = 20;

export interface UtcpManualDiscovery {
  /** The name of the service, by which UTCP knows the manual. */
  readonly service: string;
  readonly manual:
    | { readonly kind: "url"; readonly url: string }
    | { readonly kind: "inline"; readonly json: JsonValue };
  /** The instance that will be called. Its headers are sent only to its own origin. */
  readonly target?: Target | undefined;
  readonly dispatcher: Dispatcher;
  readonly signal: AbortSignal;
  /** Fills variables of the manual. Unset: every variable is a problem of its tool. */
  readonly secrets?: SecretLookup | undefined;
}

/**
 * Learns tools from a UTCP manual. A tool that cannot be called is listed with its problem and harms no other. Throws a
 * DomainError `MANUAL_UNREACHABLE` or `MANUAL_INVALID` when there is no manual to read.
 */
export async function discoverFromUtcpManual(options: UtcpManualDiscovery): Promise<Discovery> {
  const { manual: source, target, signal } = options;
  const manual = readManual(source.kind === "inline" ? source.json : await fetchManual(source.url, options));
  const base = target ? baseOf(target.endpoint) : source.kind === "url" ? source.url : undefined;
  const tools: DiscoveredTool[] = [];
  const problems: SourceProblem[] = [...manual.problems];
  for (const [index, entry] of manual.tools.entries()) {
    if (index % TOOLS_PER_TURN === TOOLS_PER_TURN - 1) {
      await turn();
      signal.throwIfAborted();
    }
    const output = readSchema(entry.outputs, "outputs");
    if (output.problem) {
      // Answers are passed on as they come, so the tool stays callable.
      problems.push({ ...output.problem, tool: entry.name });
    }
    const tool = describe(entry, output.schema, base, options);
    if (tool.problem) {
      problems.push(tool.problem);
    }
    tools.push(tool);
  }
  const callable = tools.some(({ problem }) => problem === undefined);
  const definition = callable ? ({ kind: "utcp", bytes: writeManual(manual) } as const) : undefined;
  return { tools, problems, definition };
}

async function fetchManual(
  address: string,
  { target, dispatcher, signal }: UtcpManualDiscovery,
): Promise<JsonValue> {
  const url = URL.parse(address);
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw manualInvalid("url", `"${address}" is not an http or https address`);
  }
  const registered = headersFor(url, target);
  const answer = await exchange({
    dispatcher,
    method: "GET",
    url,
    headers: { ...Object.fromEntries(registered), accept: "application/json" },
    signal,
    maxBytes: MAX_MANUAL_BYTES,
    crossOriginRedirects: "bare",
  }).catch((error: unknown) => {
    if (error instanceof ExchangeError && error.failure === "TOO_LARGE") {
      throw manualInvalid("", `it is larger than ${MAX_MANUAL_BYTES} bytes`, error);
    }
    const detail = signal.aborted
      ? `${url.origin} did not answer in time`
      : error instanceof ExchangeError || error instanceof DomainError
        ? error.message
        : ConnectError.from(error).rawMessage;
    throw unreachable(address, detail, error);
  });
  if (answer.status !== 200) {
    throw unreachable(address, `${answer.url.origin} answered with HTTP status ${answer.status}`);
  }
  const type = answer.headers.get("content-type") ?? "";
  if (/\b(html|xml)\b/i.test(type)) {
    throw manualInvalid("", `${address} answered with ${type} instead of JSON`);
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(answer.body));
  } catch (error) {
    throw manualInvalid("", `${address} answered with something that is not JSON`, error);
  }
}

/** The registration's headers may hold secrets: they are for the registered origin and no other. */
export function headersFor(url: URL, target: Target | undefined): Headers {
  return target && URL.parse(target.endpoint)?.origin === url.origin ? target.headers : new Headers();
}

function describe(
  entry: UtcpTool,
  outputSchema: JsonObject,
  base: string | undefined,
  { service, target, secrets }: UtcpManualDiscovery,
): DiscoveredTool {
  const input = readSchema(entry.inputs, "inputs");
  const template = parseHttpTemplate(entry);
  let problem = input.problem;
  let idempotency = Idempotency.UNSPECIFIED;
  if ("reason" in template) {
    problem ??= template;
  } else {
    idempotency = idempotencyOf(template.method);
    const url = URL.parse(
      expandUrl(template.url, () => "x"),
      base,
    );
    problem ??= url
      ? problemOf(() =>
          fillTemplate(template, url, headersFor(url, target), secrets && secretsOf(service, secrets)),
        )
      : { reason: "INVALID_URL", message: "tool_call_template.url: it is relative, and to nothing" };
  }
  return {
    name: entry.name,
    title: titleOf(entry.name),
    description: entry.description,
    tags: entry.tags,
    kind: ToolKind.HTTP,
    streaming: Streaming.UNARY,
    idempotency,
    sourceName: entry.name,
    inputSchema: { type: "object", ...input.schema },
    outputSchema,
    deprecated: false,
    problem: problem && { reason: problem.reason, message: problem.message, tool: entry.name },
  };
}

/** A schema that can be checked against; a broken one is replaced by one that allows everything. */
function readSchema(
  schema: JsonValue,
  field: "inputs" | "outputs",
): { schema: JsonObject; problem?: SourceProblem } {
  const broken = (message: string) => ({ schema: {}, problem: { reason: "INVALID_SCHEMA", message } });
  if (!isObject(schema)) {
    return broken(`${field}: a JSON Schema must be an object`);
  }
  if (field === "inputs" && (schema["type"] ?? "object") !== "object") {
    return broken("inputs.type: arguments are always an object");
  }
  const problem = problemOf(() => createJsonSchemaCheck(schema));
  return problem ? broken(`${field}: ${problem.message}`) : { schema };
}

function problemOf(action: () => unknown): SourceProblem | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    if (error instanceof DomainError) {
      return { reason: error.init.reason, message: error.message };
    }
    return { reason: "INVALID_SCHEMA", message: error instanceof Error ? error.message : String(error) };
  }
}

/** What HTTP promises of its methods (RFC 9110, 9.2). */
function idempotencyOf(method: HttpMethod): Idempotency {
  switch (method) {
    case "GET":
      return Idempotency.NO_SIDE_EFFECTS;
    case "PUT":
    case "DELETE":
      return Idempotency.IDEMPOTENT;
    case "POST":
    case "PATCH":
      return Idempotency.UNSPECIFIED;
  }
}

/** `weather.get_forecast` becomes `Get forecast`. */
function titleOf(name: string): string {
  const words = (name.split(".").at(-1) ?? name)
    .replaceAll(/(?<=[a-z0-9])(?=[A-Z])/g, " ")
    .split(/[\s_:/-]+/)
    .filter((word) => word !== "")
    .map((word) => (/^[A-Z0-9]+$/.test(word) ? word : word.toLowerCase()))
    .join(" ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function unreachable(address: string, detail: string, cause?: unknown): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "MANUAL_UNREACHABLE",
    message: `The UTCP manual at ${address} cannot be fetched: ${detail}`,
    metadata: { field: "url" },
    cause,
  });
}
