import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import { callContext, invalidArgument } from "@toolplane/framework";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { type HealthCheck, HealthCheckSchema } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { toDuration } from "../config/durations.ts";
import { refuseOwn, refuseReserved } from "./refusals.ts";
import type { HealthRecord, Registry } from "./registry.ts";

/** Of a lease's time, when it is to be renewed: twice may fail. */
const HEARTBEATS_PER_LEASE = 3;

/** The RPC handlers of `toolplane.registry.v1.RegistryService`. */
export function registryRoutes(registry: Registry): (router: ConnectRouter) => void {
  return (router) => {
    router.service(RegistryService, {
      async registerService({ service, instance, requestId }, context) {
        const [serviceSpec, instanceSpec] = [required(service, "service"), required(instance, "instance")];
        refuseReserved(serviceSpec, instanceSpec);
        const result = await registry.register(serviceSpec, instanceSpec, context.signal);
        const { leaseTtlMs, instanceId } = result;
        callContext(context).logger.info({ service: serviceSpec.name, instanceId, requestId }, "registered");
        return {
          service: result.service,
          instanceId,
          changes: [...result.changes],
          ...(leaseTtlMs === undefined
            ? {}
            : {
                leaseTtl: toDuration(leaseTtlMs),
                heartbeatInterval: toDuration(leaseTtlMs / HEARTBEATS_PER_LEASE),
              }),
        };
      },

      async renewLease({ instanceId }) {
        const leaseTtlMs = await registry.renew(instanceId);
        return leaseTtlMs === undefined ? {} : { leaseTtl: toDuration(leaseTtlMs) };
      },

      async deregisterService({ target }) {
        switch (target.case) {
          case "instanceId":
            refuseOwn({ instanceId: target.value }, "instance_id");
            return { removedInstances: await registry.deregister({ instanceId: target.value }) };
          case "service":
            refuseOwn({ service: target.value }, "service.name");
            return { removedInstances: await registry.deregister({ service: target.value }) };
          case undefined:
            throw missing("target");
        }
      },

      getService: ({ service }) => ({ service: registry.getService(required(service, "service")) }),

      listServices(request) {
        const { items, nextPageToken, totalSize } = registry.listServices(request);
        return { services: items, nextPageToken, totalSize };
      },

      watchServices: ({ filter, resumeRevision }, { signal }) =>
        registry.watch(filter, resumeRevision === 0n ? undefined : Number(resumeRevision), signal),

      listTools(request) {
        const { items, nextPageToken, totalSize } = registry.listTools(request);
        return { tools: items, nextPageToken, totalSize };
      },

      searchTools: async (request) => ({ hits: await registry.searchTools(request) }),

      getTool: ({ name, environment, version, schemaProfile }) => ({
        tool: registry.getTool(name, { environment, version }, schemaProfile),
      }),

      checkHealth: async ({ filter }, { signal }) => ({
        checks: (await registry.checkHealth(filter, signal)).map(toHealthCheck),
      }),

      async listHealthChecks(request) {
        const { items, nextPageToken } = await registry.listHealthChecks(request);
        return { checks: items.map(toHealthCheck), nextPageToken };
      },

      async refreshService({ service }) {
        const result = await registry.refresh(required(service, "service"));
        return { service: result.service, changes: [...result.changes] };
      },
    });
  };
}

function toHealthCheck(record: HealthRecord): HealthCheck {
  return create(HealthCheckSchema, {
    service: record.name,
    environment: record.environment,
    version: record.version,
    instanceId: record.instanceId,
    status: record.status,
    message: record.message,
    latency: toDuration(record.latencyMs),
    time: timestampFromDate(record.time),
  });
}

/** Validation has refused requests without it; the type does not know that. */
function required<T>(value: T | undefined, field: string): T {
  if (value === undefined) {
    throw missing(field);
  }
  return value;
}

function missing(field: string): Error {
  return invalidArgument([{ field, description: "is required", reason: "REQUIRED" }]);
}
