import { tmpdir } from "node:os";
import { Code } from "@connectrpc/connect";
import { sql } from "kysely";
import { afterEach, describe, expect, it } from "vitest";
import { type Database, openDatabase } from "./database.ts";
import { type Migration, migrations } from "./migrations/index.ts";
import { silentLogger } from "./silent-logger.ts";
import { createTestDatabaseUrl } from "./testing.ts";

const open: Database[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((database) => database.close()));
});

async function openWith(url: string, steps: readonly Migration[]): Promise<Database> {
  const database = await openDatabase({ url, dataDir: tmpdir(), logger: silentLogger, migrations: steps });
  open.push(database);
  return database;
}

function step(name: string, statement: string): Migration {
  return {
    name,
    async up(db) {
      await sql.raw(statement).execute(db);
    },
  };
}

const first = step("0001-first", "create table log (line text)");
const second = step("0002-second", "insert into log values ('second')");
const third = step("0003-third", "insert into log values ('third')");

async function lines(database: Database): Promise<string[]> {
  const { rows } = await sql<{ line: string }>`select line from log`.execute(database.kysely);
  return rows.map(({ line }) => line);
}

describe("migrations", () => {
  it("are applied once by five that start together", async () => {
    const url = await createTestDatabaseUrl();
    const databases = await Promise.all(
      Array.from({ length: 5 }, () => openWith(url, [first, second, third])),
    );
    for (const database of databases) {
      expect(await lines(database)).toEqual(["second", "third"]);
    }
  });

  it("go on from where the database is", async () => {
    const url = await createTestDatabaseUrl();
    await openWith(url, [first]);
    await openWith(url, [first, second]);
    expect(await lines(await openWith(url, [first, second, third]))).toEqual(["second", "third"]);
    const { rows } = await sql`select name from toolplane_migrations order by name`.execute(
      (await openWith(url, [first, second, third])).kysely,
    );
    expect(rows).toEqual([{ name: "0001-first" }, { name: "0002-second" }, { name: "0003-third" }]);
  });

  it("leave nothing behind when one of them fails", async () => {
    const url = await createTestDatabaseUrl();
    await openWith(url, [first]);
    const broken = step("0003-broken", "insert into nowhere values (1)");
    await expect(openWith(url, [first, second, broken])).rejects.toThrow(/nowhere/);
    expect(await lines(await openWith(url, [first]))).toEqual([]);
  });

  it("refuse a database that a newer version has changed", async () => {
    const url = await createTestDatabaseUrl();
    await openWith(url, [first, second]);
    await expect(openWith(url, [first])).rejects.toMatchObject({
      init: { code: Code.FailedPrecondition, reason: "DATABASE_NEWER" },
      message: expect.stringContaining("0002-second"),
    });
  });

  it("have to be in order", async () => {
    const url = await createTestDatabaseUrl();
    await expect(openWith(url, [second, first])).rejects.toThrow(/out of order/);
    await expect(openWith(url, [step("second", "select 1")])).rejects.toThrow(/misnamed/);
  });

  it("make the schema of all domains", async () => {
    const url = await createTestDatabaseUrl();
    await openWith(url, migrations);
    await openWith(url, migrations);
  });
});
