import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger } from "@toolplane/framework";
import { createBatcher } from "@toolplane/framework/policies";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import {
  createHealthHistoryStore,
  type HealthHistoryStore,
  type HealthRecord,
} from "../server/registry/health/history-store.ts";
import { openDatabase } from "../server/storage/database.ts";
import { isTransientDatabaseError } from "../server/storage/transient.ts";
import type { BenchRow } from "./row.ts";

const ROWS = 20_000;
const SINGLE_ROWS = 4_000;
const PRODUCERS = 200;

/** Rows a second that are acknowledged as durable: grouped, against one insert for each. Producers await each row. */
export async function run(): Promise<BenchRow[]> {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
  const logger = createLogger({ level: "error" });
  const database = await openDatabase({ dataDir, logger });
  try {
    const store = createHealthHistoryStore(database);
    // Warms up connections and plans.
    await single(store, 200);
    const peer = await single(store, SINGLE_ROWS);
    const { rate: ours, averageItems, maxWaitMs } = await grouped(store);
    return [
      {
        area: "batch",
        what: `durable rows a second, ${PRODUCERS} producers that await each`,
        ours: ours.toFixed(0),
        peer: peer.toFixed(0),
        peerName: "one INSERT a row",
        ratio: `${(ours / peer).toFixed(1)}×`,
        target: "faster",
        pass: ours > peer,
      },
      {
        area: "batch",
        what: "rows a write; longest wait for the acknowledgement",
        ours: `${averageItems.toFixed(0)}; ${maxWaitMs.toFixed(0)} ms`,
        peer: "–",
        peerName: "",
        ratio: "–",
        target: "–",
        pass: true,
      },
    ];
  } finally {
    await database.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

function single(store: HealthHistoryStore, rows: number): Promise<number> {
  return produce(rows, (row) => store.append([row]));
}

async function grouped(store: HealthHistoryStore) {
  const batcher = createBatcher<HealthRecord>({
    name: "bench",
    maxDelayMs: 5,
    write: (rows) => store.append(rows),
    isTransient: isTransientDatabaseError,
  });
  const rate = await produce(ROWS, (row) => batcher.add(row));
  await batcher.close();
  return { rate, ...batcher.stats() };
}

/** Rows a second. */
async function produce(rows: number, write: (row: HealthRecord) => Promise<void>): Promise<number> {
  let left = rows;
  const producer = async () => {
    while (left-- > 0) {
      await write({
        name: "weather",
        environment: "default",
        version: "1.0.0",
        instanceId: `i-${left % 100}`,
        status: HealthStatus.HEALTHY,
        message: "",
        latencyMs: 1.5,
        time: new Date(),
      });
    }
  };
  const begin = performance.now();
  await Promise.all(Array.from({ length: PRODUCERS }, producer));
  return (rows / (performance.now() - begin)) * 1_000;
}
