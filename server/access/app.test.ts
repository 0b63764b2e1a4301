import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, type Role, serve, systemClock } from "@toolplane/framework";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { SampleService } from "../../framework/test-support/sample-service.ts";
import { type App, createApp } from "../app.ts";
import { loadSettings } from "../config/load.ts";
import { openDatabase } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createTestDatabaseUrl } from "../storage/testing.ts";
import { openKeys } from "./keys.ts";

const operatorKey = "operator-key-for-tests-0123456789abcdef";

let url: string;

beforeAll(async () => {
  url = await createTestDatabaseUrl();
});

async function startApp(): Promise<App> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-app-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const env = { TOOLPLANE_OPERATOR_KEY: operatorKey };
  const settings = loadSettings({ listen: "127.0.0.1:0", dataDir: folder, databaseUrl: url }, env);
  const app = await createApp({
    settings: { ...settings, auth: { ...settings.auth, required: true } },
    clock: systemClock,
    env,
    logger: createLogger({ level: "silent" }),
  });
  onTestFinished(() => app.close());
  return app;
}

/** A key that another replica has made. */
async function createKey(role: Role): Promise<string> {
  const database = await openDatabase({ url, dataDir: tmpdir(), logger: silentLogger });
  const keys = await openKeys({ database, clock: systemClock, logger: silentLogger });
  const { token } = await keys.create({ name: role.slice(0, 4), role, ttlMs: undefined, createdBy: "test" });
  await keys.close();
  await database.close();
  return token;
}

function clientsOf(app: App, token: string | undefined) {
  const transport = createGrpcTransport({
    baseUrl: app.url,
    interceptors: [
      (next) => (request) => {
        if (token !== undefined) {
          request.header.set("authorization", `Bearer ${token}`);
        }
        return next(request);
      },
    ],
  });
  return { tools: createClient(ToolService, transport), registry: createClient(RegistryService, transport) };
}

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  return await call.then(() => expect.unreachable("it did not fail"), ConnectError.from);
}

test("what a caller may not do itself, it may not have the server's own tools do", async () => {
  // Each is an instance of the server's own service, which calls must not be sent to in turn.
  const [app] = [await startApp(), await startApp()];
  const caller = clientsOf(app, await createKey("caller"));
  for (let round = 0; round < 10; round++) {
    const { result } = await caller.tools.callTool({ call: { tool: "toolplane.ListServices" } });
    expect(result?.value).toMatchObject({ case: "json" });
  }
  const registering = {
    tool: "toolplane.RegisterService",
    input: {
      case: "arguments",
      value: { service: { name: "sneaky" }, instance: { endpoint: "127.0.0.1:9" } },
    },
  } as const;
  const refused = await failure(caller.tools.callTool({ call: registering }));
  expect(refused).toMatchObject({ code: Code.PermissionDenied });
  expect(refused.findDetails(ErrorInfoSchema)).toContainEqual(
    expect.objectContaining({
      reason: "PERMISSION_DENIED",
      metadata: expect.objectContaining({ required_role: "operator", role: "caller" }),
    }),
  );
  // The operator is let through: the registry finds fault with the address, not with who asks.
  const operator = clientsOf(app, operatorKey);
  const tried = await operator.tools.callTool({ call: registering }).then(() => undefined, ConnectError.from);
  expect(tried?.code).not.toBe(Code.PermissionDenied);
  await operator.registry.deregisterService({
    target: { case: "service", value: { name: "sneaky" } },
  });
});

test("streams of the server's own tools act for the caller too", async () => {
  const app = await startApp();
  const { tools } = clientsOf(app, await createKey("caller"));
  const leaving = new AbortController();
  const events: string[] = [];
  const stream = tools.callToolStream(
    { call: { tool: "toolplane.WatchServices" } },
    { signal: leaving.signal },
  );
  await expect(async () => {
    for await (const { event } of stream) {
      events.push(event.case ?? "");
      if (event.case === "result") {
        leaving.abort();
      }
    }
  }).rejects.toMatchObject({ code: Code.Canceled });
  expect(events).toEqual(["started", "result"]);
});

test("the RPCs about keys are no tools, for nobody", async () => {
  const app = await startApp();
  const { tools } = clientsOf(app, operatorKey);
  for (const name of ["CreateApiKey", "RotateApiKey", "RevokeApiKey", "ListApiKeys"]) {
    const error = await failure(
      tools.callTool({ call: { tool: `toolplane.${AdminService.typeName}.${name}` } }),
    );
    expect(error.code).toBe(Code.NotFound);
  }
});

test("readers look, and call nothing; whoever shows nothing sees nothing", async () => {
  const app = await startApp();
  const reader = clientsOf(app, await createKey("reader"));
  expect((await reader.registry.listServices({})).services).toHaveLength(1);
  const call = { tool: "toolplane.ListServices" };
  expect(await failure(reader.tools.callTool({ call }))).toMatchObject({ code: Code.PermissionDenied });
  const stranger = clientsOf(app, undefined);
  expect(await failure(stranger.registry.listServices({}))).toMatchObject({ code: Code.Unauthenticated });
  expect(await failure(stranger.tools.callTool({ call }))).toMatchObject({ code: Code.Unauthenticated });
});

test("services register themselves with an operator's key, and with no lesser one", async () => {
  const app = await startApp();
  const { registry } = clientsOf(app, operatorKey);
  const warned: string[] = [];
  async function startService(name: string, token: string) {
    const server = await serve({
      name,
      routes: (router) => router.service(SampleService, {}),
      logger: createLogger({
        level: "warn",
        format: "json",
        destination: { write: (line: string) => warned.push(line) },
      }),
      register: { url: app.url, token },
    });
    onTestFinished(() => server.close());
  }
  await startService("lesser", await createKey("caller"));
  await startService("proper", operatorKey);
  const names = async () => (await registry.listServices({})).services.map(({ name }) => name);
  await expect.poll(names).toContain("proper");
  await expect.poll(() => warned.join("")).toContain("needs the role operator");
  expect(await names()).not.toContain("lesser");
  expect(warned.join("")).not.toContain(operatorKey);
});
