import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import {
  DeregisterServiceResponseSchema,
  RegisterServiceResponseSchema,
  type RegistryService,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import {
  HealthStatus,
  type InstanceSpecSchema,
  Lifetime,
  type Service,
  type ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { toDuration } from "../../tool-calls.ts";
import type { DeregisterOptions, RegisterOptions } from "../commands/registration.ts";
import type { Context } from "../context.ts";
import { parseDuration } from "../input/duration.ts";
import { parsePair } from "../input/pairs.ts";
import {
  normaliseAddress,
  parseHeader,
  parseHealthCheck,
  parseProtocol,
  readSource,
  withImpliedManual,
} from "../input/registration.ts";
import { count } from "../output/format.ts";
import { renderOffer } from "../output/offer.ts";
import { renderChanges } from "../output/schema-changes.ts";
import { withSpinner } from "../output/spinner.ts";
import { UsageError } from "../usage-error.ts";

export async function register(
  context: Context,
  name: string,
  address: string,
  options: RegisterOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const { signal } = context.io;
  const request = await toRequest(context, name, address, options);
  const response = await withSpinner(context, `Learning the tools of ${request.instance.endpoint}`, () =>
    registry.registerService({ ...request, requestId: randomUUID() }, { signal }),
  );
  const { service, changes } = response;
  if (context.json || service === undefined) {
    return void (await context.printMessage(RegisterServiceResponseSchema, response));
  }
  const { tools } = await registry.listTools(
    {
      filter: { service: service.name, environment: service.environment, version: service.version },
      pageSize: 1000,
    },
    { signal },
  );
  await context.print(
    renderOffer(context, await withFirstCheck(registry, service, signal), tools, "Registered"),
  );
  if (service.problems.length > 0) {
    await context.note(context.paintErr.dim(`\nOnce that is fixed: toolplane refresh ${service.name}`));
  }
  if (changes.length > 0) {
    await context.print(`\nCompared with before:\n${renderChanges(context, changes)}`);
  }
}

/** The service with the health of instances that were not checked yet, so that nobody has to ask again for it. */
async function withFirstCheck(
  registry: Client<typeof RegistryService>,
  service: Service,
  signal: AbortSignal,
): Promise<Service> {
  const { name, environment, version, problems } = service;
  const isUnchecked = service.instances.some(({ health }) => health === HealthStatus.UNKNOWN);
  // What could not be learnt from is known to have a problem, which is shown.
  if (!isUnchecked || problems.length > 0) return service;
  const { checks } = await registry.checkHealth({ filter: { name, environment, version } }, { signal });
  const byInstance = new Map(checks.map((check) => [check.instanceId, check]));
  const instances = service.instances.map((instance) => {
    const check = byInstance.get(instance.id);
    return check === undefined
      ? instance
      : { ...instance, health: check.status, healthMessage: check.message };
  });
  return { ...service, instances };
}

async function toRequest(
  context: Context,
  name: string,
  address: string,
  options: RegisterOptions,
): Promise<{
  service: MessageInitShape<typeof ServiceSpecSchema>;
  instance: MessageInitShape<typeof InstanceSpecSchema>;
}> {
  const endpoint = normaliseAddress(address);
  const source = await readSource(withImpliedManual(endpoint, options), context.io);
  const healthCheck = parseHealthCheck(options.health, options.healthInterval);
  const { lease } = options;
  return {
    service: {
      name,
      version: options.version ?? "",
      environment: options.environment ?? "",
      title: options.title ?? "",
      description: options.description ?? "",
      tags: [...(options.tag ?? [])],
      metadata: Object.fromEntries((options.metadata ?? []).map((text) => parsePair(text, "--metadata"))),
      source,
      headers: (options.header ?? []).map(parseHeader),
      ...(healthCheck && { healthCheck }),
    },
    instance: {
      id: options.instance ?? "",
      endpoint,
      protocol: parseProtocol(options.protocol, source),
      ...(lease === undefined
        ? { lifetime: Lifetime.PERMANENT }
        : { lifetime: Lifetime.LEASED, leaseTtl: toDuration(parseDuration(lease, "--lease")) }),
    },
  };
}

export async function deregister(
  context: Context,
  name: string | undefined,
  options: DeregisterOptions,
): Promise<undefined> {
  const { instance, environment, version } = options;
  if ((name === undefined) === (instance === undefined)) {
    throw new UsageError("Say what to remove: either a service or --instance <id>");
  }
  const { registry } = await context.connect();
  const response = await registry.deregisterService(
    {
      target:
        instance === undefined
          ? {
              case: "service",
              value: { name: name ?? "", environment: environment ?? "", version: version ?? "" },
            }
          : { case: "instanceId", value: instance },
    },
    { signal: context.io.signal },
  );
  if (context.json) return void (await context.printMessage(DeregisterServiceResponseSchema, response));
  await context.print(
    `${context.paint.green("✓")} Removed ${name ?? instance}: ${count(response.removedInstances, "instance")}`,
  );
}
