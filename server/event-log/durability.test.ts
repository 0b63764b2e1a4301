import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { openDatabase } from "../storage/database.ts";
import { readPidFile } from "../storage/private/postmaster.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import type { EventLog } from "./event-log.ts";
import { createStream, events, openTestLog, startWatching, texts } from "./testing.ts";

const ROUNDS = 20;

it("no acknowledged event is lost or doubled when the database is killed 20 times while events come in", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  const database = await openDatabase({ dataDir, logger: silentLogger });
  onTestFinished(() => database.close());
  const log = await openTestLog(database);
  const streams = ["one", "two", "three"];
  for (const stream of streams) {
    await createStream(database, log, stream);
  }
  const watching = streams.map((stream) => startWatching(log, stream));
  const stop = new AbortController();
  const writers = streams.flatMap((stream) => [
    startWriter(log, stream, undefined, stop.signal),
    startWriter(log, stream, "w", stop.signal),
  ]);

  const count = () => writers.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);
  for (let round = 0; round < ROUNDS; round++) {
    const enough = count() + 50;
    await expect.poll(count, { timeout: 30_000, interval: 5 }).toBeGreaterThan(enough);
    const server = await readPidFile(join(dataDir, "postgres"));
    // Never without a number: 0 would be this process and all of its group.
    if (server === undefined) {
      throw new Error("a server that stores events has no pid file");
    }
    process.kill(server.pid, "SIGKILL");
  }
  stop.abort();
  await Promise.all(writers.map(({ ended }) => ended));
  await Promise.all(streams.map((stream) => log.append({ stream, events: [], close: true })));

  for (const [index, stream] of streams.entries()) {
    const all = await readAll(log, stream);
    expect(new Set(all).size).toBe(all.length);
    for (const { prefix, acknowledged } of writers.filter((writer) => writer.stream === stream)) {
      expect(all.filter((text) => text.startsWith(prefix))).toEqual(acknowledged);
    }
    expect(await watching[index]?.ended).toBeUndefined();
    expect(watching[index]?.told.filter((text) => !text.startsWith("<"))).toEqual(all);
  }
});

/** Appends one event after the other; with or without a name, it needs not repeat anything. */
function startWriter(log: EventLog, stream: string, name: string | undefined, stop: AbortSignal) {
  const prefix = `${name ?? "plain"}-`;
  const acknowledged: string[] = [];
  const run = async () => {
    while (!stop.aborted) {
      const text = `${prefix}${acknowledged.length + 1}`;
      const writer = name === undefined ? undefined : { name, firstPosition: acknowledged.length + 1 };
      await log.append({ stream, events: events(text), writer });
      acknowledged.push(text);
    }
  };
  return { stream, prefix, acknowledged, ended: run() };
}

async function readAll(log: EventLog, stream: string): Promise<string[]> {
  const all: string[] = [];
  for (;;) {
    const { first, events: some } = await log.read(stream, all.length, 1_000);
    expect(first).toBe(all.length + 1);
    if (some.length === 0) {
      return all;
    }
    all.push(...texts(some));
  }
}
