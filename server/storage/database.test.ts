import { Code } from "@connectrpc/connect";
import { sql } from "kysely";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import type { Database } from "./database.ts";
import { openTestDatabase } from "./testing.ts";

const open: Database[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((database) => database.close()));
});

async function openEmpty(): Promise<Database> {
  const database = await openTestDatabase({ migrations: [] });
  open.push(database);
  return database;
}

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => new Error("expected a failure"),
    (error: unknown) => error,
  );
}

/** Ends every session with the database but the one that asks. */
async function endSessions(database: Database): Promise<void> {
  await sql`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`.execute(database.kysely);
}

describe("a database", () => {
  it("answers, and runs queries", async () => {
    const database = await openEmpty();
    expect(database.kind).toBe("shared");
    await database.ping();
    const { rows } = await sql<{ two: number }>`select 1 + 1 as two`.execute(database.kysely);
    expect(rows).toEqual([{ two: 2 }]);
  });

  it("returns complaints about a statement as they are", async () => {
    const { kysely } = await openEmpty();
    await sql`create table t (id int constraint only_once unique)`.execute(kysely);
    await sql`insert into t values (1)`.execute(kysely);
    const error = await failureOf(sql`insert into t values (1)`.execute(kysely));
    expect(error).toBeInstanceOf(pg.DatabaseError);
    expect(error).toMatchObject({ code: "23505", constraint: "only_once" });
  });

  it("calls a statement that took too long DEADLINE_EXCEEDED", async () => {
    const { kysely } = await openEmpty();
    const error = await failureOf(
      kysely.transaction().execute(async (transaction) => {
        await sql`set local statement_timeout = 1`.execute(transaction);
        await sql`select pg_sleep(60)`.execute(transaction);
      }),
    );
    expect(error).toMatchObject({ init: { code: Code.DeadlineExceeded, reason: "DATABASE_TIMEOUT" } });
  });

  it("calls a deadlock ABORTED for one of those concerned and lets the other finish", async () => {
    const { kysely } = await openEmpty();
    await sql`create table t (id int primary key, n int)`.execute(kysely);
    await sql`insert into t values (1, 0), (2, 0)`.execute(kysely);
    const locked = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const lockBoth = (order: readonly number[], mine: number) =>
      kysely.transaction().execute(async (transaction) => {
        await sql`set local deadlock_timeout = '10ms'`.execute(transaction);
        await sql`update t set n = n + 1 where id = ${order[0]}`.execute(transaction);
        locked[mine]?.resolve();
        await locked[1 - mine]?.promise;
        await sql`update t set n = n + 1 where id = ${order[1]}`.execute(transaction);
      });
    const outcomes = await Promise.allSettled([lockBoth([1, 2], 0), lockBoth([2, 1], 1)]);
    const rejected = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(rejected).toHaveLength(1);
    expect(rejected[0]?.reason).toMatchObject({
      init: { code: Code.Aborted, reason: "TRANSACTION_ABORTED" },
    });
  });

  it("calls a session that ends inside a transaction UNAVAILABLE, and goes on with another", async () => {
    const database = await openEmpty();
    const error = await failureOf(
      database.kysely.transaction().execute(async (transaction) => {
        await sql`select 1`.execute(transaction);
        await endSessions(database);
        await sql`select 2`.execute(transaction);
      }),
    );
    expect(error).toMatchObject({ init: { code: Code.Unavailable, reason: "DATABASE_UNAVAILABLE" } });
    await expect.poll(() => database.ping().then(() => "back", String)).toBe("back");
  });

  it("shows an error of one's own that ended a transaction although the session had ended too", async () => {
    const database = await openEmpty();
    const mine = new Error("mine");
    const error = await failureOf(
      database.kysely.transaction().execute(async (transaction) => {
        const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(transaction);
        await endSessions(database);
        await expect
          .poll(async () => {
            const found = await sql`select from pg_stat_activity where pid = ${rows[0]?.pid}`.execute(
              database.kysely,
            );
            return found.rows.length;
          })
          .toBe(0);
        throw mine;
      }),
    );
    // The transaction is undone whether or not ROLLBACK could still be sent.
    if (error !== mine) {
      expect(error).toMatchObject({ init: { code: Code.Unavailable } });
    }
    await expect.poll(() => database.ping().then(() => "back", String)).toBe("back");
  });

  it("gives up waiting for a connection that never comes free, and serves others afterwards", async () => {
    const database = await openEmpty();
    const release = Promise.withResolvers<void>();
    const holders = Array.from({ length: 10 }, () =>
      database.kysely.connection().execute(async (connection) => {
        await sql`select 1`.execute(connection);
        await release.promise;
      }),
    );
    const error = await failureOf(database.ping());
    expect(error).toMatchObject({ init: { code: Code.Unavailable } });
    release.resolve();
    await Promise.all(holders);
    await database.ping();
  });
});
