import fc from "fast-check";
import { beforeAll, expect, it } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import type { EventLog } from "./event-log.ts";
import { createStream, events, openTestLog, texts } from "./testing.ts";

// Writers and watchers of one stream, on two replicas, all at once. The model: a stream is a list, to which each writer
// adds its own events once and in order, and of which every watcher sees all.

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
  return () => database.close();
});

/** An append of a writer that waits for its answer before the next one. */
interface Step {
  /** So many new events. */
  readonly fresh: number;
  /** So many of those before are sent once more. */
  readonly repeated: number;
  /** The replicas that get it, at the same time. */
  readonly replicas: readonly number[];
}

interface WatcherScript {
  readonly replica: number;
  /** Begins when so many steps were done. */
  readonly startsAfter: number;
  /** Asks for nothing any more after so much news, until the stream is closed. */
  readonly stallsAfter: number;
  /** Begins anew, on the other replica, after so much news, up to 20 times. */
  readonly reconnectsAfter: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  fresh: fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 0, max: 8 }) },
    { weight: 1, arbitrary: fc.integer({ min: 200, max: 600 }) },
  ),
  repeated: fc.integer({ min: 0, max: 10 }),
  replicas: fc.constantFrom([0], [1], [0, 1], [0, 0]),
});

const sometimes = fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.integer({ min: 1, max: 6 }));

const watcher: fc.Arbitrary<WatcherScript> = fc.record({
  replica: fc.constantFrom(0, 1),
  startsAfter: fc.integer({ min: 0, max: 30 }),
  stallsAfter: sometimes,
  reconnectsAfter: sometimes,
});

/** Counts steps, and lets wait for a number of them. */
function createProgress() {
  let done = 0;
  let changed = Promise.withResolvers<void>();
  return {
    advance(steps = 1) {
      done += steps;
      changed.resolve();
      changed = Promise.withResolvers();
    },
    async reached(steps: number) {
      while (done < steps) {
        await changed.promise;
      }
    },
  };
}

type Progress = ReturnType<typeof createProgress>;

async function write(
  logs: readonly EventLog[],
  stream: string,
  name: string,
  steps: readonly Step[],
  progress: Progress,
): Promise<string[]> {
  const sent: string[] = [];
  for (const { fresh, repeated, replicas } of steps) {
    const before = Math.max(sent.length - repeated, 0);
    for (let count = 0; count < fresh; count++) {
      sent.push(`${name}${sent.length + 1}`);
    }
    const append = {
      stream,
      events: events(...sent.slice(before)),
      writer: { name, firstPosition: before + 1 },
    };
    const answers = await Promise.all(replicas.map((replica) => logs[replica]?.append(append)));
    for (const answer of answers) {
      expect(answer?.position).toBe(sent.length);
    }
    progress.advance();
  }
  return sent;
}

async function watch(
  logs: readonly EventLog[],
  stream: string,
  script: WatcherScript,
  progress: Progress,
): Promise<string[]> {
  const seen: string[] = [];
  let { replica } = script;
  let stalls = script.stallsAfter;
  await progress.reached(script.startsAfter);
  for (let reconnects = 0; ; reconnects++) {
    const stop = new AbortController();
    let news = 0;
    let caughtUp = 0;
    for await (const item of logs[replica]?.watch(stream, { after: seen.length, signal: stop.signal }) ??
      []) {
      if (item.kind === "events") {
        expect(item.page.first).toBe(seen.length + 1);
        seen.push(...texts(item.page.events));
      } else if (item.kind === "caught-up") {
        expect([item.sequence, ++caughtUp]).toEqual([seen.length, 1]);
      }
      if (--stalls === 0) {
        await progress.reached(Number.POSITIVE_INFINITY);
      }
      if (++news >= script.reconnectsAfter && reconnects < 20) {
        stop.abort();
      }
    }
    if (!stop.signal.aborted) {
      expect(caughtUp).toBe(1);
      return seen;
    }
    replica = 1 - replica;
  }
}

it("every watcher sees the same complete stream, which has each writer's events once and in order", async () => {
  // A cache of a few pages, so that some are read again.
  const log = await openTestLog(database, { cacheBytes: 100_000 });
  const logs = [log, await openTestLog(database, { cacheBytes: 100_000 })];
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(step, { maxLength: 8 }), { minLength: 1, maxLength: 4 }),
      fc.array(watcher, { minLength: 1, maxLength: 6 }),
      async (scripts, watchers) => {
        const stream = `stream-${++runs}`;
        await createStream(database, log, stream);
        const progress = createProgress();
        const watching = watchers.map((script) => watch(logs, stream, script, progress));
        const sent = await Promise.all(
          scripts.map((steps, index) => write(logs, stream, "abcd".charAt(index), steps, progress)),
        );
        const closes = await Promise.all(
          logs.map((each) => each.append({ stream, events: [], close: true })),
        );
        progress.advance(Number.POSITIVE_INFINITY);

        const all = texts((await log.read(stream, 0, 1_000_000)).events);
        expect(closes.map(({ lastSequence }) => lastSequence)).toEqual([all.length, all.length]);
        for (const [index, own] of sent.entries()) {
          expect(all.filter((text) => text.startsWith("abcd".charAt(index)))).toEqual(own);
        }
        expect(all).toHaveLength(sent.flat().length);
        for (const seen of await Promise.all(watching)) {
          expect(seen).toEqual(all);
        }
      },
    ),
    { numRuns: 60 },
  );
});
