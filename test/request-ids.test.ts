import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { ResultSource } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { clientsOf, startFaultInstances } from "./support/fault-instances.ts";
import { startTestApp, type TestAppOptions } from "./support/test-app.ts";

type Clients = ReturnType<typeof clientsOf>;

async function start(options: TestAppOptions) {
  const app = await startTestApp(options);
  onTestFinished(() => app.close());
  return app;
}

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "toolplane-request-ids-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function call({ tools }: Clients, tool: string, requestId = "") {
  const { result, info } = await tools.callTool({
    call: { tool, requestId, input: { case: "arguments", value: { text: "x" } } },
  });
  expect.assert(result?.value.case === "json");
  return { json: toJson(ValueSchema, result.value.value) as JsonObject, source: info?.source };
}

/** The command `toolplane serve` in a process of its own. */
async function serveElsewhere(databaseUrl: string): Promise<{ url: string; process: ChildProcess }> {
  const script = fileURLToPath(new URL("../client/cli/main.ts", import.meta.url));
  const args = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--data-dir",
    await makeFolder(),
    "--database-url",
    databaseUrl,
  ];
  const child = spawn(process.execPath, ["--conditions=toolplane-source", script, ...args], {
    stdio: ["ignore", "pipe", "ignore"],
    env: { PATH: process.env["PATH"] },
  });
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? [];
    if (url !== undefined) {
      return { url, process: child };
    }
  }
  return expect.unreachable("it did not start");
}

test("the outcome of a call is the same after a restart", async () => {
  const dataDir = await makeFolder();
  const first = await start({ dataDir });
  const before = clientsOf(first);
  const instances = await startFaultInstances({ registry: before.registry, service: "kept" });
  const requestId = randomUUID();
  const done = await call(before, "kept.Write", requestId);
  expect(done.source).toBe(ResultSource.BACKEND);
  await first.close();
  const after = clientsOf(await start({ dataDir }));
  expect(await call(after, "kept.Write", requestId)).toEqual({
    json: done.json,
    source: ResultSource.REQUEST_ID,
  });
  expect(await instances.counts()).toMatchObject([{ writes: 1 }]);
});

test("a call whose server is killed while it is made is made again with its id, by whoever is asked next", async () => {
  const databaseUrl = await createTestDatabaseUrl();
  const doomed = await serveElsewhere(databaseUrl);
  const instances = await startFaultInstances({ registry: clientsOf(doomed).registry, service: "doomed" });
  instances.fail(0, { hangRate: 1 });
  const requestId = randomUUID();
  const lost = call(clientsOf(doomed), "doomed.Write", requestId).then(
    () => "done",
    () => "lost",
  );
  await expect.poll(() => instances.counts()).toMatchObject([{ writeCalls: 1, writes: 0 }]);
  doomed.process.kill("SIGKILL");
  await once(doomed.process, "exit");
  expect(await lost).toBe("lost");
  instances.fail(0, {});
  const other = clientsOf(await start({ databaseUrl }));
  // As the end of the lease would.
  const database = new pg.Client({ connectionString: databaseUrl });
  await database.connect();
  onTestFinished(() => database.end());
  await database.query("UPDATE idempotency_requests SET lease_until = now()");
  expect(await call(other, "doomed.Write", requestId)).toMatchObject({
    json: { writes: "1" },
    source: ResultSource.BACKEND,
  });
  expect(await call(other, "doomed.Write", requestId)).toMatchObject({ source: ResultSource.REQUEST_ID });
  expect(await instances.counts()).toMatchObject([{ writeCalls: 2, writes: 1 }]);
});

test("callers share nothing: neither a call in flight, nor an answer, nor an id", async () => {
  const operatorKey = "operator-key-for-tests-0123456789abcdef";
  const app = await start({
    env: { TOOLPLANE_OPERATOR_KEY: operatorKey },
    config: `{ auth: { required: true }, outbound: { tools: [{ tool: "private.*.Read", cache_ttl: 60s }] } }`,
  });
  const operator = clientsOf(app, operatorKey);
  const [ada, ben] = await Promise.all(
    ["ada", "ben"].map(async (name) => {
      const { secret } = await operator.admin.createApiKey({ name, role: Role.CALLER });
      return clientsOf(app, secret);
    }),
  );
  expect.assert(ada !== undefined && ben !== undefined);
  const instances = await startFaultInstances({ registry: operator.registry, service: "private" });
  const shared = await startFaultInstances({ registry: operator.registry, service: "secret" });
  shared.fail(0, { latency: { nanos: 200_000_000 } });
  const inFlight = await Promise.all([ada, ada, ben, ben].map((caller) => call(caller, "secret.Read")));
  expect(inFlight.map(({ source }) => source).toSorted()).toEqual([
    ResultSource.BACKEND,
    ResultSource.BACKEND,
    ResultSource.SHARED,
    ResultSource.SHARED,
  ]);
  expect(await shared.counts()).toMatchObject([{ reads: 2 }]);
  const kept = [];
  for (const caller of [ada, ada, ben, ben]) {
    kept.push((await call(caller, "private.Read")).source);
  }
  expect(kept).toEqual([ResultSource.BACKEND, ResultSource.CACHE, ResultSource.BACKEND, ResultSource.CACHE]);
  const requestId = randomUUID();
  expect((await call(ada, "private.Write", requestId)).json).toMatchObject({ writes: "1" });
  expect((await call(ben, "private.Write", requestId)).json).toMatchObject({ writes: "2" });
  expect((await call(ada, "private.Write", requestId)).json).toMatchObject({ writes: "1" });
  expect(await instances.counts()).toMatchObject([{ reads: 2, writes: 2 }]);
});
