import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, onTestFinished, vi } from "vitest";
import { startFaultServer } from "../../examples/typescript/faults/fault-server.ts";
import {
  FaultService,
  FaultsSchema,
} from "../../examples/typescript/gen/examples/faults/v1/fault_service_pb.js";
import type { TestApp } from "./test-app.ts";

/** Clients of a server under test, for one caller. */
export function clientsOf({ url }: Pick<TestApp, "url">, token?: string) {
  const authorize: Interceptor = (next) => (request) => {
    if (token !== undefined) {
      request.header.set("authorization", `Bearer ${token}`);
    }
    return next(request);
  };
  const transport = createGrpcTransport({ baseUrl: url, interceptors: [authorize] });
  return {
    admin: createClient(AdminService, transport),
    registry: createClient(RegistryService, transport),
    tools: createClient(ToolService, transport),
  };
}

/** Instances of FaultService that a server under test knows as one service. */
export interface FaultInstances {
  readonly ids: readonly string[];
  /** Sets the faults of one of them. */
  fail(index: number, faults: MessageInitShape<typeof FaultsSchema>): void;
  /** How often each was called. */
  counts(): Promise<{ reads: number; writeCalls: number; writes: number }[]>;
  /** Ends one of them; its endpoint refuses connections from then on. */
  stop(index: number): Promise<void>;
}

export interface FaultInstancesOptions {
  readonly registry: Client<typeof RegistryService>;
  /** The name of the service. */
  readonly service: string;
  /** Default: `1.0.0`. */
  readonly version?: string;
  /** Default: 1. */
  readonly count?: number;
}

/** Starts instances, which end with the test, and waits until they are known to be well. */
export async function startFaultInstances(options: FaultInstancesOptions): Promise<FaultInstances> {
  const { registry, service, version = "1.0.0", count = 1 } = options;
  const ids = Array.from({ length: count }, (_, index) => `${service}-${version}-${index}`);
  const servers = await Promise.all(
    ids.map((instance) => startFaultServer({ listen: "127.0.0.1:0", instance })),
  );
  onTestFinished(async () => {
    await Promise.all(servers.map((server) => server.close()));
  });
  for (const [index, { url }] of servers.entries()) {
    await registry.registerService({
      service: { name: service, version },
      instance: { id: ids[index] ?? "", endpoint: url, leaseTtl: { seconds: 3_600n } },
    });
  }
  await vi.waitFor(
    async () => {
      const found = await registry.getService({ service: { name: service, version } });
      expect(found.service?.instances.map(({ health }) => health)).toEqual(
        ids.map(() => HealthStatus.HEALTHY),
      );
    },
    { timeout: 20_000 },
  );
  const direct = servers.map(({ url }) => createClient(FaultService, createGrpcTransport({ baseUrl: url })));
  return {
    ids,
    fail: (index, faults) => servers[index]?.setFaults(create(FaultsSchema, faults)),
    counts: () =>
      Promise.all(
        direct.map(async (client) => {
          const { reads, writeCalls, writes } = await client.getCounts({});
          return { reads: Number(reads), writeCalls: Number(writeCalls), writes: Number(writes) };
        }),
      ),
    async stop(index) {
      await servers[index]?.close();
    },
  };
}
