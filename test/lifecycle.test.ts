import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { createToolplane } from "@toolplane/client/node";
import { Lifetime } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { examples, startExample, startProcess } from "../scripts/examples.ts";

const CLI = join(import.meta.dirname, "..", "client", "cli", "main.ts");

let dataDir: string;
/** What has to be stopped at the end, last first. */
let running: { stop(): Promise<void> }[];

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "toolplane-lifecycle-"));
  running = [];
});

afterEach(async () => {
  for (const process of running.toReversed()) {
    await process.stop();
  }
  await rm(dataDir, { recursive: true, force: true });
});

/** The real server in a process of its own. */
async function startServer() {
  const server = await startProcess(
    [process.execPath, "--conditions=toolplane-source", CLI, "serve"],
    { TOOLPLANE_LISTEN: "127.0.0.1:0", TOOLPLANE_DATA_DIR: dataDir },
    /Address\s+(http:\S+)/,
  );
  running.push(server);
  return server;
}

function connect(url: string) {
  const toolplane = createToolplane({ url });
  running.push({ stop: async () => toolplane.close() });
  return toolplane;
}

test("a killed instance is gone after its lease, and no call is sent to it from then on", async () => {
  const server = await startServer();
  const toolplane = connect(server.url);
  // Registers itself with a lease of 5 s.
  const service = await startExample(examples.text, { TOOLPLANE_URL: server.url });
  running.push(service);
  await vi.waitFor(() => toolplane.callTool("text.AnalyzeText", { text: "x" }), { timeout: 20_000 });

  await service.kill();
  for await (const { event } of toolplane.watchServices({ name: "text" })) {
    if (event.case === "removed") {
      expect(event.value.name).toBe("text");
      break;
    }
  }
  const error = await toolplane.callTool("text.AnalyzeText", { text: "x" }).catch(ConnectError.from);
  expect(error).toMatchObject({ code: Code.NotFound });
});

test("a server that was killed starts again with every registration that it had acknowledged", async () => {
  const first = await startServer();
  const service = await startExample(examples.text, { TOOLPLANE_URL: "" });
  running.push(service);
  const names = Array.from({ length: 10 }, (_, index) => `kept-${index}`);
  const before = connect(first.url);
  await Promise.all(
    names.map((name) =>
      before.registry.registerService({
        service: { name },
        instance: { endpoint: service.url, lifetime: Lifetime.PERMANENT },
        requestId: randomUUID(),
      }),
    ),
  );
  await first.kill();

  const second = await startServer();
  const after = connect(second.url);
  const { services } = await after.registry.listServices({ filter: { name: "kept-" } });
  expect(services.map(({ name }) => name)).toEqual(names);
  expect(await after.callTool("kept-7.AnalyzeText", { text: "one two" })).toMatchObject({ words: 2 });
});

test("/healthz says that the process lives, /readyz that its database answers", async () => {
  const server = await startServer();
  const status = async (path: string) => (await fetch(new URL(path, server.url))).status;
  expect([await status("/healthz"), await status("/readyz")]).toEqual([200, 200]);

  const pidFile = await readFile(join(dataDir, "postgres", "postmaster.pid"), "utf8");
  const connections = await backendsOf(Number(pidFile.split("\n", 1)[0]));
  for (const pid of connections) {
    process.kill(pid, "SIGSTOP");
  }
  try {
    expect(await status("/healthz")).toBe(200);
    await expect.poll(() => status("/readyz"), { interval: 200 }).toBe(503);
    expect(await status("/healthz")).toBe(200);
  } finally {
    for (const pid of connections) {
      process.kill(pid, "SIGCONT");
    }
  }
  await expect.poll(() => status("/readyz"), { interval: 200 }).toBe(200);
});

/** The postmaster and the processes that serve its connections. */
async function backendsOf(postmaster: number): Promise<number[]> {
  const children = await readFile(`/proc/${postmaster}/task/${postmaster}/children`, "utf8");
  return [postmaster, ...children.trim().split(" ").map(Number)];
}
