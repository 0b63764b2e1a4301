import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger } from "@toolplane/framework";
import { createResponseCache, type ResponseCache } from "@toolplane/framework/policies";
import { openPostgresCacheStore } from "../server/cache/postgres-store.ts";
import { openDatabase } from "../server/storage/database.ts";
import type { BenchRow } from "./row.ts";

const ENTRIES = 50_000;
const HITS = 200_000;
const STORED = 3_000;
const VALUE_BYTES = 1_024;

/** What an answer from memory and from PostgreSQL costs, signatures included, and how many loads a stampede makes. */
export async function run(): Promise<BenchRow[]> {
  return [await memoryHits(), ...(await durableHits()), await stampede()];
}

async function memoryHits(): Promise<BenchRow> {
  const cache = createResponseCache({ name: "bench" });
  await fill(cache, ENTRIES);
  const times = await time(HITS, (index) => ask(cache, (index * 7_919) % ENTRIES));
  return toRow(`hit in memory, ${ENTRIES} answers of 1 KiB, p99`, percentile(times, 0.99), 1);
}

async function durableHits(): Promise<BenchRow[]> {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
  const logger = createLogger({ level: "error" });
  const database = await openDatabase({ dataDir, logger });
  const store = await openPostgresCacheStore({ database, logger });
  const durable = { store, secrets: [randomBytes(32)] };
  try {
    const writer = createResponseCache({ name: "bench", durable });
    const begin = performance.now();
    await fill(writer, STORED);
    await writer.flush();
    const writeMs = performance.now() - begin;

    // Others that have nothing in memory yet; the first warms the connections up.
    await time(STORED, pickFrom(createResponseCache({ name: "bench", durable })));
    const alone = await time(STORED, pickFrom(createResponseCache({ name: "bench", durable })));
    const many = createResponseCache({ name: "bench", durable });
    const atOnce = (
      await Promise.all([0, 1, 2, 3].map((lane) => time(STORED / 4, pickFrom(many, lane, 4))))
    ).flat();
    const { durableHits: found, misses } = many.stats();
    return [
      toRow(`hit in PostgreSQL, ${STORED} answers of 1 KiB, p99`, percentile(alone, 0.99), 50),
      toRow("hit in PostgreSQL, 4 calls at once, p99", percentile(atOnce, 0.99), 50),
      {
        ...toRow("", 0, 0),
        what: "answers found in PostgreSQL by another replica",
        ours: `${found} of ${found + misses}`,
        target: `${STORED}`,
        pass: found === STORED,
      },
      {
        ...toRow("", 0, 0),
        what: "misses a second, each looked up in, signed for and written to PostgreSQL",
        ours: Math.round((STORED / writeMs) * 1_000).toString(),
        target: "–",
        pass: true,
      },
    ];
  } finally {
    await store.close();
    await database.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function stampede(): Promise<BenchRow> {
  const cache = createResponseCache({ name: "bench" });
  let loads = 0;
  const load = async () => {
    loads++;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return { value: randomBytes(VALUE_BYTES) };
  };
  await Promise.all(Array.from({ length: 100 }, () => cache.getOrLoad("k", load)));
  return {
    ...toRow("", 0, 0),
    what: "loads for 100 calls at once for what is not there",
    ours: String(loads),
    target: "1",
    pass: loads === 1,
  };
}

async function fill(cache: ResponseCache, count: number): Promise<void> {
  for (let index = 0; index < count; index++) {
    await cache.getOrLoad(`key ${index}`, async () => ({ value: randomBytes(VALUE_BYTES) }), {
      tags: ["tool/bench"],
    });
  }
}

function pickFrom(cache: ResponseCache, offset = 0, step = 1): (index: number) => Promise<void> {
  return (index) => ask(cache, offset + index * step);
}

async function ask(cache: ResponseCache, index: number): Promise<void> {
  await cache.getOrLoad(`key ${index}`, async () => ({ value: randomBytes(VALUE_BYTES) }));
}

/** How long each of so many runs takes, in milliseconds. */
async function time(count: number, run: (index: number) => Promise<void>): Promise<number[]> {
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const begin = performance.now();
    await run(index);
    times.push(performance.now() - begin);
  }
  return times;
}

function percentile(times: readonly number[], share: number): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * share)] ?? Number.NaN;
}

function toRow(what: string, ms: number, limitMs: number): BenchRow {
  return {
    area: "cache",
    what,
    ours: `${ms.toFixed(3)} ms`,
    peer: "–",
    peerName: "",
    ratio: "–",
    target: `< ${limitMs} ms`,
    pass: ms < limitMs,
  };
}
