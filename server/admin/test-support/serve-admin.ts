import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Clock, createLogger, type Server, serve, systemClock } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { onTestFinished } from "vitest";
import { type AdminSources, createAdmin, type KeyHandlers } from "../admin.ts";

const keyHandlers: KeyHandlers = {
  createApiKey: () => ({ secret: "made elsewhere" }),
  rotateApiKey: () => ({}),
  revokeApiKey: () => ({}),
  listApiKeys: () => ({}),
};

/** Serves AdminService and `/metrics` with these sources until the test is over. */
export async function serveAdmin(sources: AdminSources = {}, clock: Clock = systemClock) {
  let server: Server | undefined;
  const admin = createAdmin({
    clock,
    version: "1.2.3",
    sources: { streams: () => server?.streams() ?? [], ...sources },
    keyHandlers,
  });
  server = await serve({
    name: "admin",
    routes: admin.routes,
    http: [admin.http],
    gates: [admin.gate],
    onCall: admin.onCall,
    onDrain: async () => admin.drain(),
    logger: createLogger({ level: "error" }),
    register: false,
    drainTimeoutMs: 0,
  });
  const { url, close } = server;
  onTestFinished(async () => {
    await close();
    await admin.close();
  });
  return {
    admin,
    url,
    close,
    client: createClient(AdminService, createGrpcTransport({ baseUrl: url })),
    metrics: (headers: Record<string, string> = {}) => fetch(`${url}/metrics`, { headers }),
  };
}
