import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { Database } from "../storage/database.ts";
import { openTestDatabase } from "../storage/testing.ts";
import { ended, reported, started, wrote } from "./test-support/events.ts";
import { openReplica } from "./test-support/open-replica.ts";
import { serveTestRuns } from "./test-support/serve-test-runs.ts";

let database: Database;

beforeAll(async () => {
  database = await openTestDatabase();
});

afterAll(() => database.close());

const ranToItsEnd = { reason: TestRunEndReason.UNSPECIFIED, message: "" };

/** The fields of each server-sent event. */
function parse(text: string): Record<string, string>[] {
  return text
    .split("\n\n")
    .filter((frame) => frame !== "")
    .map((frame) =>
      Object.fromEntries(
        frame.split("\n").map((line) => {
          const colon = line.indexOf(": ");
          return [line.slice(0, colon), line.slice(colon + 2)];
        }),
      ),
    );
}

async function open() {
  const replica = await openReplica(database);
  const server = await serveTestRuns(replica);
  const { id } = await replica.runs.create(reported());
  return { replica, id, url: `${server.url}/test-runs/${id}/events` };
}

test("a run is read as server-sent events to its end, and then browsers are told to stay away", async () => {
  const { replica, id, url } = await open();
  const reading = fetch(url, { headers: { origin: new URL(url).origin } }).then(async (response) => {
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("access-control-allow-origin")).toBe(new URL(url).origin);
    return parse(await response.text());
  });
  await expect.poll(() => replica.watchers()).toBe(1);
  await replica.runs.append(id, "", 1, [started("a"), wrote("two\nlines\n"), ended("a")]);
  await replica.runs.finish(id, ranToItsEnd);

  const frames = (await reading).filter(({ event }) => event !== "progress");
  expect(frames.map(({ id: sequence, event }) => [sequence, event])).toEqual([
    [undefined, undefined],
    ["1", "created"],
    ["2", "started"],
    [undefined, "caught-up"],
    ["3", "test-started"],
    ["4", "output"],
    ["5", "test-ended"],
    ["6", "ended"],
  ]);
  expect(JSON.parse(frames.at(-1)?.["data"] ?? "")).toMatchObject({
    sequence: "6",
    ended: { id, state: "TEST_RUN_STATE_PASSED" },
  });
  expect(JSON.parse(frames[5]?.["data"] ?? "")).toMatchObject({ output: { text: "two\nlines\n" } });

  const rest = parse(await (await fetch(url, { headers: { "last-event-id": "4" } })).text());
  expect(rest.flatMap(({ id: sequence }) => sequence ?? [])).toEqual(["5", "6"]);
  const same = parse(await (await fetch(`${url}?after=4`)).text());
  expect(same).toEqual(rest);
  const over = await fetch(url, { headers: { "last-event-id": "6" } });
  expect(over.status).toBe(204);
});

test("what cannot be answered is said in plain words", async () => {
  const { url } = await open();
  const ask = async (...[to, init]: Parameters<typeof fetch>) => {
    const response = await fetch(to, init);
    return [response.status, (await response.text()).split(/[.:]/)[0]];
  };
  expect(await ask(url.replace(/[^/]+\/events$/, "none/events"))).toEqual([404, "There is no such test run"]);
  expect(await ask(`${url}?after=x`)).toEqual([
    400,
    "Last-Event-ID and ?after= take the number of an event, such as 42",
  ]);
  expect(await ask(`${url}?after=99`)).toEqual([400, "The run has 2 events"]);
  expect(await ask(url, { method: "POST" })).toEqual([405, "Events are read with GET"]);
  expect((await fetch(url, { headers: { origin: "https://elsewhere.example" } })).status).toBe(403);
});

test("a client that reads nothing is not written to, and whoever leaves is forgotten", async () => {
  const { replica, id, url } = await open();
  const { port, hostname, pathname } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => {
    socket.destroy();
  });
  await once(socket, "connect");
  socket.pause();
  socket.write(`GET ${pathname} HTTP/1.1\r\nhost: ${hostname}:${port}\r\n\r\n`);
  await expect.poll(() => replica.watchers()).toBe(1);
  const text = "x".repeat(60_000);
  const batches = 60;
  for (let batch = 0; batch < batches; batch++) {
    const events = Array.from({ length: 10 }, () => wrote(text));
    await replica.runs.append(id, "", batch * 10 + 1, events);
  }
  await replica.runs.finish(id, ranToItsEnd);
  // 36 MB do not fit into the buffers on the way.
  const before = socket.bytesRead;
  expect(before).toBeLessThan(10_000_000);
  expect(replica.watchers()).toBe(1);
  let received = "";
  socket.setEncoding("latin1").on("data", (part: string) => {
    received = (received + part).slice(-10_000);
  });
  socket.resume();
  await expect.poll(() => received).toContain("event: ended");
  await expect.poll(() => replica.watchers()).toBe(0);

  const another = await replica.runs.create(reported());
  const leave = new AbortController();
  const response = await fetch(url.replace(id, another.id), { signal: leave.signal });
  expect(response.status).toBe(200);
  await expect.poll(() => replica.watchers()).toBe(1);
  leave.abort();
  await expect.poll(() => replica.watchers()).toBe(0);
});

test("it is the same over HTTP/2, and for a reporter and a reader that move to another server", async () => {
  const before = await open();
  await before.replica.runs.append(before.id, "", 1, [started("a"), ended("a")]);
  const after = await openReplica(database);
  const server = await serveTestRuns(after);
  await after.runs.append(before.id, "", 2, [ended("a"), started("b"), ended("b")]);
  await after.runs.finish(before.id, ranToItsEnd);

  const session = connectHttp2(server.url);
  onTestFinished(() => session.destroy());
  const path = new URL(before.url).pathname;
  const stream = session.request({ ":path": path, "last-event-id": "3" });
  stream.setEncoding("utf8");
  const frames = parse((await Array.fromAsync(stream)).join(""));
  expect(frames.flatMap(({ id, event }) => (id === undefined ? [] : [`${id} ${event}`]))).toEqual([
    "4 test-ended",
    "5 test-started",
    "6 test-ended",
    "7 ended",
  ]);
});
