import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { Redis } from "ioredis";
import { expect, onTestFinished, test } from "vitest";
import { startTestApp } from "../support/test-app.ts";
import { startRedis } from "./redis-server.ts";

const SERVICE = RegistryService.typeName;
const config = `inbound:
  global: { unlimited: true }
  per_caller: { unlimited: true }
  services:
    ${SERVICE}: { requests: 10, period: 3600s, burst: 10 }
    ${ToolService.typeName}: { requests: 10, period: 3600s, burst: 10 }
`;

/** An app that counts in Redis, and what it has logged. */
async function startReplica(redisUrl: string) {
  const lines: string[] = [];
  const logger = createLogger({
    level: "debug",
    format: "json",
    destination: { write: (line: string) => lines.push(line) },
  });
  const app = await startTestApp({ config, env: { TOOLPLANE_REDIS_URL: redisUrl }, logger });
  onTestFinished(() => app.close());
  const transport = createGrpcTransport({ baseUrl: app.url });
  const registry = createClient(RegistryService, transport);
  const tools = createClient(ToolService, transport);
  const admin = createClient(AdminService, transport);
  return {
    logged: () => lines.join(""),
    async store() {
      const { limits } = await admin.listLimits({ level: "service" });
      return limits.find(({ key }) => key === SERVICE)?.store;
    },
    /** How many of so many calls of the service are let through. None fails otherwise. */
    async allowed(calls: number, service = SERVICE): Promise<number> {
      const call = () =>
        service === SERVICE
          ? registry.listServices({})
          : tools.callTool({ call: { tool: "toolplane.ListServices" } });
      const outcomes = await Promise.all(
        Array.from({ length: calls }, () =>
          call().then(
            () => true,
            (error: unknown) => {
              expect(ConnectError.from(error).code).toBe(Code.ResourceExhausted);
              return false;
            },
          ),
        ),
      );
      return outcomes.filter(Boolean).length;
    },
  };
}

test("replicas share a limit in Redis, go on by themselves while it is down, and share again when it is back", async () => {
  const redis = await startRedis();
  const first = await startReplica(redis.url);
  const second = await startReplica(redis.url);
  // The very first calls are counted there: nobody finds the store lost because it is not connected yet.
  expect((await first.allowed(4)) + (await second.allowed(4))).toBe(8);
  expect((await first.allowed(4)) + (await second.allowed(4))).toBe(2);
  expect(await first.store()).toBe("redis");
  expect(first.logged()).not.toContain("counted locally");

  await redis.kill();
  // Each has its own limit now.
  expect(await first.allowed(12, ToolService.typeName)).toBe(10);
  expect(await second.allowed(12, ToolService.typeName)).toBe(10);
  expect(await first.store()).toBe("memory (store down)");
  expect(await second.store()).toBe("memory (store down)");
  expect(first.logged()).toContain("limits are counted locally");

  await redis.start();
  await expect.poll(() => first.store()).toBe("redis");
  await expect.poll(() => second.store()).toBe("redis");
  expect(first.logged()).toContain("limits are counted in their store again");
});

test("a server starts without Redis, says so, and counts there once it is up", async () => {
  const redis = await startRedis();
  await redis.kill();
  const replica = await startReplica(redis.url);
  expect(replica.logged()).toContain("starting without Redis");
  expect(await replica.allowed(12)).toBe(10);
  expect(await replica.store()).toBe("memory (store down)");
  await redis.start();
  await expect.poll(() => replica.store()).toBe("redis");
});

test("a wrong password is said to be one, and never logged", async () => {
  const { url } = await startRedis();
  const { host } = new URL(url);
  const client = new Redis(url);
  await client.config("SET", "requirepass", "right-password");
  client.disconnect();
  const replica = await startReplica(`redis://:wrong-password@${host}`);
  expect(await replica.allowed(12)).toBe(10);
  expect(replica.logged()).toContain("WRONGPASS");
  expect(replica.logged()).not.toContain("wrong-password");
  const right = await startReplica(`redis://:right-password@${host}`);
  expect(await right.allowed(1)).toBe(1);
  expect(await right.store()).toBe("redis");
  expect(right.logged()).not.toContain("right-password");
});
