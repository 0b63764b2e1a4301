import { type Clock, type ServeOptions, type Server, serve, systemClock } from "@toolplane/framework";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { Logger } from "pino";
import { onTestFinished } from "vitest";
import { createSecretResolver } from "../../config/secrets.ts";
import { createConnectionPool } from "../../pool/index.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createRegistry, type Registry, type RegistryOptions } from "../registry.ts";
import { testOptions } from "./specs.ts";

/** A registry on a database, closed when the test is over. */
export async function openRegistry(
  database: Database,
  options: Partial<RegistryOptions> = {},
  parts: { clock?: Clock; logger?: Logger } = {},
): Promise<Registry> {
  const pool = createConnectionPool({ logger: silentLogger, clock: systemClock });
  const registry = await createRegistry({
    database,
    pool,
    clock: parts.clock ?? systemClock,
    logger: parts.logger ?? silentLogger,
    secrets: createSecretResolver([], {}),
    options: { ...testOptions, ...options },
  });
  onTestFinished(async () => {
    await registry.close();
    await pool.close();
  });
  return registry;
}

/** A registry with nothing in it, on a database that tests use one after the other. */
export async function emptyRegistry(
  database: Database,
  ...options: Parameters<typeof openRegistry> extends [Database, ...infer Rest] ? Rest : never
): Promise<Registry> {
  const registry = await openRegistry(database, ...options);
  const { items } = registry.listServices({ filter: undefined, pageSize: 1_000, pageToken: "" });
  for (const { name, environment, version } of items) {
    await registry.deregister({ service: { name, environment, version } });
  }
  return registry;
}

/** A real server with reflection and health that offers the methods of `RegistryService`, none of them implemented. */
export async function startServer(options: Partial<ServeOptions> = {}): Promise<Server> {
  const server = await serve({
    name: "sample",
    routes: (router) => router.service(RegistryService, {}),
    logger: silentLogger,
    register: false,
    drainTimeoutMs: 0,
    ...options,
  });
  onTestFinished(() => server.close());
  return server;
}
