import { tmpdir } from "node:os";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Clock, createLogger, type Server, serve, systemClock } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { onTestFinished } from "vitest";
import type { AuthSettings } from "../../config/auth.ts";
import { loadSettings } from "../../config/load.ts";
import { openDatabase } from "../../storage/database.ts";
import { type Access, createAccess } from "../access.ts";
import { keyHandlers } from "../service.ts";

/** The operator key of every replica. */
export const operatorKey = "operator-key-for-tests-0123456789abcdef";

/** A server that asks who calls. Of the registry it has `ListServices` and `RegisterService`, which do nothing. */
export interface Replica {
  readonly server: Server;
  readonly access: Access;
  /** Everything that was logged. */
  readonly logged: string[];
  admin(token?: string, transport?: (url: string) => Transport): Client<typeof AdminService>;
  registry(token?: string, transport?: (url: string) => Transport): Client<typeof RegistryService>;
}

export interface ReplicaOptions {
  readonly clock?: Clock;
  readonly auth?: Partial<AuthSettings>;
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs until the test is over. */
export async function startReplica(url: string, options: ReplicaOptions = {}): Promise<Replica> {
  const { clock = systemClock, env = { TOOLPLANE_OPERATOR_KEY: operatorKey } } = options;
  const logged: string[] = [];
  const logger = createLogger({
    level: "debug",
    format: "json",
    destination: { write: (line: string) => logged.push(line) },
  });
  const database = await openDatabase({ url, dataDir: tmpdir(), logger });
  onTestFinished(() => database.close());
  const settings = loadSettings({ listen: "127.0.0.1:0" }, env);
  const access = await createAccess({
    database,
    clock,
    logger,
    env,
    settings: { ...settings, auth: { ...settings.auth, required: true, ...options.auth } },
  });
  onTestFinished(() => access.close());
  const server = await serve({
    name: "replica",
    register: false,
    logger,
    drainTimeoutMs: 0,
    gates: [access.gate],
    routes(router) {
      router.service(AdminService, keyHandlers(access.keys));
      router.service(RegistryService, { listServices: () => ({}), registerService: () => ({}) });
    },
  });
  onTestFinished(() => server.close());

  function transport(token: string | undefined, create: (url: string) => Transport): Transport {
    const inner = create(server.url);
    const withToken = (header: ConstructorParameters<typeof Headers>[0]) => {
      const headers = new Headers(header);
      if (token !== undefined) {
        headers.set("authorization", `Bearer ${token}`);
      }
      return headers;
    };
    return {
      unary: (method, signal, timeoutMs, header, ...rest) =>
        inner.unary(method, signal, timeoutMs, withToken(header), ...rest),
      stream: (method, signal, timeoutMs, header, ...rest) =>
        inner.stream(method, signal, timeoutMs, withToken(header), ...rest),
    };
  }

  const grpc = (baseUrl: string) => createGrpcTransport({ baseUrl });
  return {
    server,
    access,
    logged,
    admin: (token, create = grpc) => createClient(AdminService, transport(token, create)),
    registry: (token, create = grpc) => createClient(RegistryService, transport(token, create)),
  };
}
