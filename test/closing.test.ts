import { fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, serve } from "@toolplane/framework";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { Lifetime } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { ResultSource, ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { startTestApp } from "./support/test-app.ts";

test("a server that was closed leaves nothing behind that keeps the process alive", async () => {
  const child = fork(join(import.meta.dirname, "support/start-and-close.ts"), {
    execArgv: ["--conditions=toolplane-source"],
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let errors = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  const [code] = await once(child, "exit");
  expect({ code, errors }).toEqual({ code: 0, errors: "" });
});

test("calls that run when a server is closed come to their end, and what came of them is kept", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-closing-"));
  onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  const asked = Promise.withResolvers<void>();
  const proceed = Promise.withResolvers<void>();
  let calls = 0;
  const backend = await serve({
    name: "text",
    register: false,
    logger: createLogger({ level: "silent" }),
    routes: (router) =>
      router.service(TextService, {
        async analyzeText() {
          calls++;
          asked.resolve();
          await proceed.promise;
          return { words: calls };
        },
      }),
  });
  onTestFinished(() => backend.close());
  const start = async () => {
    const app = await startTestApp({ dataDir, config: "outbound: { cache: { durable: true } }" });
    onTestFinished(() => app.close());
    const transport = createGrpcTransport({ baseUrl: app.url });
    const tools = createClient(ToolService, transport);
    const analyze = (requestId: string) =>
      tools.callTool({
        call: { tool: "text.AnalyzeText", requestId, input: { case: "arguments", value: { text: "one" } } },
      });
    return { app, analyze, registry: createClient(RegistryService, transport) };
  };
  const first = await start();
  await first.registry.registerService({
    service: { name: "text" },
    instance: { endpoint: backend.url, lifetime: Lifetime.PERMANENT },
    requestId: randomUUID(),
  });
  const requestId = randomUUID();
  // One whose outcome is recorded, one whose answer is kept.
  const running = [first.analyze(requestId), first.analyze("")];
  await asked.promise;
  const closed = first.app.close();
  await expect.poll(() => fetch(`${first.app.url}/healthz`).catch(() => "refused")).toBe("refused");
  proceed.resolve();
  await expect(Promise.all(running)).resolves.toHaveLength(2);
  await closed;
  expect(calls).toBe(2);

  const second = await start();
  expect((await second.analyze(requestId)).info?.source).not.toBe(ResultSource.BACKEND);
  expect((await second.analyze("")).info?.source).toBe(ResultSource.CACHE);
  expect(calls).toBe(2);
});
