import { Code } from "@connectrpc/connect";
import { sql } from "kysely";
import { beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { type Append, ClosedStreamError, PositionGapError, UnknownStreamError } from "./event-log.ts";
import { createStream, events, openTestLog, texts } from "./testing.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
  await sql`create table projected (stream text, first bigint, text text not null)`.execute(database.kysely);
  return () => database.close();
});

let streams = 0;

async function openStream(options: Parameters<typeof openTestLog>[1] = {}) {
  const log = await openTestLog(database, options);
  const stream = `stream-${++streams}`;
  await createStream(database, log, stream);
  const all = async () => texts((await log.read(stream, 0, 100_000)).events);
  return { log, stream, all };
}

async function projected(stream: string): Promise<string[]> {
  const { rows } = await sql<{ line: string }>`
    select first || ' ' || text as line from projected where stream = ${stream} order by first
  `.execute(database.kysely);
  return rows.map(({ line }) => line);
}

/** Writes down what it is given. */
function projectTo(stream: string): NonNullable<Append["project"]> {
  return async (transaction, { first, events: fresh }) => {
    await sql`insert into projected values (${stream}, ${first}, ${texts(fresh).join("")})`.execute(
      transaction,
    );
  };
}

describe("an append", () => {
  it("numbers events from 1 without gaps", async () => {
    const { log, stream, all } = await openStream();
    expect(await log.append({ stream, events: events("a", "b") })).toEqual({ lastSequence: 2, position: 0 });
    expect(await log.append({ stream, events: events("c") })).toEqual({ lastSequence: 3, position: 0 });
    expect(await log.append({ stream, events: [] })).toEqual({ lastSequence: 3, position: 0 });
    expect(await all()).toEqual(["a", "b", "c"]);
  });

  it("keeps events of any bytes and of none", async () => {
    const { log, stream } = await openStream();
    const all = [new Uint8Array(), Uint8Array.from({ length: 256 }, (_, byte) => byte), new Uint8Array(1)];
    await log.append({ stream, events: all });
    const page = await log.read(stream, 0, 10);
    expect(page.events.map((event) => [...event])).toEqual(all.map((event) => [...event]));
  });

  it("keeps the order of calls that did not wait for each other", async () => {
    const { log, stream, all } = await openStream();
    const wanted = Array.from({ length: 1_000 }, (_, index) => String(index));
    await Promise.all(wanted.map((text) => log.append({ stream, events: events(text) })));
    expect(await all()).toEqual(wanted);
  });

  it("leaves out what its writer has appended before", async () => {
    const { log, stream, all } = await openStream();
    const send = (firstPosition: number, ...some: string[]) =>
      log.append({ stream, events: events(...some), writer: { name: "laptop", firstPosition } });
    expect(await send(1, "a", "b")).toEqual({ lastSequence: 2, position: 2 });
    expect(await send(1, "a", "b")).toEqual({ lastSequence: 2, position: 2 });
    expect(await send(2, "b", "c")).toEqual({ lastSequence: 3, position: 3 });
    expect(await send(1, "a")).toEqual({ lastSequence: 3, position: 3 });
    expect(await send(4)).toEqual({ lastSequence: 3, position: 3 });
    expect(await all()).toEqual(["a", "b", "c"]);
  });

  it("counts each writer, and those without one, for themselves", async () => {
    const { log, stream, all } = await openStream();
    await Promise.all([
      log.append({ stream, events: events("a"), writer: { name: "one", firstPosition: 1 } }),
      log.append({ stream, events: events("b"), writer: { name: "other", firstPosition: 1 } }),
      log.append({ stream, events: events("c") }),
      log.append({ stream, events: events("b", "d"), writer: { name: "other", firstPosition: 1 } }),
    ]);
    expect(await all()).toEqual(["a", "b", "c", "d"]);
  });

  it("that leaves out events of its writer is refused with the position to go on from", async () => {
    const { log, stream, all } = await openStream();
    await log.append({ stream, events: events("a"), writer: { name: "w", firstPosition: 1 } });
    const late = log.append({ stream, events: events("c"), writer: { name: "w", firstPosition: 3 } });
    await expect(late).rejects.toMatchObject({ name: "PositionGapError", position: 1 });
    await expect(late).rejects.toBeInstanceOf(PositionGapError);
    expect(await all()).toEqual(["a"]);
  });

  it("demands positions that count from 1", async () => {
    const { log, stream } = await openStream();
    const append = log.append({ stream, events: events("a"), writer: { name: "w", firstPosition: 0 } });
    await expect(append).rejects.toBeInstanceOf(RangeError);
  });

  it("to a closed stream is refused, but for repetitions", async () => {
    const { log, stream, all } = await openStream();
    const writer = { name: "w", firstPosition: 1 };
    await log.append({ stream, events: events("a", "b"), writer, close: true });
    expect(await log.append({ stream, events: events("a", "b"), writer, close: true })).toEqual({
      lastSequence: 2,
      position: 2,
    });
    expect(await log.append({ stream, events: [], close: true })).toEqual({ lastSequence: 2, position: 0 });
    for (const refused of [
      { stream, events: events("c") },
      { stream, events: events("a", "b", "c"), writer },
      { stream, events: events("d"), writer: { name: "w", firstPosition: 9 } },
    ]) {
      await expect(log.append(refused)).rejects.toBeInstanceOf(ClosedStreamError);
    }
    expect(await all()).toEqual(["a", "b"]);
  });

  it("can close a stream with a repetition", async () => {
    const { log, stream } = await openStream();
    const writer = { name: "w", firstPosition: 1 };
    await log.append({ stream, events: events("a"), writer });
    await log.append({ stream, events: events("a"), writer, close: true });
    await expect(log.append({ stream, events: events("b") })).rejects.toBeInstanceOf(ClosedStreamError);
  });

  it("needs a stream, which a second creation leaves as it is", async () => {
    const { log, stream, all } = await openStream();
    await log.append({ stream, events: events("a") });
    await createStream(database, log, stream);
    expect(await all()).toEqual(["a"]);
    const missing = log.append({ stream: "missing", events: events("a") });
    await expect(missing).rejects.toBeInstanceOf(UnknownStreamError);
    await expect(log.read("missing", 0, 1)).rejects.toBeInstanceOf(UnknownStreamError);
  });

  it("that is refused does not keep the others of its transaction from being done", async () => {
    const { log, stream, all } = await openStream();
    const other = `${stream}/other`;
    await createStream(database, log, other);
    const outcomes = await Promise.allSettled([
      log.append({ stream, events: events("a") }),
      log.append({ stream: "missing", events: events("x") }),
      log.append({ stream, events: events("y"), writer: { name: "w", firstPosition: 5 } }),
      log.append({ stream: other, events: events("b"), close: true }),
      log.append({ stream: other, events: events("z") }),
      log.append({ stream, events: events("c") }),
    ]);
    expect(outcomes.map(({ status }) => status === "fulfilled")).toEqual([
      true,
      false,
      false,
      true,
      false,
      true,
    ]);
    expect(await all()).toEqual(["a", "c"]);
  });
});

describe("an append that PostgreSQL does not understand", () => {
  it("is refused, and those beside it are done", async () => {
    const { log, stream, all } = await openStream();
    const outcomes = await Promise.allSettled([
      log.append({ stream, events: events("a") }),
      log.append({ stream, events: events("b") }),
      log.append({ stream: "\0", events: events("x") }),
      log.append({ stream, events: events("y"), writer: { name: "\0", firstPosition: 1 } }),
      log.append({ stream, events: events("c") }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      "fulfilled",
      "fulfilled",
      "rejected",
      "rejected",
      "fulfilled",
    ]);
    expect(await all()).toEqual(["a", "b", "c"]);
  });
});

describe("a projection", () => {
  it("is told what is really appended, in the transaction of the append", async () => {
    const { log, stream } = await openStream();
    const project = projectTo(stream);
    const send = (firstPosition: number, ...some: string[]) =>
      log.append({ stream, events: events(...some), writer: { name: "w", firstPosition }, project });
    await send(1, "a", "b");
    await send(1, "a", "b");
    await send(2, "b", "c", "d");
    expect(await projected(stream)).toEqual(["1 ab", "3 cd"]);
  });

  it("that throws undoes its append and no other", async () => {
    const { log, stream, all } = await openStream();
    const project = projectTo(stream);
    const mine = new Error("mine");
    const outcomes = await Promise.allSettled([
      log.append({ stream, events: events("a"), project }),
      log.append({ stream, events: events("b"), project }),
      log.append({
        stream,
        events: events("c"),
        project: async (transaction, page) => {
          await project(transaction, page);
          throw mine;
        },
      }),
      log.append({
        stream,
        events: events("d"),
        project: async (transaction) => {
          await sql`insert into projected values (${stream}, 0, null)`.execute(transaction);
        },
      }),
      log.append({ stream, events: events("e"), project }),
    ]);
    expect(outcomes[2]).toEqual({ status: "rejected", reason: mine });
    expect(outcomes[3]).toMatchObject({ status: "rejected", reason: { code: "23502" } });
    expect(await all()).toEqual(["a", "b", "e"]);
    expect(await projected(stream)).toEqual(["1 a", "2 b", "3 e"]);
  });

  it("that throws alone leaves nothing", async () => {
    const { log, stream, all } = await openStream();
    const failing: Append["project"] = async (transaction, page) => {
      await projectTo(stream)(transaction, page);
      throw new Error("no");
    };
    await expect(log.append({ stream, events: events("a"), project: failing })).rejects.toThrow("no");
    expect([await all(), await projected(stream)]).toEqual([[], []]);
  });

  it("is run again where its session ends", async () => {
    const { log, stream, all } = await openStream();
    let runs = 0;
    const project: Append["project"] = async (transaction, page) => {
      await projectTo(stream)(transaction, page);
      if (++runs === 1) {
        await sql`select pg_terminate_backend(pg_backend_pid())`.execute(transaction);
      }
    };
    await log.append({ stream, events: events("a"), project });
    expect(runs).toBe(2);
    expect([await all(), await projected(stream)]).toEqual([["a"], ["1 a"]]);
  });
});

describe("the queue", () => {
  it("refuses what does not fit, and takes it when there is room again", async () => {
    const { log, stream } = await openStream({ maxPendingBytes: 10_000 });
    const append = { stream, events: [Buffer.alloc(3_000)] };
    const outcomes = await Promise.allSettled(Array.from({ length: 5 }, () => log.append(append)));
    const refused = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(refused).toHaveLength(2);
    expect(refused[0]?.reason).toMatchObject({
      init: { code: Code.ResourceExhausted, reason: "EVENT_LOG_FULL" },
    });
    expect(await log.append(append)).toMatchObject({ lastSequence: 4 });
    expect(log.stats().pendingBytes).toBe(0);
  });

  it("takes what alone is too large alone", async () => {
    const { log, stream } = await openStream({ maxPendingBytes: 10 });
    const large = Buffer.alloc(5_000_000, "x");
    await log.append({ stream, events: [large] });
    const { events: stored } = await log.read(stream, 0, 1);
    expect(stored[0]?.length).toBe(large.length);
  });

  it("is written before the log closes, and takes nothing after that", async () => {
    const { log, stream } = await openStream();
    const appends = ["a", "b", "c"].map((text) => log.append({ stream, events: events(text) }));
    await log.close();
    expect((await Promise.all(appends)).at(-1)).toMatchObject({ lastSequence: 3 });
    await expect(log.append({ stream, events: events("d") })).rejects.toMatchObject({
      init: { code: Code.Unavailable, reason: "SHUTTING_DOWN" },
    });
  });
});

describe("reading", () => {
  it("goes by pages of any size, also within large events", async () => {
    const { log, stream } = await openStream();
    const all = Array.from({ length: 700 }, (_, index) =>
      `${index}`.padEnd(index % 100 === 0 ? 400_000 : 10),
    );
    await log.append({ stream, events: events(...all) });
    const read: string[] = [];
    while (read.length < all.length) {
      const page = await log.read(stream, read.length, 97);
      expect(page.first).toBe(read.length + 1);
      read.push(...texts(page.events));
    }
    expect(read).toEqual(all);
    expect((await log.read(stream, 700, 10)).events).toEqual([]);
    expect(texts((await log.read(stream, 650, 10)).events)).toEqual(all.slice(650, 660));
  });
});

describe("removal", () => {
  it("leaves nothing of a stream, and its name can be used again", async () => {
    const { log, stream, all } = await openStream();
    await log.append({ stream, events: events("a"), writer: { name: "w", firstPosition: 1 } });
    await database.kysely
      .transaction()
      .execute((transaction) => log.remove(transaction, [stream, "missing"]));
    await expect(all()).rejects.toBeInstanceOf(UnknownStreamError);
    await createStream(database, log, stream);
    await log.append({ stream, events: events("b"), writer: { name: "w", firstPosition: 1 } });
    expect(await all()).toEqual(["b"]);
  });
});
