import { randomUUID } from "node:crypto";
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, type Server, serve } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { ResultSource, ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import pg from "pg";
import { expect, onTestFinished, test, vi } from "vitest";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { startTestApp, type TestApp, type TestAppOptions } from "./support/test-app.ts";

async function start(options: TestAppOptions): Promise<TestApp> {
  const app = await startTestApp(options);
  onTestFinished(() => app.close());
  return app;
}

function clientsOf(app: TestApp) {
  const transport = createGrpcTransport({ baseUrl: app.url });
  return {
    url: app.url,
    registry: createClient(RegistryService, transport),
    tools: createClient(ToolService, transport),
    admin: createClient(AdminService, transport),
  };
}

/** What callers of two new replicas get that send more than their common limit of 10; undefined: a store was lost. */
async function outcomesOfTwoReplicas(): Promise<string[] | undefined> {
  const databaseUrl = await createTestDatabaseUrl();
  const config = `inbound:
  global: { unlimited: true }
  per_caller: { unlimited: true }
  services: { toolplane.registry.v1.RegistryService: { requests: 10, period: 3600s, burst: 10 } }
`;
  let lost = false;
  const logger = createLogger({
    level: "warn",
    destination: { write: (line) => (lost ||= line.includes("limits are counted locally")) },
  });
  const replicas = [
    clientsOf(await start({ databaseUrl, config, logger })),
    clientsOf(await start({ databaseUrl, config, logger })),
  ];
  const outcomes = await Promise.all(
    replicas.flatMap(({ registry }) =>
      Array.from({ length: 15 }, () =>
        registry.listServices({}).then(
          () => "allowed",
          (error: unknown) => {
            expect(error).toMatchObject({ code: Code.ResourceExhausted });
            return "refused";
          },
        ),
      ),
    ),
  );
  const seen = await Promise.all(replicas.map(({ admin }) => admin.listLimits({ level: "service" })));
  if (lost) {
    return undefined;
  }
  for (const { limits } of seen) {
    expect(limits).toMatchObject([{ store: "postgresql", limit: 10 }]);
  }
  return outcomes;
}

test("replicas on one database share their limits", async () => {
  let outcomes: string[] | undefined;
  // On a machine that stalls for a quarter of a second replicas count by themselves, as they should.
  for (let tries = 0; outcomes === undefined && tries < 10; tries++) {
    outcomes = await outcomesOfTwoReplicas();
  }
  expect(outcomes?.filter((outcome) => outcome === "allowed")).toHaveLength(10);
});

/** A service that counts how often it is asked, registered with one of the replicas. */
async function startText(app: TestApp): Promise<{ readonly calls: () => number; readonly server: Server }> {
  let calls = 0;
  const server = await serve({
    name: "text",
    logger: createLogger({ level: "silent" }),
    register: { url: app.url },
    routes: (router) =>
      router.service(TextService, {
        analyzeText({ text }) {
          calls++;
          return { words: text.split(" ").length };
        },
      }),
  });
  onTestFinished(() => server.close());
  return { calls: () => calls, server };
}

async function analyze({ tools }: ReturnType<typeof clientsOf>, text = "one two three") {
  const { result, info } = await tools.callTool({
    call: { tool: "text.AnalyzeText", input: { case: "arguments", value: { text } } },
  });
  expect.assert(result?.value.case === "json");
  expect(toJson(ValueSchema, result.value.value)).toMatchObject({ words: 3 });
  return info?.source;
}

async function cacheOf({ admin }: ReturnType<typeof clientsOf>) {
  const { caches } = await admin.listCaches({});
  return caches[0];
}

test("kept answers outlive a restart, are shared by replicas, and are dropped when someone has changed them", async () => {
  const databaseUrl = await createTestDatabaseUrl();
  const options = {
    databaseUrl,
    config: "outbound: { cache: { durable: true, signing_key: { env: SIGNING_KEY } } }",
    env: { SIGNING_KEY: "a-secret-that-all-replicas-share-0123456789" },
  };
  const first = await start(options);
  const second = clientsOf(await start(options));
  const { calls } = await startText(first);
  for (const { registry } of [clientsOf(first), second]) {
    await vi.waitFor(() => registry.getTool({ name: "text.AnalyzeText" }), { timeout: 20_000 });
  }
  expect(await analyze(clientsOf(first))).toBe(ResultSource.BACKEND);
  expect(await analyze(clientsOf(first))).toBe(ResultSource.CACHE);
  expect((await cacheOf(clientsOf(first)))?.durable).toBe(true);
  // Closing writes what is not written yet.
  await first.close();
  expect(await analyze(second)).toBe(ResultSource.CACHE);
  const third = clientsOf(await start(options));
  expect(await analyze(third)).toBe(ResultSource.CACHE);
  expect(await cacheOf(third)).toMatchObject({ durableHits: 1n, memoryHits: 0n, tampered: 0n });
  expect(calls()).toBe(1);

  const database = new pg.Client({ connectionString: databaseUrl });
  await database.connect();
  onTestFinished(() => database.end());
  const { rowCount } = await database.query(
    "UPDATE response_cache SET sealed = set_byte(sealed, length(sealed) - 40, get_byte(sealed, length(sealed) - 40) # 1)",
  );
  expect(rowCount).toBe(1);
  const fourth = clientsOf(await start(options));
  expect(await analyze(fourth)).toBe(ResultSource.BACKEND);
  expect(calls()).toBe(2);
  expect(await cacheOf(fourth)).toMatchObject({ tampered: 1n, durableHits: 0n });
  const metrics = await (await fetch(`${fourth.url}/metrics`)).text();
  expect(metrics).toMatch(/^toolplane_cache_tampered_total\{cache="tools"\} 1$/m);

  // A purge reaches what other replicas have in memory.
  expect(await analyze(second)).toBe(ResultSource.CACHE);
  const { purged } = await fourth.admin.purgeCache({ tool: "text.AnalyzeText" });
  expect(purged).toBeGreaterThan(0n);
  await expect.poll(async () => (await cacheOf(second))?.entries).toBe(0n);
  expect(await analyze(second)).toBe(ResultSource.BACKEND);
});

test("a request id means one call, whichever replicas are asked, and one outcome", async () => {
  const databaseUrl = await createTestDatabaseUrl();
  const apps = [await start({ databaseUrl }), await start({ databaseUrl })] as const;
  const replicas = apps.map(clientsOf);
  const { calls } = await startText(apps[0]);
  for (const { registry } of replicas) {
    await vi.waitFor(() => registry.getTool({ name: "text.AnalyzeText" }), { timeout: 20_000 });
  }
  const ask = ({ tools }: ReturnType<typeof clientsOf>, requestId: string) =>
    tools.callTool({
      call: {
        tool: "text.AnalyzeText",
        requestId,
        input: { case: "arguments", value: { text: requestId } },
      },
    });
  const requestId = randomUUID();
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) => ask(replicas[n % 2] ?? expect.unreachable(), requestId)),
  );
  expect(calls()).toBe(1);
  expect(new Set(answers.map(({ result }) => JSON.stringify(result?.value))).size).toBe(1);
  await apps[0].close();
  await ask(replicas[1] ?? expect.unreachable(), requestId);
  expect(calls()).toBe(1);
  await ask(replicas[1] ?? expect.unreachable(), randomUUID());
  expect(calls()).toBe(2);
});

test("replicas that sign kept answers each with its own key are warned", async () => {
  const lines: string[] = [];
  const logger = createLogger({
    level: "warn",
    format: "json",
    destination: { write: (line: string) => lines.push(line) },
  });
  const config = "outbound: { cache: { durable: true } }";
  await start({ databaseUrl: await createTestDatabaseUrl(), config, logger });
  expect(lines.join("")).toContain("outbound.cache.signing_key");
});
