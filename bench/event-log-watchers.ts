// A thousand watchers of one stream in a process of its own, so that its memory can be measured. Sends its parent one
// message with the measurements.
import { hash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, systemClock } from "@toolplane/framework";
import { openEventLog } from "../server/event-log/open-event-log.ts";
import { openDatabase } from "../server/storage/database.ts";

export interface WatchersMeasurements {
  readonly watchers: number;
  readonly events: number;
  /** Watchers that were told every event, once and in order. */
  readonly complete: number;
  readonly toldPerSecond: number;
  /** What was really in use at the most, beyond what was before: heap and buffers after collections. */
  readonly liveMb: number;
  readonly pagesMb: number;
  readonly rssMb: number;
}

const WATCHERS = 1_000;
const EVENTS = 10_000;
const EVENT_BYTES = 200;
const BATCH = 100;
const MIB = 2 ** 20;

const dataDir = await mkdtemp(join(tmpdir(), "toolplane-bench-"));
const logger = createLogger({ level: "error" });
const database = await openDatabase({ dataDir, logger });
const log = await openEventLog({ database, clock: systemClock, logger });
await database.kysely.transaction().execute((transaction) => log.create(transaction, "run"));

const before = { live: live(), rss: process.memoryUsage().rss };
let peakLive = 0;
let peakRss = 0;
let peakPages = 0;
const closed = Promise.withResolvers<void>();

const begin = performance.now();
const watching = Array.from({ length: WATCHERS / 2 }, (_, index) => watch(index));
let checksum = "";
for (let sent = 0; sent < EVENTS; sent += BATCH) {
  const events = Array.from({ length: BATCH }, (_, index) =>
    Buffer.from(`event ${sent + index} `.padEnd(EVENT_BYTES, ".")),
  );
  for (const event of events) {
    checksum = mix(checksum, event);
  }
  await log.append({ stream: "run", events });
  if (sent === EVENTS / 2) {
    watching.push(...Array.from({ length: WATCHERS / 2 }, (_, index) => watch(index)));
  }
  measure(sent % 1_000 === 0);
}
await log.append({ stream: "run", events: [], close: true });
closed.resolve();
const sampler = setInterval(() => measure(true), 250);
const checksums = await Promise.all(watching);
clearInterval(sampler);
const seconds = (performance.now() - begin) / 1_000;
measure(true);

const measurements: WatchersMeasurements = {
  watchers: WATCHERS,
  events: EVENTS,
  complete: checksums.filter((each) => each === checksum).length,
  toldPerSecond: (WATCHERS * EVENTS) / seconds,
  liveMb: (peakLive - before.live) / MIB,
  pagesMb: peakPages / MIB,
  rssMb: (peakRss - before.rss) / MIB,
};
process.send?.(measurements);
await log.close();
await database.close();
await rm(dataDir, { recursive: true, force: true });
process.disconnect?.();

/** Every tenth asks for nothing more until the stream has ended; every seventh begins anew five times. */
async function watch(index: number): Promise<string> {
  let position = 0;
  let sum = "";
  let reconnects = index % 7 === 0 ? 5 : 0;
  for (;;) {
    const stop = new AbortController();
    for await (const news of log.watch("run", { after: position, signal: stop.signal })) {
      if (news.kind === "events") {
        if (news.page.first !== position + 1) {
          return "out of order";
        }
        position += news.page.events.length;
        for (const event of news.page.events) {
          sum = mix(sum, event);
        }
      }
      if (reconnects > 0) {
        reconnects--;
        stop.abort();
      }
      if (index % 10 === 0) {
        await closed.promise;
      }
    }
    if (!stop.signal.aborted) {
      return sum;
    }
  }
}

/** Depends on every event and on their order. */
function mix(sum: string, event: Uint8Array): string {
  const digits = Buffer.from(event.buffer, event.byteOffset, 16).toString("latin1");
  return hash("md5", sum + digits);
}

/** Bytes in use. */
function live(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function measure(exactly: boolean): void {
  peakRss = Math.max(peakRss, process.memoryUsage().rss);
  peakPages = Math.max(peakPages, log.stats().pages.bytes);
  if (exactly) {
    peakLive = Math.max(peakLive, live());
  }
}
