import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { createLogger } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { startTestApp } from "./test-app.ts";

/** Starts a server with everything that it can have, uses it and closes it. Then nothing keeps the process alive. */
const app = await startTestApp({
  config: `inbound: {}
outbound:
  cache: { durable: true }
  tools:
    - { tool: "*", rate_limit: { requests: 100 }, adaptive_rate: {}, max_concurrency: 3, cache_ttl: 60s, idempotent: true }
`,
  // Nobody is there: it tries to connect for as long as it lives.
  env: { TOOLPLANE_REDIS_URL: "redis://127.0.0.1:1" },
  logger: createLogger({ level: "silent" }),
});
const transport = createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" });
const tools = createClient(ToolService, transport);
for (const requestId of ["", "8d0f6f0e-3f5c-4c5e-9d53-0f2d8d1d2f11"]) {
  await tools.callTool({ call: { tool: "toolplane.ListServices", requestId } });
}
const leaving = new AbortController();
const admin = createClient(AdminService, transport);
for await (const { stats } of admin.watchStats({}, { signal: leaving.signal })) {
  if (stats !== undefined) {
    break;
  }
}
leaving.abort();
await app.close();
