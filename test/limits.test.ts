import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { transports } from "../framework/test-support/transports.ts";
import { startTestApp, type TestApp, type TestAppOptions } from "./support/test-app.ts";

const operatorKey = "operator-key-for-tests-0123456789abcdef";

/** All start with the same one, one after the other: that is faster than making it anew. */
let dataDir: string;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "toolplane-limits-"));
});

afterAll(() => rm(dataDir, { recursive: true, force: true }));

async function start(config: string, options: TestAppOptions = {}): Promise<TestApp> {
  const app = await startTestApp({ config, dataDir, ...options });
  onTestFinished(() => app.close());
  return app;
}

function transportTo(app: TestApp, token?: string): Transport {
  return createGrpcTransport({
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
}

/** Calls with plain HTTP, as curl does. */
function post(app: TestApp, method: string): Promise<Response> {
  return fetch(`${app.url}/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
}

const listServices = "toolplane.registry.v1.RegistryService/ListServices";

function failure(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(() => expect.unreachable("it did not fail"), ConnectError.from);
}

test("by default all callers and each one are limited, and every answer says how the tightest limit stands", async () => {
  const app = await start("inbound: {}");
  const answer = await post(app, listServices);
  expect(answer.status).toBe(200);
  expect(Object.fromEntries(answer.headers)).toMatchObject({
    "x-ratelimit-limit": expect.stringMatching(/^(600|1000)$/),
    "x-ratelimit-remaining": "19",
    "x-ratelimit-reset": "1",
  });
  const { limits } = await createClient(AdminService, transportTo(app)).listLimits({});
  const minute = { seconds: 60n, nanos: 0 };
  expect(limits).toContainEqual(
    expect.objectContaining({
      level: "global",
      key: "all",
      limit: 1_000,
      burst: 20,
      allowed: 2n,
      period: expect.objectContaining(minute),
      store: "memory",
    }),
  );
  expect(limits).toContainEqual(
    expect.objectContaining({
      level: "caller",
      key: "address:127.0.0.1",
      limit: 600,
      burst: 20,
      allowed: 2n,
    }),
  );
});

describe("whoever calls too often is refused, and told when to come again", () => {
  test.each(Object.entries(transports))("%s", async (_, open) => {
    const app = await start("inbound: { per_caller: { requests: 3, period: 3600s } }");
    const registry = createClient(RegistryService, open(app.url));
    const seen: (string | null)[] = [];
    const onHeader = (header: Headers) => void seen.push(header.get("x-ratelimit-remaining"));
    for (let call = 0; call < 3; call++) {
      await registry.listServices({}, { onHeader });
    }
    expect(seen).toEqual(["2", "1", "0"]);
    const error = await failure(registry.listServices({}));
    expect(error).toMatchObject({ code: Code.ResourceExhausted });
    expect(error.rawMessage).toBe(
      "caller address:127.0.0.1 has reached the limit of 3 requests in 3600 s, 3 at once: try again in 1200 s",
    );
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([
      { reason: "RATE_LIMITED", domain: "toolplane", metadata: { level: "caller" } },
    ]);
    expect(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBeGreaterThan(1_000n);
    expect(error.findDetails(QuotaFailureSchema)[0]?.violations).toMatchObject([
      { subject: "caller:address:127.0.0.1", description: "3 requests in 3600 s, 3 at once" },
    ]);
    expect(error.metadata.get("retry-after")).toBe("1200");
    expect(error.metadata.get("x-ratelimit-limit")).toBe("3");
    expect(error.metadata.get("x-ratelimit-remaining")).toBe("0");
  });

  test("plain HTTP", async () => {
    const app = await start("inbound: { global: { requests: 1, period: 60s } }");
    expect((await post(app, listServices)).status).toBe(200);
    const refused = await post(app, listServices);
    expect(refused.status).toBe(429);
    expect(Object.fromEntries(refused.headers)).toMatchObject({
      "retry-after": "60",
      "x-ratelimit-limit": "1",
      "x-ratelimit-remaining": "0",
      "x-ratelimit-reset": "60",
    });
    expect(await refused.json()).toMatchObject({
      code: "resource_exhausted",
      message: "the server has reached the limit of 1 request in 60 s, 1 at once: try again in 60 s",
    });
  });
});

test("what is needed to watch a server is exempt, and a refusal at one level spends nothing at another", async () => {
  const app = await start("inbound: { per_caller: { requests: 2, period: 3600s } }");
  const transport = transportTo(app);
  const registry = createClient(RegistryService, transport);
  for (let call = 0; call < 5; call++) {
    await registry.listServices({}).catch(() => {});
  }
  const admin = createClient(AdminService, transport);
  expect(await failure(admin.listLimits({}))).toMatchObject({ code: Code.ResourceExhausted });
  await createClient(Health, transport).check({});
  async function* question() {
    yield { messageRequest: { case: "listServices", value: "" } } as const;
  }
  for await (const { messageResponse } of createClient(ServerReflection, transport).serverReflectionInfo(
    question(),
  )) {
    expect(messageResponse.case).toBe("listServicesResponse");
  }
  const { families } = await admin.getMetrics({ namePrefixes: ["toolplane_limit"] });
  expect(families).not.toEqual([]);
  const metrics = (await (await fetch(`${app.url}/metrics`)).text()).split("\n");
  expect(metrics).toContain('toolplane_limit_decisions_total{level="global",decision="allowed"} 2');
  expect(metrics).toContain('toolplane_limit_decisions_total{level="global",decision="refused"} 0');
  expect(metrics).toContain('toolplane_limit_decisions_total{level="caller",decision="refused"} 4');
});

test("tools of the server itself count once, with the call that asked for them", async () => {
  const app = await start("inbound: {}");
  const transport = transportTo(app);
  const tools = createClient(ToolService, transport);
  for (let call = 0; call < 3; call++) {
    await tools.callTool({ call: { tool: "toolplane.ListServices" } });
  }
  const { limits } = await createClient(AdminService, transport).listLimits({ level: "caller" });
  expect(limits).toMatchObject([{ key: "address:127.0.0.1", allowed: 4n, refused: 0n }]);
});

test("limits can be set for single services and callers, and taken away", async () => {
  const app = await start(
    `auth: { required: true }
inbound:
  global: { unlimited: true }
  per_service: { requests: 5, period: 3600s }
  per_caller: { requests: 100, period: 3600s, burst: 100 }
  services:
    toolplane.tools.v1.ToolService: { requests: 2, period: 3600s }
    toolplane.admin.v1.AdminService: { unlimited: true }
  callers:
    key:guest: { requests: 1, period: 3600s }
    key:operator: { unlimited: true }
`,
    { env: { TOOLPLANE_OPERATOR_KEY: operatorKey } },
  );
  const operator = transportTo(app, operatorKey);
  const admin = createClient(AdminService, operator);
  const keyOf = async (name: string) => {
    const { secret } = await admin.createApiKey({ name, role: Role.READER });
    return transportTo(app, secret);
  };
  const calls = async (count: number, call: () => Promise<unknown>) => {
    let allowed = 0;
    for (let n = 0; n < count; n++) {
      await call().then(
        () => allowed++,
        (error: unknown) => expect(error).toMatchObject({ code: Code.ResourceExhausted }),
      );
    }
    return allowed;
  };
  // Two keys at one address have limits of their own.
  const guest = createClient(RegistryService, await keyOf("guest"));
  const other = createClient(RegistryService, await keyOf("other"));
  expect(await calls(3, () => guest.listServices({}))).toBe(1);
  expect(await calls(6, () => other.listServices({}))).toBe(4);
  const tools = createClient(ToolService, operator);
  expect(await calls(4, () => tools.callTool({ call: { tool: "toolplane.ListServices" } }))).toBe(2);
  expect(await calls(150, () => admin.listLimits({}))).toBe(150);
  const { limits } = await admin.listLimits({ level: "caller" });
  expect(limits.map(({ key }) => key).sort()).toEqual(["key:guest", "key:other"]);
});

test("single methods have limits and deadlines of their own", async () => {
  const app = await start(`inbound:
  global: { unlimited: true }
  per_caller: { unlimited: true }
  methods:
    toolplane.registry.v1.RegistryService/ListServices: { rate_limit: { requests: 1, period: 3600s } }
    toolplane.registry.v1.RegistryService/WatchServices: { timeout: 0.05s }
`);
  const registry = createClient(RegistryService, transportTo(app));
  await registry.listServices({});
  expect(await failure(registry.listServices({}))).toMatchObject({ code: Code.ResourceExhausted });
  await registry.listTools({});
  const watched = (async () => {
    for await (const _ of registry.watchServices({})) {
      // Only the end matters.
    }
  })();
  expect(await failure(watched)).toMatchObject({ code: Code.DeadlineExceeded });
});

test("an address that keeps sending bad credentials is told to slow down; good ones at the same address are not", async () => {
  const app = await start(
    "auth: { required: true }\ninbound: { per_caller: { requests: 3, period: 3600s } }",
    {
      env: { TOOLPLANE_OPERATOR_KEY: operatorKey },
    },
  );
  const stranger = createClient(RegistryService, transportTo(app, "not-a-key"));
  for (let call = 0; call < 3; call++) {
    expect(await failure(stranger.listServices({}))).toMatchObject({ code: Code.Unauthenticated });
  }
  const limited = await failure(stranger.listServices({}));
  expect(limited).toMatchObject({ code: Code.ResourceExhausted });
  expect(limited.findDetails(ErrorInfoSchema)).toMatchObject([
    { reason: "RATE_LIMITED", metadata: { level: "address" } },
  ]);
  expect(limited.metadata.get("retry-after")).toBe("1200");
  const operator = transportTo(app, operatorKey);
  await createClient(RegistryService, operator).listServices({});
  const { limits } = await createClient(AdminService, operator).listLimits({ level: "address" });
  expect(limits).toMatchObject([{ key: "127.0.0.1", allowed: 3n, refused: 1n, limit: 3 }]);
});
