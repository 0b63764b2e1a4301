import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createLogger, systemClock } from "@toolplane/framework";
import { createRateLimiter, createSharedLimitSet, postgresCounters } from "@toolplane/framework/policies";
import { RateLimiterPostgres } from "rate-limiter-flexible";
import { type CallReport, type Order, processLimits } from "../framework/test-support/limiting-process.ts";
import { openDatabase } from "../server/storage/database.ts";
import { startPrivatePostgres } from "../server/storage/private-postgres.ts";
import type { BenchRow } from "./row.ts";

const ROUNDS = 9;
const CALLS = 300;
const KEYS = 50;
const ample = { limit: 100_000_000, periodMs: 60_000, burst: 100_000_000 };

/** A limit that processes share in PostgreSQL: what a decision takes, and how exactly it holds. */
export async function run(): Promise<BenchRow[]> {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
  const logger = createLogger({ level: "error" });
  const postgres = await startPrivatePostgres({ dataDir, logger, clock: systemClock });
  const { host, port, user } = postgres.address;
  const url = `postgres:///postgres?${new URLSearchParams({ host, port: String(port), user })}`;
  try {
    const database = await openDatabase({ url, dataDir, logger });
    try {
      return [...(await decisions(database.connections)), await twoProcesses(url)];
    } finally {
      await database.close();
    }
  } finally {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

type Pool = Awaited<ReturnType<typeof openDatabase>>["connections"];

async function decisions(pool: Pool): Promise<BenchRow[]> {
  const ours = createSharedLimitSet<string>({
    levels: [{ name: "bench", limiter: createRateLimiter(ample), keyOf: (key) => key }],
    store: postgresCounters({ pool }),
    deadlineMs: 5_000,
  });
  const full = createSharedLimitSet<string>({
    levels: [
      { name: "full", limiter: createRateLimiter({ limit: 1, periodMs: 3_600_000 }), keyOf: (key) => key },
    ],
    store: postgresCounters({ pool }),
    deadlineMs: 5_000,
  });
  const peer = new RateLimiterPostgres({
    storeClient: pool,
    tableName: "rate_limits",
    tableCreated: true,
    clearExpiredByTimeout: false,
    keyPrefix: "peer",
    points: ample.limit,
    duration: 60,
  });
  try {
    await full.take("key");
    const times = { ours: [] as number[], peer: [] as number[], refused: [] as number[] };
    for (let round = -1; round < ROUNDS; round++) {
      const own = await microseconds((index) => ours.take(`user:${index}`));
      const other = await microseconds((index) => peer.consume(`user:${index}`));
      const refused = await microseconds(() => full.take("key"));
      if (round >= 0) {
        times.ours.push(own);
        times.peer.push(other);
        times.refused.push(refused);
      }
    }
    const [own, other, refused] = [median(times.ours), median(times.peer), median(times.refused)];
    return [
      {
        ...row("one decision that replicas share in PostgreSQL", `${own.toFixed(0)} µs`),
        peer: `${other.toFixed(0)} µs`,
        peerName: "RateLimiterPostgres",
        ratio: `${(other / own).toFixed(2)}×`,
      },
      {
        ...row("the same, refused by this process", `${refused.toFixed(2)} µs`),
        target: "< 10 µs",
        pass: refused < 10,
      },
    ];
  } finally {
    ours.close();
    full.close();
  }
}

/** Both call at once, with twice as many calls for each key as may come at once. */
async function twoProcesses(url: string): Promise<BenchRow> {
  const { burst } = processLimits.caller;
  const keys = Array.from({ length: KEYS }, (_, index) => `bench-${index}`);
  const order: Order = { kind: "call", keys, callsPerKey: burst * 2, atOnce: 10 };
  const processes = await Promise.all([start(url), start(url)]);
  try {
    const reports = await Promise.all(processes.map((each) => tell(each, order)));
    const counts = keys.map((key) => reports.reduce((sum, { allowed }) => sum + (allowed[key] ?? 0), 0));
    const most = Math.max(...counts);
    return {
      ...row(
        `most calls of a key that two processes let through of ${burst * 4}, ${burst} at once`,
        String(most),
      ),
      // At the edge of two windows twice as many may come.
      target: `≤ ${burst}, or ${burst * 2} at an edge`,
      pass: most >= burst && most <= burst * 2,
    };
  } finally {
    for (const each of processes) {
      each.disconnect();
    }
  }
}

async function start(url: string): Promise<ChildProcess> {
  const file = new URL("../framework/test-support/limiting-process.ts", import.meta.url);
  const child = fork(fileURLToPath(file), ["postgres", url], {
    execArgv: ["--conditions=toolplane-source"],
  });
  await once(child, "message");
  return child;
}

function tell(child: ChildProcess, order: Order): Promise<CallReport> {
  return new Promise((resolve) => {
    child.on("message", ({ report }: { readonly report?: CallReport }) => report && resolve(report));
    child.send(order);
  });
}

/** A call, of calls one after the other. */
async function microseconds(decide: (index: number) => unknown): Promise<number> {
  const begin = performance.now();
  for (let index = 0; index < CALLS; index++) {
    await decide(index);
  }
  return ((performance.now() - begin) * 1_000) / CALLS;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function row(what: string, ours: string): BenchRow {
  return { area: "rate limits", what, ours, peer: "–", peerName: "", ratio: "–", target: "–", pass: true };
}
