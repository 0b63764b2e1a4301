import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { type Clock, type ServeOptions, type Server, serve, systemClock } from "@toolplane/framework";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import {
  type HealthCheckSpecSchema,
  InstanceSpecSchema,
  ServiceSpecSchema,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Logger } from "pino";
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

export const service = (init: MessageInitShape<typeof ServiceSpecSchema>) => create(ServiceSpecSchema, init);
export const instance = (init: MessageInitShape<typeof InstanceSpecSchema>) =>
  create(InstanceSpecSchema, init);

/** For services whose instances are nobody. */
export const unchecked = { kind: { case: "none", value: {} } } satisfies MessageInitShape<
  typeof HealthCheckSpecSchema
>;

/** Describes `acme.weather.v1.WeatherService` with these methods, which all take a message with these text fields. */
export function weatherDescriptors(
  methods: readonly string[] = ["GetForecast"],
  fields: readonly string[] = ["city"],
): FileDescriptorSet {
  return create(FileDescriptorSetSchema, {
    file: [
      {
        name: "acme/weather/v1/weather.proto",
        package: "acme.weather.v1",
        syntax: "proto3",
        messageType: [
          {
            name: "Request",
            field: fields.map((name, index) => ({
              name,
              number: index + 1,
              type: FieldDescriptorProto_Type.STRING,
              label: FieldDescriptorProto_Label.OPTIONAL,
            })),
          },
          { name: "Response" },
        ],
        service: [
          {
            name: "WeatherService",
            method: methods.map((name) => ({
              name,
              inputType: ".acme.weather.v1.Request",
              outputType: ".acme.weather.v1.Response",
            })),
          },
        ],
      },
    ],
  });
}

/** A service that needs no server: described, and not checked unless `init` says so. */
export function described(
  init: Omit<MessageInitShape<typeof ServiceSpecSchema>, "$typeName" | "$unknown">,
  fileDescriptorSet = weatherDescriptors(),
) {
  return service({
    source: { kind: { case: "descriptors", value: { fileDescriptorSet } } },
    healthCheck: unchecked,
    ...init,
  });
}
