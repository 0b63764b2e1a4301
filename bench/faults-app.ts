import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { JsonObject } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, systemClock } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { createApp, loadSettings } from "@toolplane/server";

/** A whole server whose tools are offered by three instances that fail as they are told to. */
export interface FaultsApp {
  readonly url: string;
  /** Where the instances are themselves. */
  readonly backends: readonly string[];
  readonly admin: Client<typeof AdminService>;
  readonly tools: Client<typeof ToolService>;
  /** Chooses the faults of one instance, from 0 to 2. */
  setFaults(index: number, faults: JsonObject): Promise<void>;
  /** Closes all breakers and lets every instance back in. */
  forgive(): Promise<void>;
  close(): Promise<void>;
}

/**
 * @param instances how many of the three are registered
 * @param env what the server reads secrets and providers from
 */
export async function startFaultsApp(
  yaml: string,
  instances: number,
  env: NodeJS.ProcessEnv = {},
): Promise<FaultsApp> {
  const backend = fork(fileURLToPath(new URL("faults-backend.ts", import.meta.url)), {
    execArgv: ["--conditions=toolplane-source"],
  });
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-faults-"));
  const config = join(dataDir, "config.yaml");
  await writeFile(config, yaml);
  const app = await createApp({
    settings: loadSettings({ listen: "127.0.0.1:0", dataDir: join(dataDir, "data"), config }, env),
    clock: systemClock,
    env,
    logger: createLogger({ level: "error" }),
  });
  const transport = createGrpcTransport({ baseUrl: app.url });
  const admin = createClient(AdminService, transport);
  const [urls] = (await once(backend, "message")) as [string[]];
  await register(createClient(RegistryService, transport), urls.slice(0, instances));
  return {
    url: app.url,
    backends: urls,
    admin,
    tools: createClient(ToolService, transport),
    async setFaults(index, faults) {
      backend.send([index, faults]);
      await once(backend, "message");
    },
    async forgive() {
      const { breakers, ejections } = await admin.listBreakers({ pageSize: 1_000 });
      const names = [...breakers.map(({ name }) => name), ...ejections.map(({ instanceId }) => instanceId)];
      await Promise.all(names.map((name) => admin.resetBreaker({ name })));
    },
    async close() {
      await app.close();
      await rm(dataDir, { recursive: true, force: true });
      backend.disconnect();
      await once(backend, "exit");
    },
  };
}

async function register(registry: Client<typeof RegistryService>, urls: readonly string[]): Promise<void> {
  for (const [index, endpoint] of urls.entries()) {
    await registry.registerService({
      service: { name: "faults", version: "1.0.0" },
      instance: { id: `i${index}`, endpoint, leaseTtl: { seconds: 3600n } },
    });
  }
  for (;;) {
    const { service } = await registry.getService({ service: { name: "faults" } });
    if (service?.instances.every(({ health }) => health === HealthStatus.HEALTHY)) {
      return;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}
