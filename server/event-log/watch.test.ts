import { Code } from "@connectrpc/connect";
import { sql } from "kysely";
import { beforeAll, describe, expect, it } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { type EventLog, type LogPage, UnknownStreamError } from "./event-log.ts";
import { createStream, events, openTestLog, startWatching } from "./testing.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
  return () => database.close();
});

let streams = 0;

async function openStream(options: Parameters<typeof openTestLog>[1] = {}) {
  const log = await openTestLog(database, options);
  const stream = `stream-${++streams}`;
  await createStream(database, log, stream);
  const append = (...some: string[]) => log.append({ stream, events: events(...some) });
  const finish = (...some: string[]) => log.append({ stream, events: events(...some), close: true });
  return { log, stream, append, finish };
}

async function remove(log: EventLog, stream: string): Promise<void> {
  await database.kysely.transaction().execute((transaction) => log.remove(transaction, [stream]));
}

describe("a watch", () => {
  it("tells what was there, that it has caught up, what comes, and ends with the stream", async () => {
    const { log, stream, append, finish } = await openStream();
    await append("a", "b");
    const { told, ended } = startWatching(log, stream);
    await expect.poll(() => told).toEqual(["a", "b", "<caught up at 2>"]);
    await append("c");
    await expect.poll(() => told).toContain("c");
    await finish("d");
    expect(await ended).toBeUndefined();
    expect(told).toEqual(["a", "b", "<caught up at 2>", "c", "d"]);
  });

  it("of an empty stream has caught up at once, and ends when it is closed without a word", async () => {
    const { log, stream, finish } = await openStream();
    const { told, ended } = startWatching(log, stream);
    await expect.poll(() => told).toEqual(["<caught up at 0>"]);
    await finish();
    expect(await ended).toBeUndefined();
    expect(told).toEqual(["<caught up at 0>"]);
  });

  it("goes on after any event, also the last", async () => {
    const { log, stream, finish } = await openStream();
    await finish("a", "b", "c");
    const late = [1, 2, 3].map((after) => startWatching(log, stream, { after }));
    expect(await Promise.all(late.map(({ ended }) => ended))).toEqual([undefined, undefined, undefined]);
    expect(late.map(({ told }) => told)).toEqual([
      ["b", "c", "<caught up at 3>"],
      ["c", "<caught up at 3>"],
      ["<caught up at 3>"],
    ]);
  });

  it("cannot begin after an event that is not there", async () => {
    const { log, stream, append } = await openStream();
    await append("a");
    expect(await startWatching(log, stream, { after: 2 }).ended).toMatchObject({
      init: { code: Code.OutOfRange, reason: "SEQUENCE_AHEAD" },
    });
  });

  it("of a stream that does not exist is an error", async () => {
    const { log } = await openStream();
    expect(await startWatching(log, "missing").ended).toBeInstanceOf(UnknownStreamError);
  });

  it("catches up with a stream that grows faster than it asks", async () => {
    const { log, stream, append } = await openStream();
    await append("a");
    const { signal } = new AbortController();
    const watch = log.watch(stream, { signal });
    expect((await watch.next()).value).toMatchObject({ kind: "events" });
    await append("b");
    expect((await watch.next()).value).toEqual({ kind: "caught-up", sequence: 1 });
    expect((await watch.next()).value).toMatchObject({ kind: "events", page: { first: 2 } });
    await watch.return();
  });

  it("that is aborted ends without an error, whatever it waits for", async () => {
    const { log, stream, append } = await openStream();
    await append("a");
    const early = startWatching(log, stream);
    early.stop();
    expect(await early.ended).toBeUndefined();
    const late = startWatching(log, stream);
    await expect.poll(() => late.told).toEqual(["a", "<caught up at 1>"]);
    late.stop();
    expect(await late.ended).toBeUndefined();
    const before = startWatching(log, "missing");
    before.stop();
    expect(await before.ended).toBeUndefined();
  });

  it("is told that nothing happens, every so often and only in silence", async () => {
    const clock = createFakeClock();
    const { log, stream, append } = await openStream({ clock, idleMs: 15_000 });
    const { told } = startWatching(log, stream);
    const wanted = ["<caught up at 0>"];
    await expect.poll(() => told).toEqual(wanted);
    clock.advance(14_999);
    await append("a");
    wanted.push("a");
    await expect.poll(() => told).toEqual(wanted);
    clock.advance(14_999);
    expect(told).toEqual(wanted);
    for (let times = 0; times < 2; times++) {
      // Only once the watch waits again does the next silence begin.
      clock.advance(1);
      wanted.push("<idle>");
      await expect.poll(() => told).toEqual(wanted);
      clock.advance(14_999);
    }
    expect(told).toEqual(wanted);
  });

  it("ends with an error when the stream is removed", async () => {
    const { log, stream, append } = await openStream();
    await append("a");
    const other = startWatching(await openTestLog(database), stream);
    const own = startWatching(log, stream);
    await expect.poll(() => [own.told.length, other.told.length]).toEqual([2, 2]);
    await remove(log, stream);
    expect(await own.ended).toBeInstanceOf(UnknownStreamError);
    expect(await other.ended).toBeInstanceOf(UnknownStreamError);
  });

  it("that reads on when the stream was removed ends with an error", async () => {
    const { log, stream, append } = await openStream({ cacheBytes: 0 });
    await append(...Array.from({ length: 600 }, String));
    const watch = log.watch(stream, { signal: new AbortController().signal });
    await watch.next();
    await remove(log, stream);
    await expect(watch.next()).rejects.toBeInstanceOf(UnknownStreamError);
  });

  it("ends with an error that tells to go on elsewhere when the log is closed, after the last events", async () => {
    const { log, stream, append } = await openStream();
    const { told, ended } = startWatching(log, stream);
    await expect.poll(() => told).toEqual(["<caught up at 0>"]);
    const appended = append("a");
    await log.close();
    await appended;
    expect(await ended).toMatchObject({ init: { code: Code.Unavailable, reason: "SHUTTING_DOWN" } });
    expect(await startWatching(log, stream).ended).toMatchObject({ init: { code: Code.Unavailable } });
  });
});

describe("watches of other replicas", () => {
  it("are told without waiting for a poll", async () => {
    const { stream, append, finish } = await openStream();
    // Its clock stands still: it never polls.
    const other = await openTestLog(database, { clock: createFakeClock() });
    const { told, ended } = startWatching(other, stream);
    await expect.poll(() => told).toEqual(["<caught up at 0>"]);
    await append("a");
    await expect.poll(() => told).toContain("a");
    await finish("b");
    expect(await ended).toBeUndefined();
    expect(told).toEqual(["<caught up at 0>", "a", "b"]);
  });

  it("are told what they have missed when the connection for notifications was lost", async () => {
    const { stream, finish, append } = await openStream();
    const other = await openTestLog(database, { clock: createFakeClock() });
    const { told, ended } = startWatching(other, stream);
    await expect.poll(() => told).toEqual(["<caught up at 0>"]);
    const { rows } = await sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'toolplane listener'
    `.execute(database.kysely);
    expect(rows.length).toBeGreaterThan(0);
    await append("a");
    await finish("b");
    expect(await ended).toBeUndefined();
    expect(told).toEqual(["<caught up at 0>", "a", "b"]);
  });

  it("find by themselves what no notification has told", async () => {
    const { stream } = await openStream();
    const clock = createFakeClock();
    const other = await openTestLog(database, { clock });
    const { told } = startWatching(other, stream);
    await expect.poll(() => told).toEqual(["<caught up at 0>"]);
    await database.kysely.transaction().execute(async (transaction) => {
      await sql`insert into event_log select id, 1, 'a'::bytea from event_streams where name = ${stream}`.execute(
        transaction,
      );
      await sql`update event_streams set last_sequence = 1 where name = ${stream}`.execute(transaction);
    });
    await expect
      .poll(() => {
        clock.advance(3_000);
        return told;
      })
      .toEqual(["<caught up at 0>", "a"]);
  });
});

it("many late watchers leave the event loop to others now and then", async () => {
  const { log, stream, finish } = await openStream();
  await finish(...Array.from({ length: 2_560 }, String));
  await log.read(stream, 0, 2_560); // so that everything is in memory
  let rounds = 0;
  let isOver = false;
  const comeRound = () => {
    rounds++;
    if (!isOver) {
      setImmediate(comeRound);
    }
  };
  comeRound();
  const late = Array.from({ length: 100 }, () => startWatching(log, stream));
  await Promise.all(late.map(({ ended }) => ended));
  isOver = true;
  expect(late.map(({ told }) => told.length)).toEqual(Array.from({ length: 100 }, () => 2_561));
  // 100 watchers × 10 pages, of which two at most are told a round.
  expect(rounds).toBeGreaterThan(400);
});

describe("pages in memory", () => {
  it("are read once for many, who get the same objects", async () => {
    const { log, stream, finish } = await openStream();
    await finish(...Array.from({ length: 1_000 }, String));
    const read = async () => {
      const pages: LogPage[] = [];
      for await (const news of log.watch(stream, { signal: new AbortController().signal })) {
        if (news.kind === "events") {
          pages.push(news.page);
        }
      }
      return pages.flatMap(({ events: some }) => some);
    };
    const [first = [], ...others] = await Promise.all(Array.from({ length: 100 }, read));
    expect(first).toHaveLength(1_000);
    for (const other of others) {
      expect(other.every((event, index) => event === first[index])).toBe(true);
    }
    expect(log.stats().pages.loads).toBe(4);
  });

  it("grow with what is appended, without reading it again", async () => {
    const { log, stream, append, finish } = await openStream();
    const { told, ended } = startWatching(log, stream);
    await expect.poll(() => told).toEqual(["<caught up at 0>"]);
    for (let count = 0; count < 20; count++) {
      await append(...Array.from({ length: 50 }, (_, index) => `${count}-${index}`));
    }
    await finish("end");
    await ended;
    expect(told).toHaveLength(1_002);
    expect(log.stats().pages.loads).toBe(0);
  });

  it("stay within their bytes, however large events are", async () => {
    const maxBytes = 3_000_000;
    const { log, stream, append, finish } = await openStream({ cacheBytes: maxBytes });
    const sizes = [10, 900_000, 5_000_000, 0, 100_000, 1_500_000];
    const all = Array.from({ length: 300 }, (_, index) => `${index}`.padEnd((sizes[index % 50] ?? 100) + 3));
    const early = startWatching(log, stream);
    for (let start = 0; start < all.length; start += 30) {
      await append(...all.slice(start, start + 30));
      expect(log.stats().pages.bytes).toBeLessThanOrEqual(maxBytes);
    }
    await finish();
    const late = [0, 0, 3, 100, 257].map((after) => ({ after, ...startWatching(log, stream, { after }) }));
    await Promise.all([early, ...late].map(({ ended }) => ended));
    expect(early.told.filter((text) => !text.startsWith("<"))).toEqual(all);
    for (const { after, told } of late) {
      expect(told).toEqual([...all.slice(after), "<caught up at 300>"]);
    }
    expect(log.stats().pages.bytes).toBeLessThanOrEqual(maxBytes);
  });
});
