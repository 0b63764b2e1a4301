import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createLogger, systemClock } from "@toolplane/framework";
import { sql } from "kysely";
import { type OpenEventLog, openEventLog } from "../server/event-log/open-event-log.ts";
import { type Database, openDatabase } from "../server/storage/database.ts";
import type { WatchersMeasurements } from "./event-log-watchers.ts";
import type { BenchRow } from "./row.ts";

/** About as large as the result of a test that passed. */
const EVENT = Buffer.alloc(200, "e");
const STREAMS = 20;
const SINGLE_EVENTS = 20_000;
const NAIVE_EVENTS = 3_000;
const PRODUCERS = 200;
const BATCHES = 1_000;
const BATCH_EVENTS = 100;
const BATCH_WRITERS = 8;
const TOLD_EVENTS = 500;

/** How fast events become durable and are told, and what a thousand watchers cost. */
export async function run(): Promise<BenchRow[]> {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
  const logger = createLogger({ level: "error" });
  const database = await openDatabase({ dataDir, logger });
  const log = await openEventLog({ database, clock: systemClock, logger });
  try {
    for (let stream = 0; stream < STREAMS; stream++) {
      await createStream(database, log, `stream-${stream}`);
    }
    // Warms up connections and plans.
    await single(log, 1_000);
    await naive(database, 200);
    const peer = await naive(database, NAIVE_EVENTS);
    const singles = await single(log, SINGLE_EVENTS);
    const batches = await batched(log);
    const told = await tell(database, log);
    return [
      {
        ...row(`durable events a second, ${PRODUCERS} producers that await each`, singles.toFixed(0)),
        ...against(singles, peer),
        target: "≥ 10,000",
        pass: singles >= 10_000,
      },
      {
        ...row(
          `durable events a second, ${BATCH_WRITERS} writers of one stream, ${BATCH_EVENTS} events at once`,
          batches.toFixed(0),
        ),
        ...against(batches, peer),
        target: "≥ 10,000",
        pass: batches >= 10_000,
      },
      {
        ...row("from an append until a watcher of another replica is told, p50; p99", toTimes(told)),
        target: "p99 < 50 ms",
        pass: percentile(told, 0.99) < 50,
      },
      ...toRows(await watchers()),
    ];
  } finally {
    await log.close();
    await database.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

function single(log: OpenEventLog, count: number): Promise<number> {
  return produce(count, PRODUCERS, 1, (index) =>
    log.append({ stream: `stream-${index % STREAMS}`, events: [EVENT] }),
  );
}

async function batched(log: OpenEventLog): Promise<number> {
  const events = Array.from({ length: BATCH_EVENTS }, () => EVENT);
  return produce(BATCHES, BATCH_WRITERS, BATCH_EVENTS, () => log.append({ stream: "stream-0", events }));
}

/** As one writes it at first: a transaction for each event. */
function naive({ kysely }: Database, count: number): Promise<number> {
  return produce(count, PRODUCERS, 1, (index) =>
    kysely.transaction().execute(async (transaction) => {
      const { rows } = await sql<{ id: string; last_sequence: string }>`
        UPDATE event_streams SET last_sequence = last_sequence + 1
        WHERE name = ${`stream-${index % STREAMS}`} RETURNING id, last_sequence
      `.execute(transaction);
      const [stream] = rows;
      await sql`INSERT INTO event_log VALUES (${stream?.id}, ${stream?.last_sequence}, ${EVENT})`.execute(
        transaction,
      );
    }),
  );
}

/** Events a second. */
async function produce(
  calls: number,
  producers: number,
  eventsACall: number,
  append: (index: number) => Promise<unknown>,
): Promise<number> {
  let left = calls;
  const producer = async () => {
    while (left > 0) {
      await append(left--);
    }
  };
  const begin = performance.now();
  await Promise.all(Array.from({ length: producers }, producer));
  return ((calls * eventsACall) / (performance.now() - begin)) * 1_000;
}

/** Milliseconds from each append until it is told elsewhere. */
async function tell(database: Database, log: OpenEventLog): Promise<number[]> {
  const other = await openEventLog({
    database,
    clock: systemClock,
    logger: createLogger({ level: "error" }),
  });
  await createStream(database, log, "told");
  const times: number[] = [];
  let begin = 0;
  let isTold = Promise.withResolvers<void>();
  const follow = async () => {
    for await (const news of other.watch("told", { signal: new AbortController().signal })) {
      if (news.kind === "events") {
        times.push(performance.now() - begin);
      }
      isTold.resolve();
    }
  };
  const following = follow();
  await isTold.promise;
  for (let count = 0; count < TOLD_EVENTS; count++) {
    isTold = Promise.withResolvers();
    begin = performance.now();
    await log.append({ stream: "told", events: [EVENT] });
    await isTold.promise;
  }
  await log.append({ stream: "told", events: [], close: true });
  await following;
  await other.close();
  return times;
}

async function watchers(): Promise<WatchersMeasurements> {
  const child = fork(fileURLToPath(new URL("./event-log-watchers.ts", import.meta.url)), {
    execArgv: ["--conditions=toolplane-source", "--expose-gc"],
  });
  const [measurements] = await once(child, "message");
  return measurements as WatchersMeasurements;
}

function toRows(measured: WatchersMeasurements): BenchRow[] {
  const crowd = `${measured.watchers} watchers of ${measured.events} events`;
  return [
    {
      ...row(
        `${crowd}, half late, some stalled or reconnecting: with the whole sequence`,
        `${measured.complete}`,
      ),
      target: `${measured.watchers}`,
      pass: measured.complete === measured.watchers,
    },
    row(`${crowd}: events told a second`, measured.toldPerSecond.toFixed(0)),
    {
      ...row(
        "their memory: live at the most; pages in memory; peak RSS against before",
        `${measured.liveMb.toFixed(0)} MB; ${measured.pagesMb.toFixed(1)} MB; ${measured.rssMb.toFixed(0)} MB`,
      ),
      target: "live < 64 MB",
      pass: measured.liveMb < 64,
    },
  ];
}

async function createStream({ kysely }: Database, log: OpenEventLog, stream: string): Promise<void> {
  await kysely.transaction().execute((transaction) => log.create(transaction, stream));
}

function row(what: string, ours: string): BenchRow {
  return { area: "event log", what, ours, peer: "–", peerName: "", ratio: "–", target: "–", pass: true };
}

function against(ours: number, peer: number): Pick<BenchRow, "peer" | "peerName" | "ratio"> {
  return {
    peer: peer.toFixed(0),
    peerName: "one transaction an event",
    ratio: `${(ours / peer).toFixed(1)}×`,
  };
}

function toTimes(times: readonly number[]): string {
  return `${percentile(times, 0.5).toFixed(1)} ms; ${percentile(times, 0.99).toFixed(1)} ms`;
}

function percentile(times: readonly number[], share: number): number {
  return times.toSorted((one, other) => one - other)[Math.floor(times.length * share)] ?? Number.NaN;
}
