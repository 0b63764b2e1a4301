import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError, invalidArgument, notFound, systemClock } from "@toolplane/framework";
import { Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Dispatcher } from "undici";
import { createJsonSchemaCheck } from "../../schema/index.ts";
import type { Backend, Input, Invocation, Invoker, Output } from "../invocation.ts";
import type { Definition } from "../source.ts";
import { fillTemplate, type SecretLookup, secretsOf } from "./credentials.ts";
import { isObject, readManual, type UtcpTool } from "./document.ts";
import { ExchangeError, exchange } from "./http-exchange.ts";
import { headersFor } from "./manual.ts";
import { planRequest, type RequestPlan } from "./request.ts";
import { exchangeError, readResult, statusError } from "./response.ts";
import { baseOf, type HttpTemplate, parseHttpTemplate } from "./template.ts";

export interface UtcpBackendOptions {
  readonly pool: { readonly dispatcher: Dispatcher };
  /** A longer answer of a tool is RESOURCE_EXHAUSTED. In bytes. */
  readonly maxResultBytes: number;
  /** Fills variables of the manual. Unset: a tool that has some is FAILED_PRECONDITION. */
  readonly secrets?: SecretLookup | undefined;
  readonly clock?: Clock;
}

/** Calls tools that a UTCP manual describes with call templates of type `http`. */
export function createUtcpBackend(options: UtcpBackendOptions): Backend {
  // A manual may be large and is read once for all of its tools.
  const manuals = new WeakMap<Uint8Array, ReadonlyMap<string, UtcpTool>>();
  return {
    kind: "utcp",
    invoker(definition, sourceName) {
      let tools = manuals.get(definition.bytes);
      if (!tools) {
        tools = readDefinition(definition);
        manuals.set(definition.bytes, tools);
      }
      const tool = tools.get(sourceName);
      if (!tool) {
        throw notFound("tool", sourceName, "the UTCP manual does not hold it");
      }
      return createInvoker(tool, options);
    },
  };
}

function readDefinition(definition: Definition): ReadonlyMap<string, UtcpTool> {
  if (definition.kind !== "utcp") {
    throw unusable(
      "UNSUPPORTED_DEFINITION",
      `a definition of kind "${definition.kind}" is not a UTCP manual`,
    );
  }
  const manual = readManual(JSON.parse(new TextDecoder().decode(definition.bytes)));
  return new Map(manual.tools.map((tool) => [tool.name, tool]));
}

function createInvoker(tool: UtcpTool, options: UtcpBackendOptions): Invoker {
  const template = parseHttpTemplate(tool);
  if ("reason" in template) {
    throw unusable(template.reason, template.message);
  }
  const schema = createJsonSchemaCheck({ type: "object", ...(isObject(tool.inputs) ? tool.inputs : {}) });
  return {
    streaming: Streaming.UNARY,
    policy: { shared: undefined, attempts: undefined, timeoutMs: undefined },
    fingerprint(input) {
      const { url, query, headers, body } = fromInput(input);
      return Buffer.from(JSON.stringify([url, query, [...headers], body ?? null]));
    },
    resultOf: toOutput,
    restore: (bytes) => toOutput(JSON.parse(new TextDecoder().decode(bytes))),
    parse(json: JsonObject, path: string): Input {
      const violations = schema.check(json, path);
      if (violations.length > 0) {
        throw invalidArgument(violations);
      }
      return toInput(planRequest(template, json, path));
    },
    parseMessage(_message, path) {
      throw invalidArgument([{ field: path, description: "the tool takes JSON, not a Protobuf message" }]);
    },
    async *invoke(inputs, invocation) {
      for await (const input of inputs) {
        yield await call(template, fromInput(input), invocation, options);
        return;
      }
      throw unusable("MISSING_INPUT", "a tool that takes one message was called with none");
    },
  };
}

async function call(
  template: HttpTemplate,
  plan: RequestPlan,
  { service, target, headers, signal }: Invocation,
  { pool, maxResultBytes, secrets, clock = systemClock }: UtcpBackendOptions,
): Promise<Output> {
  signal.throwIfAborted();
  const url = new URL(plan.url, baseOf(target.endpoint));
  const registered = headersFor(url, target);
  const fixed = fillTemplate(template, url, registered, secrets && secretsOf(service, secrets));
  for (const [name, value] of [...plan.query, ...fixed.query]) {
    url.searchParams.append(name, value);
  }
  const answer = await exchange({
    dispatcher: pool.dispatcher,
    method: template.method,
    url,
    // Later ones win: what the operator registered stands above the manual, and the manual above the arguments.
    headers: {
      accept: "application/json, */*;q=0.5",
      ...Object.fromEntries(plan.headers),
      ...Object.fromEntries(fixed.headers),
      ...Object.fromEntries(headers),
      ...Object.fromEntries(registered),
    },
    body: plan.body,
    signal,
    maxBytes: maxResultBytes,
    crossOriginRedirects: "refuse",
  }).catch((error: unknown) => {
    throw error instanceof ExchangeError ? exchangeError(error.failure, error.message, error) : error;
  });
  if (answer.status < 200 || answer.status >= 300) {
    throw statusError(answer, clock);
  }
  return toOutput(readResult(answer));
}

function toOutput(result: JsonValue): Output {
  return { json: () => result, bytes: () => Buffer.from(JSON.stringify(result)) };
}

// `Input` is opaque to everyone else; only these two know that it is a plan.
function toInput(plan: RequestPlan): Input {
  return plan as unknown as Input;
}

function fromInput(input: Input): RequestPlan {
  return input as unknown as RequestPlan;
}

function unusable(reason: string, message: string): DomainError {
  return new DomainError({ code: Code.FailedPrecondition, reason, message });
}
