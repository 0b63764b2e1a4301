import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { sql } from "kysely";
import { afterEach, describe, expect, it } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import type { Database } from "./database.ts";
import { createTestDatabaseUrl, openTestDatabase } from "./testing.ts";

const open: Database[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((database) => database.close()));
});

async function openEmpty(): Promise<Database> {
  const database = await openTestDatabase({ migrations: [] });
  open.push(database);
  return database;
}

async function notify(database: Database, channel: string, payload: string): Promise<void> {
  await sql`select pg_notify(${channel}, ${payload})`.execute(database.kysely);
}

async function loseListener(database: Database): Promise<void> {
  await sql`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'toolplane listener'`.execute(database.kysely);
}

describe("listening for notifications", () => {
  it("hears what is sent to its channels, in order, and nothing else", async () => {
    const database = await openEmpty();
    const heard: string[] = [];
    await database.listen('Odd "name"; x', (payload) => heard.push(`odd ${payload}`));
    await database.listen("plain", (payload) => heard.push(`plain ${payload}`));
    await notify(database, "other", "0");
    await notify(database, "plain", "1");
    await notify(database, 'Odd "name"; x', "2");
    await notify(database, "plain", "");
    await expect.poll(() => heard).toEqual(["plain 1", "odd 2", "plain "]);
  });

  it("lets several listen to one channel and each leave", async () => {
    const database = await openEmpty();
    const heard: string[] = [];
    const first = await database.listen("c", (payload) => heard.push(`first ${payload}`));
    const second = await database.listen("c", (payload) => heard.push(`second ${payload}`));
    await first.close();
    await notify(database, "c", "1");
    await expect.poll(() => heard).toEqual(["second 1"]);
    await second.close();
    await second.close();
    await database.listen("end", (payload) => heard.push(payload));
    await notify(database, "c", "2");
    await notify(database, "end", "end");
    await expect.poll(() => heard).toEqual(["second 1", "end"]);
  });

  it("goes on for the others when one fails", async () => {
    const database = await openEmpty();
    const heard: string[] = [];
    await database.listen("c", () => {
      throw new Error("a mistake");
    });
    await database.listen("c", (payload) => heard.push(payload));
    await notify(database, "c", "1");
    await expect.poll(() => heard).toEqual(["1"]);
  });

  it("comes back after its connection was lost, again and again, and says so each time", async () => {
    const database = await openEmpty();
    const heard: string[] = [];
    let reconnects = 0;
    const onReconnect = () => reconnects++;
    await database.listen("a", (payload) => heard.push(`a ${payload}`), onReconnect);
    await database.listen("b", (payload) => heard.push(`b ${payload}`), onReconnect);
    for (let round = 1; round <= 3; round++) {
      await loseListener(database);
      await expect.poll(() => reconnects).toBe(2 * round);
      await notify(database, "a", String(round));
      await notify(database, "b", String(round));
      await expect.poll(() => heard).toEqual([`a ${round}`, `b ${round}`]);
      heard.length = 0;
    }
  });

  it("notices that a network has dropped its connection in silence", async () => {
    const url = new URL(await createTestDatabaseUrl());
    const network = await startNetwork(`${url.searchParams.get("host")}/.s.PGSQL.5432`);
    url.searchParams.set("host", "127.0.0.1");
    url.searchParams.set("port", String(network.port));
    const clock = createFakeClock();
    const database = await openTestDatabase({ url: url.href, migrations: [], clock });
    open.push(database);
    let reconnects = 0;
    await database.listen(
      "c",
      () => undefined,
      () => reconnects++,
    );

    // A heartbeat that is answered changes nothing.
    const answers = network.answers();
    clock.advance(15_000);
    await expect.poll(() => network.answers()).toBeGreaterThan(answers);
    await database.ping(); // passes the same way, after that answer
    network.dropAll();
    clock.advance(15_000);
    expect(reconnects).toBe(0);
    clock.advance(5_025);
    await expect.poll(() => reconnects).toBe(1);
    network.close();
  });

  it("refuses a name that PostgreSQL would cut off", async () => {
    const database = await openEmpty();
    await expect(database.listen("x".repeat(64), () => undefined)).rejects.toThrow(/cannot be the name/);
  });

  it("ends with the database", async () => {
    const database = await openEmpty();
    await database.listen("c", () => undefined);
    await database.close();
    await expect(database.listen("c", () => undefined)).rejects.toThrow(/being closed/);
  });
});

/** A way to a server that can go dead without anybody being told. */
async function startNetwork(socketPath: string) {
  const connections = new Set<{ readonly near: Socket; readonly far: Socket }>();
  let answers = 0;
  const server = createServer((near) => {
    const far = connect(socketPath);
    far.on("data", () => answers++);
    near.pipe(far).pipe(near);
    connections.add({ near, far });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    port: typeof address === "object" ? address?.port : undefined,
    answers: () => answers,
    dropAll() {
      for (const { near, far } of connections) {
        near.unpipe(far);
        far.unpipe(near);
      }
    },
    close() {
      server.close();
      for (const { near, far } of connections) {
        near.destroy();
        far.destroy();
      }
    },
  };
}
