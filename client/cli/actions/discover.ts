import { randomUUID } from "node:crypto";
import { create, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import {
  ListToolsResponseSchema,
  type RegisterServiceRequestSchema,
  ToolView,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Lifetime, type Service, ServiceSchema } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { NodeToolplane } from "../../node.ts";
import { toDuration } from "../../tool-calls.ts";
import type { SourceOptions } from "../commands/registration.ts";
import type { Context } from "../context.ts";
import { ExitCode } from "../exit-code.ts";
import {
  normaliseAddress,
  parseHeader,
  parseProtocol,
  readSource,
  withImpliedManual,
} from "../input/registration.ts";
import { count } from "../output/format.ts";
import { renderProblems } from "../output/service.ts";
import { withSpinner } from "../output/spinner.ts";
import { renderTools } from "../output/tools.ts";

/** Where servers that are only looked at are registered, so that they never mix with real ones. */
const ENVIRONMENT = "discover";

/** How long such a registration lasts when this command is killed before it can remove it, in milliseconds. */
const LEASE_MS = 15_000;

/** How long removing it may take, in milliseconds; it is done even when the command was interrupted. */
const FORGET_TIMEOUT_MS = 2_000;

/**
 * Shows what a server offers. The registry has the readers for every kind of source, so the server is registered for as
 * long as that takes, under a lease, in an environment of its own, and removed again.
 */
export async function discover(
  context: Context,
  address: string,
  given: SourceOptions,
): Promise<number | undefined> {
  const endpoint = normaliseAddress(address);
  const options = withImpliedManual(endpoint, given);
  const source = await readSource(options, context.io);
  const id = `discover-${randomUUID()}`;
  const request = {
    service: {
      name: serviceName(endpoint),
      environment: ENVIRONMENT,
      // A version of its own, so that two looks at the same server do not share a service.
      version: id,
      source,
      headers: (options.header ?? []).map(parseHeader),
      healthCheck: { kind: { case: "none" as const, value: {} } },
    },
    instance: {
      id,
      endpoint,
      protocol: parseProtocol(options.protocol, source),
      lifetime: Lifetime.LEASED,
      leaseTtl: toDuration(LEASE_MS),
    },
  };
  const toolplane = await context.connect();
  const found = await withSpinner(context, `Asking ${endpoint} what it offers`, () =>
    look(toolplane, request, context.io.signal),
  );
  await show(context, endpoint, found);
  return found.tools.length === 0 ? ExitCode.failure : undefined;
}

interface Found {
  readonly service: Service;
  readonly tools: readonly Tool[];
}

async function look(
  { registry }: NodeToolplane,
  request: MessageInitShape<typeof RegisterServiceRequestSchema> & { instance: { id: string } },
  signal: AbortSignal,
): Promise<Found> {
  try {
    const { service = create(ServiceSchema) } = await registry.registerService(request, { signal });
    const { name, environment, version } = service;
    const filter = { service: name, environment, version };
    const { tools } = await registry.listTools({ filter, view: ToolView.FULL, pageSize: 1000 }, { signal });
    return { service, tools };
  } finally {
    await registry
      .deregisterService(
        { target: { case: "instanceId", value: request.instance.id } },
        { timeoutMs: FORGET_TIMEOUT_MS },
      )
      // Not there, or not reachable any more: the lease does the same.
      .catch(() => undefined);
  }
}

async function show(context: Context, endpoint: string, { service, tools }: Found): Promise<void> {
  const { paint } = context;
  if (context.json) {
    const { problems } = toJson(ServiceSchema, service, { alwaysEmitImplicit: true }) as { problems: [] };
    const list = create(ListToolsResponseSchema, { tools: [...tools], totalSize: service.toolCount });
    const { tools: listed = [] } = toJson(ListToolsResponseSchema, list, { alwaysEmitImplicit: true }) as {
      tools: [];
    };
    return await context.printJson({ endpoint, tools: listed, problems });
  }
  const mark = tools.length === 0 ? paint.red("✗") : paint.green("✓");
  await context.print(`${mark} ${paint.bold(endpoint)} offers ${count(service.toolCount, "tool")}`);
  if (service.problems.length > 0) await context.print(`\n${renderProblems(context, service.problems)}`);
  if (tools.length === 0) return;
  await context.print(`\n${renderTools(context, tools)}`);
  if (tools.length < service.toolCount) {
    await context.print(paint.dim(`… ${count(service.toolCount - tools.length, "more tool")}`));
  }
  await context.note(
    context.paintErr.dim(
      `\nNothing was kept. Keep it: toolplane register <name> ${endpoint} (with the same options)`,
    ),
  );
}

/** A name that the registry accepts, made of the host and port. */
function serviceName(endpoint: string): string {
  const host = endpoint.replace(/^[a-z]+:\/\//i, "").replace(/[/?#].*$/, "");
  return (
    host
      .replaceAll(/[^a-zA-Z0-9_-]+/g, "-")
      .replaceAll(/^-+|-+$/g, "")
      .slice(0, 63) || "server"
  );
}
