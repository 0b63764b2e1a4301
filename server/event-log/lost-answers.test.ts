import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { expect, it, onTestFinished } from "vitest";
import { openDatabase } from "../storage/database.ts";
import { silentLogger } from "../storage/silent-logger.ts";
import { createTestDatabaseUrl } from "../storage/testing.ts";
import type { Append } from "./event-log.ts";
import { createStream, events, openTestLog, texts } from "./testing.ts";

/** What the driver sends to commit. */
const COMMIT = Buffer.from("commit\0");

/** A network in front of a database that loses the answers to some commits, with their connections. */
async function startLossyNetwork(databaseUrl: string) {
  const url = new URL(databaseUrl);
  // Behind a socket, or at an address.
  const place =
    url.hostname === ""
      ? { path: `${url.searchParams.get("host")}/.s.PGSQL.${url.searchParams.get("port")}` }
      : { host: url.hostname, port: Number(url.port) };
  const sockets = new Set<Socket>();
  let left = 0;
  let lost = 0;
  const server = createServer((client) => {
    const upstream = connect(place);
    let isLosing = false;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined); // its end is what matters
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (chunk) => {
      if (left > 0 && chunk.includes(COMMIT)) {
        left--;
        isLosing = true;
      }
      upstream.write(chunk);
    });
    upstream.on("data", (chunk) => {
      if (isLosing) {
        lost++;
        client.destroy();
      } else {
        client.write(chunk);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    for (const socket of sockets) {
      socket.destroy();
    }
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const user = url.searchParams.get("user") ?? `${url.username}:${url.password}`;
  const direct = `postgres://${user}@127.0.0.1:${port}${url.pathname}`;
  return {
    url: direct,
    lose: (commits: number) => {
      left = commits;
    },
    get lost() {
      return lost;
    },
  };
}

it("an append whose confirmation was lost is not done twice, with or without a writer", async () => {
  const network = await startLossyNetwork(await createTestDatabaseUrl());
  const database = await openDatabase({ url: network.url, dataDir: tmpdir(), logger: silentLogger });
  onTestFinished(() => database.close());
  const log = await openTestLog(database);
  await createStream(database, log, "plain");
  await createStream(database, log, "written");

  const wanted: string[] = [];
  for (let round = 0; round < 20; round++) {
    // Now and then the answer to the repetition is lost as well.
    network.lose((round % 3) + 1);
    const batch = [`${round}a`, `${round}b`, `${round}c`];
    const appends = batch.flatMap((text, index): Append[] => [
      { stream: "plain", events: events(text) },
      {
        stream: "written",
        events: events(text),
        writer: { name: "w", firstPosition: wanted.length + index + 1 },
      },
    ]);
    const answers = await Promise.all(appends.map((append) => log.append(append)));
    wanted.push(...batch);
    expect(answers.at(-1)).toEqual({ lastSequence: wanted.length, position: wanted.length });
    expect(answers.at(-2)).toEqual({ lastSequence: wanted.length, position: 0 });
  }
  expect(network.lost).toBeGreaterThan(10);
  for (const stream of ["plain", "written"]) {
    expect(texts((await log.read(stream, 0, 1_000)).events)).toEqual(wanted);
  }
});
