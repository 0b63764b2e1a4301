import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { serve, systemClock } from "@toolplane/framework";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { InstanceSpecSchema, ServiceSpecSchema } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { onTestFinished } from "vitest";
import { createSecretResolver } from "../config/secrets.ts";
import type { Database } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createConnectionPool } from "../tools/pool/index.ts";
import { createRegistry, type Registry, type RegistryOptions } from "./registry.ts";

/** The usual options, so that tests name only what they are about. */
export const testOptions: RegistryOptions = {
  defaultLeaseTtlMs: 30_000,
  discoveryTimeoutMs: 4_000,
  refreshIntervalMs: 300_000,
  maxToolsPerService: 5_000,
  health: { intervalMs: 60_000, timeoutMs: 5_000, retentionMs: 86_400_000 },
};

/** A registry on a database, closed when the test is over. */
export async function openRegistry(
  database: Database,
  options: Partial<RegistryOptions> = {},
): Promise<Registry> {
  const pool = createConnectionPool({ logger: silentLogger, clock: systemClock });
  const registry = await createRegistry({
    database,
    pool,
    clock: systemClock,
    logger: silentLogger,
    secrets: createSecretResolver([], {}),
    options: { ...testOptions, ...options },
  });
  onTestFinished(async () => {
    await registry.close();
    await pool.close();
  });
  return registry;
}

/** A real gRPC server with reflection that offers the methods of `RegistryService`, all unimplemented. */
export async function startServer(listen = "127.0.0.1:0") {
  const server = await serve({
    name: "sample",
    listen,
    routes: (router) => router.service(RegistryService, {}),
    logger: silentLogger,
    register: false,
    drainTimeoutMs: 0,
  });
  onTestFinished(() => server.close());
  return server;
}

export const service = (init: MessageInitShape<typeof ServiceSpecSchema>) => create(ServiceSpecSchema, init);
export const instance = (init: MessageInitShape<typeof InstanceSpecSchema>) =>
  create(InstanceSpecSchema, init);
