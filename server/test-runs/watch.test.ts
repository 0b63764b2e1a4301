import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import {
  TestRunService,
  type WatchTestRunResponse,
} from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { allEvents, ended, found, reported, started, wrote } from "./test-support/events.ts";
import { openReplica } from "./test-support/open-replica.ts";
import { serveTestRuns } from "./test-support/serve-test-runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const ranToItsEnd = { reason: TestRunEndReason.UNSPECIFIED, message: "" };

function sequencesOf(messages: readonly WatchTestRunResponse[]): number[] {
  return messages.flatMap(({ kind }) =>
    kind.case === "events" ? kind.value.events.map(({ sequence }) => Number(sequence)) : [],
  );
}

async function readAll(stream: AsyncIterable<WatchTestRunResponse>): Promise<WatchTestRunResponse[]> {
  return await Array.fromAsync(stream);
}

const transports = {
  "gRPC in binary": (baseUrl: string) => createGrpcTransport({ baseUrl }),
  "Connect in JSON": (baseUrl: string) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
};

for (const [name, transport] of Object.entries(transports)) {
  test(`over ${name}, late and early watchers are told the same, resumed or not`, async () => {
    const replica = await openReplica(database);
    const server = await serveTestRuns(replica);
    const client = createClient(TestRunService, transport(server.url));
    const { id } = await replica.runs.create(reported());
    const early = readAll(client.watchTestRun({ runId: id }));
    const quiet = readAll(client.watchTestRun({ runId: id, withoutOutput: true }));
    await expect.poll(() => replica.watchers()).toBe(2);
    await replica.runs.append(id, "", 1, [found("a", "b"), started("a"), wrote("hello\n"), ended("a")]);
    await replica.runs.append(id, "", 5, [started("b"), wrote("b\n"), ended("b", TestStatus.FAILED)]);
    const run = await replica.runs.finish(id, { ...ranToItsEnd, exitCode: 1 });

    const stored = await allEvents(replica.eventLog, id);
    const late = await readAll(client.watchTestRun({ runId: id }));
    for (const messages of [await early, late]) {
      expect(sequencesOf(messages)).toEqual(stored.map((_, index) => index + 1));
      const kinds = messages.map(({ kind }) => kind.case);
      expect(kinds[0]).toBe("connected");
      expect(kinds.filter((kind) => kind === "caughtUp")).toHaveLength(1);
      const told = messages.flatMap(({ kind }) => (kind.case === "events" ? kind.value.events : []));
      expect(told.map(({ kind }) => kind)).toEqual(stored.map(({ kind }) => kind));
      expect(told.at(-1)?.kind.value).toEqual(run);
    }
    expect(late.map(({ kind }) => kind.case)).toEqual(["connected", "events", "caughtUp"]);
    expect(sequencesOf(await quiet)).toEqual([1, 2, 3, 4, 6, 7, 9, 10]);
    const resumed = await readAll(client.watchTestRun({ runId: id, afterSequence: 8n }));
    expect(sequencesOf(resumed)).toEqual([9, 10]);
    const nothing = await readAll(client.watchTestRun({ runId: id, afterSequence: 10n }));
    expect(nothing.map(({ kind }) => kind.case)).toEqual(["connected", "caughtUp"]);
    await expect(readAll(client.watchTestRun({ runId: id, afterSequence: 11n }))).rejects.toThrow(
      /out_of_range/,
    );
    await expect(readAll(client.watchTestRun({ runId: "none" }))).rejects.toThrow(/not_found/);
  });
}

test("progress follows the past, tells what runs now, and comes again when something has changed", async () => {
  const [one, other] = [await openReplica(database), await openReplica(database)];
  const { id } = await one.runs.create(reported());
  await one.runs.append(id, "", 1, [found("a", "b"), started("a")]);
  const leave = new AbortController();
  onTestFinished(() => leave.abort());
  const server = await serveTestRuns(other);
  const client = createClient(TestRunService, createGrpcTransport({ baseUrl: server.url }));
  const progress: unknown[] = [];
  const watching = (async () => {
    for await (const { kind } of client.watchTestRun({ runId: id }, { signal: leave.signal })) {
      if (kind.case === "progress") {
        const { sequence, percent, runningTests } = kind.value;
        progress.push([Number(sequence), percent, runningTests.map(({ name }) => name).join()]);
      }
    }
  })();
  await expect.poll(() => progress).toEqual([[4, 0, "a"]]);
  await one.runs.append(id, "", 3, [ended("a"), started("b")]);
  await expect
    .poll(() => progress)
    .toEqual([
      [4, 0, "a"],
      [6, 50, "b"],
    ]);
  await one.runs.finish(id, ranToItsEnd);
  await watching;
  expect(progress).toHaveLength(2);
});

test("whoever leaves is forgotten, also one that waits", async () => {
  const replica = await openReplica(database);
  const { id } = await replica.runs.create(reported());
  const server = await serveTestRuns(replica);
  const client = createClient(TestRunService, createGrpcTransport({ baseUrl: server.url }));
  const leave = new AbortController();
  const watches = Array.from({ length: 5 }, () =>
    readAll(client.watchTestRun({ runId: id }, { signal: leave.signal })).catch(() => "left"),
  );
  await expect.poll(() => replica.watchers()).toBe(5);
  leave.abort();
  expect(await Promise.all(watches)).toEqual(watches.map(() => "left"));
  await expect.poll(() => replica.watchers()).toBe(0);
});

test("a server that drains tells watchers to go on elsewhere", async () => {
  const replica = await openReplica(database);
  const { id } = await replica.runs.create(reported());
  const server = await serveTestRuns(replica);
  const client = createClient(TestRunService, createGrpcTransport({ baseUrl: server.url }));
  const watch = readAll(client.watchTestRun({ runId: id }));
  watch.catch(() => undefined);
  await expect.poll(() => replica.watchers()).toBe(1);
  replica.drain();
  await expect(watch).rejects.toThrow(/unavailable/);
});

test("many watchers, who come and go while others write on two replicas, all get everything once", async () => {
  const [one, other] = [await openReplica(database), await openReplica(database)];
  const { id } = await one.runs.create(reported());
  const total = 2 + 60 * 10 + 1;
  const servers = await Promise.all([serveTestRuns(one), serveTestRuns(other)]);
  const watchers = Array.from({ length: 20 }, async (_, index) => {
    const baseUrl = servers[index % 2]?.url ?? "";
    const client = createClient(TestRunService, createGrpcTransport({ baseUrl }));
    const seen: number[] = [];
    while (seen.at(-1) !== total) {
      const leave = new AbortController();
      const afterSequence = BigInt(seen.at(-1) ?? 0);
      try {
        for await (const message of client.watchTestRun({ runId: id, afterSequence }, leave)) {
          seen.push(...sequencesOf([message]));
          // Some leave again with every message.
          if (index % 3 === 0 && message.kind.case === "events" && seen.at(-1) !== total) {
            break;
          }
        }
      } finally {
        leave.abort();
      }
    }
    return seen;
  });
  const writers = Array.from({ length: 10 }, async (_, writer) => {
    const { runs } = writer % 2 === 0 ? one : other;
    for (let position = 1; position <= 60; position += 20) {
      const events = Array.from({ length: 20 }, (_, index) => ended(`w${writer}-${position + index}`));
      await runs.append(id, `w${writer}`, position, events);
    }
  });
  await Promise.all(writers);
  expect((await one.runs.finish(id, ranToItsEnd)).counts).toMatchObject({ total: 600, passed: 600 });
  const expected = Array.from({ length: total }, (_, index) => index + 1);
  for (const seen of await Promise.all(watchers)) {
    expect(seen).toEqual(expected);
  }
});
