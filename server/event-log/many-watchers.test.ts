import { expect, it, onTestFinished } from "vitest";
import { openTestDatabase } from "../storage/testing.ts";
import type { EventLog } from "./event-log.ts";
import { createStream, events, openTestLog, texts } from "./testing.ts";

const WATCHERS = 1_000;
const EVENTS = 3_000;
const CACHE_BYTES = 200_000;

/** Reads a stream to its end; `pause` holds it up after its first news, `reconnects` makes it begin anew so often. */
async function watch(log: EventLog, stream: string, pause: Promise<void>, reconnects: number) {
  const seen: string[] = [];
  for (let left = reconnects; ; left--) {
    const stop = new AbortController();
    for await (const news of log.watch(stream, { after: seen.length, signal: stop.signal })) {
      if (news.kind === "events") {
        expect(news.page.first).toBe(seen.length + 1);
        seen.push(...texts(news.page.events));
      }
      if (left > 0) {
        stop.abort();
      }
      await pause;
    }
    if (!stop.signal.aborted) {
      return seen;
    }
  }
}

it("1,000 watchers, half of them late, some stalled, some reconnecting, all see the same", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const log = await openTestLog(database, { cacheBytes: CACHE_BYTES });
  const stream = "run";
  await createStream(database, log, stream);
  const closed = Promise.withResolvers<void>();
  const start = (_: unknown, index: number) =>
    watch(log, stream, index % 10 === 0 ? closed.promise : Promise.resolve(), index % 7 === 0 ? 5 : 0);

  const all = Array.from({ length: EVENTS }, (_, index) => `event ${index} `.padEnd(200, "."));
  const early = Array.from({ length: WATCHERS / 2 }, start);
  let late: Promise<string[]>[] = [];
  for (let sent = 0; sent < EVENTS; sent += 100) {
    await log.append({ stream, events: events(...all.slice(sent, sent + 100)) });
    expect(log.stats().pages.bytes).toBeLessThanOrEqual(CACHE_BYTES);
    if (sent === EVENTS / 2) {
      late = Array.from({ length: WATCHERS / 2 }, start);
    }
  }
  await log.append({ stream, events: [], close: true });
  closed.resolve();
  const results = await Promise.all([...early, ...late]);
  expect(results).toHaveLength(WATCHERS);
  const wanted = all.join();
  expect(results.filter((seen) => seen.join() !== wanted)).toHaveLength(0);
  expect(log.stats().pages.bytes).toBeLessThanOrEqual(CACHE_BYTES);
});
