// A server's registry in a process of its own, so that its memory and its start can be measured. Prints one JSON object.
//
// Arguments: the URL of a database that is filled already.
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { createLogger, serve, systemClock } from "@toolplane/framework";
import { RegistryService, ToolView } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { InstanceSpecSchema, ServiceSpecSchema } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { createSecretResolver } from "../server/config/secrets.ts";
import { createConnectionPool } from "../server/pool/index.ts";
import { createRegistry, type Registry } from "../server/registry/registry.ts";
import { registryRoutes } from "../server/registry/service.ts";
import { openDatabase } from "../server/storage/database.ts";
import { createNumbers, describeQuery } from "./registry-corpus.ts";

export interface Measurements {
  readonly services: number;
  readonly tools: number;
  readonly startMs: number;
  readonly indexedMs: number;
  readonly startedMb: number;
  readonly readMb: number;
  readonly getP99Ms: number;
  readonly searchP50Ms: number;
  readonly searchP99Ms: number;
  readonly longestPauseMs: number;
  readonly callableMs: number;
  readonly watcherP99Ms: number;
}

const GETS = 20_000;
const SEARCHES = 4_000;
const CHANGES = 50;

const [url = ""] = process.argv.slice(2);
const logger = createLogger({ level: "error" });
const parts = { clock: systemClock, logger };
const options = {
  defaultLeaseTtlMs: 30_000,
  discoveryTimeoutMs: 4_000,
  refreshIntervalMs: 300_000,
  maxToolsPerService: 5_000,
  health: { intervalMs: 60_000, timeoutMs: 5_000, retentionMs: 86_400_000 },
};

async function openReplica(): Promise<{ registry: Registry; close(): Promise<void> }> {
  const database = await openDatabase({ url, dataDir: tmpdir(), ...parts });
  const pool = createConnectionPool(parts);
  const secrets = createSecretResolver([], {});
  const registry = await createRegistry({ database, pool, secrets, options, ...parts });
  return {
    registry,
    async close() {
      await registry.close();
      await pool.close();
      await database.close();
    },
  };
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Follows how late timers are: how long other requests had to wait at most. */
function watchPauses(): () => number {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last - 1);
    last = now;
  }, 1);
  return () => {
    clearInterval(timer);
    return longest;
  };
}

// Start: from nothing in memory to serving.
const { registry, close } = await openReplica();
const server = await serve({ name: "bench", routes: registryRoutes(registry), register: false, logger });
const startMs = performance.now();
const pauses = watchPauses();
await registry.searchTools({ query: "x", filter: undefined, view: ToolView.BASIC, pageSize: 1 });
const indexedMs = performance.now();
const longestPauseMs = pauses();
const { services, tools } = registry.counts();
const startedMb = process.memoryUsage().rss / 1e6;

// Reads.
const number = createNumbers();
const names: string[] = [];
for (let pageToken = ""; names.length < tools; ) {
  const page = registry.listTools({ filter: undefined, view: ToolView.BASIC, pageSize: 1_000, pageToken });
  names.push(...page.items.map(({ name }) => name));
  pageToken = page.nextPageToken;
  if (pageToken === "") {
    break;
  }
  await sleep(0);
}
const gets: number[] = [];
for (let count = 0; count < GETS; count++) {
  const name = names[number(names.length)] ?? "";
  const start = performance.now();
  registry.getTool(name, {});
  gets.push(performance.now() - start);
}
const searches: number[] = [];
for (let count = 0; count < SEARCHES; count++) {
  const query = describeQuery(number);
  const start = performance.now();
  await registry.searchTools({ query, filter: undefined, view: ToolView.BASIC, pageSize: 10 });
  searches.push(performance.now() - start);
}
gets.sort((left, right) => left - right);
searches.sort((left, right) => left - right);
const readMb = process.memoryUsage().rss / 1e6;

// Writes: a real server by reflection, and changes seen by a watcher of another replica.
const backend = await serve({
  name: "backend",
  routes: (router) => router.service(RegistryService, {}),
  register: false,
  logger,
});
const registering = performance.now();
await registry.register(
  create(ServiceSpecSchema, { name: "bench-backend" }),
  create(InstanceSpecSchema, { endpoint: backend.url }),
);
registry.resolveTool("bench-backend.GetTool", {});
const callableMs = performance.now() - registering;

const other = await openReplica();
const leave = new AbortController();
const seen = new Map<string, number>();
const watching = (async () => {
  for await (const { event } of other.registry.watch(undefined, undefined, leave.signal)) {
    if (event.case === "updated") {
      seen.set(event.value.name, performance.now());
    }
  }
})();
await other.registry.searchTools({ query: "x", filter: undefined, view: ToolView.BASIC, pageSize: 1 });
while (seen.size < services) {
  await sleep(5);
}
const manual = { utcp_version: "1.0.0", manual_version: "1.0.0", tools: [] };
const delays: number[] = [];
for (let count = 0; count < CHANGES; count++) {
  const name = `bench-change-${count}`;
  const start = performance.now();
  await registry.register(
    create(ServiceSpecSchema, {
      name,
      source: { kind: { case: "utcpManual", value: { manual: { case: "inline", value: manual } } } },
      healthCheck: { kind: { case: "none", value: {} } },
    }),
    create(InstanceSpecSchema, { endpoint: "127.0.0.1:1" }),
  );
  while (!seen.has(name)) {
    await sleep(1);
  }
  delays.push((seen.get(name) ?? 0) - start);
}
delays.sort((left, right) => left - right);
leave.abort();
await watching;

const measurements: Measurements = {
  services,
  tools,
  startMs,
  indexedMs,
  startedMb,
  readMb,
  getP99Ms: percentile(gets, 0.99),
  searchP50Ms: percentile(searches, 0.5),
  searchP99Ms: percentile(searches, 0.99),
  longestPauseMs,
  callableMs,
  watcherP99Ms: percentile(delays, 0.99),
};
process.stdout.write(JSON.stringify(measurements));
await Promise.all([backend.close(), server.close(), other.close(), close()]);
