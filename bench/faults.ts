import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { JsonObject } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLogger, systemClock } from "@toolplane/framework";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { createApp, loadSettings } from "@toolplane/server";
import type { BenchRow } from "./row.ts";

/** Every instance takes so long when it is well. */
const WELL = { latency: "0.005s" };
/** How many callers call at once, one call after the other. */
const CALLERS = 8;
/** What the first seconds are, which do not count, and how long is measured. In milliseconds. */
const SETTLE_MS = 4_000;
const MEASURE_MS = 8_000;

interface Load {
  readonly calls: number;
  readonly successes: number;
  readonly p99Ms: number;
}

interface Clients {
  readonly admin: Client<typeof AdminService>;
  readonly tools: Client<typeof ToolService>;
}

/** Without limits on callers: they are not what is measured. */
const CONFIG = `
inbound:
  global: {unlimited: true}
  per_caller: {unlimited: true}
  concurrency: {disabled: true}
outbound:
  deduplication: {disabled: true}
`;

/** One of three instances fails, hangs or crawls: what callers notice of it after the first seconds. */
export async function run(): Promise<BenchRow[]> {
  const backend = fork(fileURLToPath(new URL("faults-backend.ts", import.meta.url)), {
    execArgv: ["--conditions=toolplane-source"],
  });
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-faults-"));
  const config = join(dataDir, "config.yaml");
  await writeFile(config, CONFIG);
  const app = await createApp({
    settings: loadSettings({ listen: "127.0.0.1:0", dataDir: join(dataDir, "data"), config }, {}),
    clock: systemClock,
    env: {},
    logger: createLogger({ level: "error" }),
  });
  try {
    const [urls] = (await once(backend, "message")) as [string[]];
    const transport = createGrpcTransport({ baseUrl: app.url });
    await register(createClient(RegistryService, transport), urls);
    const clients = {
      admin: createClient(AdminService, transport),
      tools: createClient(ToolService, transport),
    };
    return await measureAll(backend, clients);
  } finally {
    await app.close();
    await rm(dataDir, { recursive: true, force: true });
    backend.disconnect();
    await once(backend, "exit");
  }
}

async function register(registry: Client<typeof RegistryService>, urls: readonly string[]): Promise<void> {
  for (const [index, endpoint] of urls.entries()) {
    await registry.registerService({
      service: { name: "faults", version: "1.0.0" },
      instance: { id: `i${index}`, endpoint, leaseTtl: { seconds: 3600n } },
    });
  }
  for (;;) {
    const { service } = await registry.getService({ service: { name: "faults" } });
    if (service?.instances.every(({ health }) => health === HealthStatus.HEALTHY)) {
      return;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function measureAll(backend: ChildProcess, clients: Clients): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const [tool, kind] of [
    ["faults.Read", "calls that may be repeated"],
    ["faults.Write", "calls that may not"],
  ] as const) {
    const healthy = await measure(backend, clients, tool, WELL);
    for (const [what, faults] of [
      ["fails", { ...WELL, errorRate: 1 }],
      ["fails with INTERNAL", { ...WELL, errorRate: 1, errorCode: "INTERNAL" }],
      ["hangs", { hangRate: 1 }],
      ["crawls", { latency: "1s" }],
      ["resets connections", { ...WELL, disconnectRate: 1 }],
      ["answers with garbage", { ...WELL, badFrameRate: 1 }],
    ] as const) {
      const load = await measure(backend, clients, tool, faults);
      rows.push(toRow(`one of three ${what}, ${kind}`, load, healthy));
    }
  }
  return rows;
}

async function measure(
  backend: ChildProcess,
  { admin, tools }: Clients,
  tool: string,
  faults: JsonObject,
): Promise<Load> {
  for (let index = 0; index < 3; index++) {
    backend.send([index, index === 2 ? faults : WELL]);
    await once(backend, "message");
  }
  const { breakers } = await admin.listBreakers({ pageSize: 1_000 });
  for (const name of [...breakers.map((breaker) => breaker.name), "i0", "i1", "i2"]) {
    await admin.resetBreaker({ name }).catch(() => undefined);
  }
  const began = performance.now();
  const latencies: number[] = [];
  let successes = 0;
  async function callOn(): Promise<void> {
    for (;;) {
      const start = performance.now();
      if (start - began >= SETTLE_MS + MEASURE_MS) {
        return;
      }
      const call = {
        tool,
        input: { case: "arguments", value: { text: "x" } },
        timeout: { seconds: 10n },
      } as const;
      const succeeded = await tools.callTool({ call }).then(
        () => true,
        () => false,
      );
      if (start - began >= SETTLE_MS) {
        latencies.push(performance.now() - start);
        successes += succeeded ? 1 : 0;
      }
    }
  }
  await Promise.all(Array.from({ length: CALLERS }, callOn));
  latencies.sort((one, other) => one - other);
  return {
    calls: latencies.length,
    successes,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? Number.POSITIVE_INFINITY,
  };
}

function toRow(what: string, load: Load, healthy: Load): BenchRow {
  const rate = load.successes / load.calls;
  const ratio = load.p99Ms / healthy.p99Ms;
  return {
    area: "faults",
    what: `${what}: p99 after ${SETTLE_MS / 1_000} s, ${(rate * 100).toFixed(2)} % of ${load.calls} calls succeed`,
    ours: `${load.p99Ms.toFixed(1)} ms`,
    peer: `${healthy.p99Ms.toFixed(1)} ms`,
    peerName: "all three well",
    ratio: `${ratio.toFixed(2)}×`,
    target: "≤ 2×, ≥ 99.9 %",
    pass: rate >= 0.999 && ratio <= 2,
  };
}
