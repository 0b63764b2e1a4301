import { randomUUID } from "node:crypto";
import { tmpdir } from "node:os";
import { Code } from "@connectrpc/connect";
import { type Clock, systemClock } from "@toolplane/framework";
import { sql } from "kysely";
import { afterEach, describe, expect, it } from "vitest";
import { createFakeClock, type FakeClock } from "../../../framework/test-support/fake-clock.ts";
import { type Database, openDatabase } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { createTestDatabaseUrl } from "../../storage/testing.ts";
import type { RunJobs } from "../jobs.ts";
import { openRunJobs } from "./pg-boss-jobs.ts";

const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const part of open.splice(0).reverse()) {
    await part.close();
  }
});

async function openAt(url: string): Promise<Database> {
  const database = await openDatabase({ url, dataDir: tmpdir(), logger: silentLogger, migrations: [] });
  open.push(database);
  return database;
}

async function openJobs(database: Database, clock: Clock = systemClock): Promise<RunJobs> {
  const jobs = await openRunJobs({ database, clock, logger: silentLogger });
  open.push(jobs);
  return jobs;
}

async function openBoth() {
  const database = await openAt(await createTestDatabaseUrl());
  const clock = createFakeClock();
  return { database, clock, jobs: await openJobs(database, clock) };
}

function send(database: Database, jobs: RunJobs, runId: string, startAfter?: number): Promise<string> {
  const id = randomUUID();
  return database.kysely.transaction().execute(async (transaction) => {
    await jobs.send(transaction, { id, runId, startAfter });
    return id;
  });
}

/** Lets time pass for a job as the database sees it. */
async function age(database: Database, id: string, seconds: number): Promise<void> {
  await sql`
    UPDATE toolplane_jobs.job
    SET created_on = created_on - ${seconds}::float8 * interval '1 s',
        start_after = start_after - ${seconds}::float8 * interval '1 s',
        started_on = started_on - ${seconds}::float8 * interval '1 s',
        heartbeat_on = heartbeat_on - ${seconds}::float8 * interval '1 s',
        completed_on = completed_on - ${seconds}::float8 * interval '1 s',
        keep_until = keep_until - ${seconds}::float8 * interval '1 s'
    WHERE id = ${id}
  `.execute(database.kysely);
}

/** Has one replica look after the queue now. */
async function supervise(database: Database, clock: FakeClock): Promise<void> {
  await sql`UPDATE toolplane_jobs.queue SET monitor_claim_on = NULL, maintain_on = NULL`.execute(
    database.kysely,
  );
  clock.advance(2_000);
  // Deleting comes last.
  await expect
    .poll(async () => {
      const { rows } = await sql<{ maintain_on: Date | null }>`
        SELECT maintain_on FROM toolplane_jobs.queue WHERE name = 'runs'
      `.execute(database.kysely);
      return rows[0]?.maintain_on;
    })
    .not.toBeNull();
}

async function states(database: Database): Promise<Record<string, string>> {
  const { rows } = await sql<{ id: string; state: string }>`SELECT id, state FROM toolplane_jobs.job`.execute(
    database.kysely,
  );
  return Object.fromEntries(rows.map(({ id, state }) => [id, state]));
}

describe("jobs of runs", () => {
  it("come with the transaction that sends them, and wake workers then", async () => {
    const { database, jobs } = await openBoth();
    const other = await openJobs(database);
    const woken = Promise.all(
      [jobs, other].map((replica) => new Promise<void>((resolve) => replica.onWork(resolve))),
    );
    const id = randomUUID();
    await database.kysely.transaction().execute(async (transaction) => {
      await jobs.send(transaction, { id, runId: "run-1" });
      expect(await jobs.fetch(10)).toEqual([]);
    });
    await woken;
    expect(await jobs.fetch(10)).toEqual([{ id, runId: "run-1", retryCount: 0 }]);
    expect(await jobs.fetch(10)).toEqual([]);
  });

  it("need no connection besides that of the transaction that sends them", async () => {
    const { database, jobs } = await openBoth();
    const count = 10;
    const begun = Promise.withResolvers<void>();
    let open = 0;
    await Promise.all(
      Array.from({ length: count }, (_, index) =>
        database.kysely.transaction().execute(async (transaction) => {
          await sql`SELECT 1`.execute(transaction);
          open += 1;
          if (open === count) {
            begun.resolve();
          }
          // All connections of the pool are in use.
          await begun.promise;
          await jobs.send(transaction, { id: randomUUID(), runId: `run-${index}` });
        }),
      ),
    );
    expect(await jobs.fetch(count)).toHaveLength(count);
  });

  it("do not come when that transaction is undone", async () => {
    const { database, jobs } = await openBoth();
    const undone = database.kysely.transaction().execute(async (transaction) => {
      await jobs.send(transaction, { id: randomUUID(), runId: "run-1" });
      throw new Error("undone");
    });
    await expect(undone).rejects.toThrow("undone");
    expect(await jobs.fetch(10)).toEqual([]);
  });

  it("cannot be sent twice under one id", async () => {
    const { database, jobs } = await openBoth();
    const id = await send(database, jobs, "run-1");
    const again = database.kysely
      .transaction()
      .execute((transaction) => jobs.send(transaction, { id, runId: "run-2" }));
    await expect(again).rejects.toThrow(/already/);
  });

  it("are fetched oldest first, as many as asked for, each by one of several workers", async () => {
    const { database, jobs } = await openBoth();
    const other = await openJobs(database);
    for (let number = 1; number <= 20; number++) {
      await send(database, jobs, `run-${number}`);
    }
    const first = await jobs.fetch(2);
    expect(first.map(({ runId }) => runId).toSorted()).toEqual(["run-1", "run-2"]);
    const batches = await Promise.all([jobs, other, jobs, other].map((worker) => worker.fetch(10)));
    const fetched = batches.flat().map(({ runId }) => runId);
    expect(new Set(fetched).size).toBe(fetched.length);
    expect(fetched.length).toBe(18);
    expect(await jobs.fetch(0)).toEqual([]);
  });

  it("wait for their time, a year if need be", async () => {
    const { database, clock, jobs } = await openBoth();
    const year = 366 * 86_400;
    const id = await send(database, jobs, "run-1", Date.now() + year * 1_000);
    expect(await jobs.fetch(1)).toEqual([]);
    await age(database, id, year - 60);
    await supervise(database, clock);
    expect(await jobs.fetch(1)).toEqual([]);
    await age(database, id, 60);
    expect(await jobs.fetch(1)).toMatchObject([{ id }]);
  });

  it("stay with a worker that touches them, for a month", async () => {
    const { database, clock, jobs } = await openBoth();
    await send(database, jobs, "run-1");
    const [job] = await jobs.fetch(1);
    if (job === undefined) {
      throw new Error("expected a job");
    }
    await age(database, job.id, 31 * 86_400);
    expect(await jobs.touch([job])).toEqual(new Set([job.id]));
    await supervise(database, clock);
    expect(await jobs.touch([job])).toEqual(new Set([job.id]));
    expect(await jobs.fetch(1)).toEqual([]);
    // Released and fetched again after such a time, it is still there.
    await jobs.release(job);
    await supervise(database, clock);
    expect(await jobs.fetch(1)).toEqual([{ ...job, retryCount: 1 }]);
  });

  it("are taken from a worker that does not, which has no say in them from then on", async () => {
    const { database, clock, jobs } = await openBoth();
    const other = await openJobs(database);
    await send(database, jobs, "run-1");
    const [lost] = await jobs.fetch(1);
    if (lost === undefined) {
      throw new Error("expected a job");
    }
    await age(database, lost.id, 11);
    await supervise(database, clock);
    const [taken] = await other.fetch(1);
    expect(taken).toEqual({ ...lost, retryCount: 1 });
    if (taken === undefined) {
      throw new Error("expected the job");
    }

    expect(await jobs.touch([lost])).toEqual(new Set());
    await jobs.complete(lost);
    await jobs.release(lost);
    expect(await states(database)).toEqual({ [lost.id]: "active" });
    expect(await other.touch([taken])).toEqual(new Set([taken.id]));
    await other.complete(taken);
    expect(await states(database)).toEqual({ [lost.id]: "completed" });
  });

  it("can be let go of, at once or for later", async () => {
    const { database, jobs } = await openBoth();
    await send(database, jobs, "run-1");
    const [first] = await jobs.fetch(1);
    if (first === undefined) {
      throw new Error("expected a job");
    }
    const woken = new Promise<void>((resolve) => jobs.onWork(resolve));
    await jobs.release(first);
    await woken;
    const [second] = await jobs.fetch(1);
    expect(second).toEqual({ ...first, retryCount: 1 });
    if (second === undefined) {
      throw new Error("expected the job");
    }
    await jobs.release(second, Date.now() + 60_000);
    expect(await jobs.fetch(1)).toEqual([]);
    await age(database, first.id, 60);
    expect(await jobs.fetch(1)).toEqual([{ ...first, retryCount: 2 }]);
  });

  it("are forgotten soon after they are done", async () => {
    const { database, clock, jobs } = await openBoth();
    await send(database, jobs, "run-1");
    const [job] = await jobs.fetch(1);
    if (job === undefined) {
      throw new Error("expected a job");
    }
    await jobs.complete(job);
    await age(database, job.id, 61);
    await supervise(database, clock);
    expect(await states(database)).toEqual({});
  });

  it("are opened by several replicas at once on a database that has none", async () => {
    const url = await createTestDatabaseUrl();
    const databases = await Promise.all(Array.from({ length: 4 }, () => openAt(url)));
    const opened = await Promise.all(databases.map((database) => openJobs(database)));
    for (const [index, jobs] of opened.entries()) {
      const database = databases[index];
      if (database === undefined) {
        throw new Error("expected a database");
      }
      await send(database, jobs, `run-${index}`);
    }
    expect(await opened[0]?.fetch(10)).toHaveLength(4);
  });

  it("need a schema, and say what to grant where it cannot be made", async () => {
    const url = new URL(await createTestDatabaseUrl());
    const admin = await openAt(url.href);
    await sql`CREATE ROLE "tool user" LOGIN PASSWORD 'secret'`.execute(admin.kysely);
    await sql`GRANT SELECT ON toolplane_migrations TO "tool user"`.execute(admin.kysely);
    // Either the user of a socket, or that of an address, which has to be known by a password.
    if (url.hostname === "") {
      url.searchParams.set("user", "tool user");
    } else {
      Object.assign(url, { username: "tool user", password: "secret" });
    }
    const database = await openAt(url.href);
    await expect(openRunJobs({ database, clock: systemClock, logger: silentLogger })).rejects.toMatchObject({
      init: { code: Code.FailedPrecondition, reason: "DATABASE_SCHEMA_REFUSED" },
      message: expect.stringContaining('CREATE SCHEMA toolplane_jobs AUTHORIZATION "tool user"'),
    });

    await sql`CREATE SCHEMA toolplane_jobs`.execute(admin.kysely);
    await expect(openRunJobs({ database, clock: systemClock, logger: silentLogger })).rejects.toMatchObject({
      message: expect.stringContaining('ALTER SCHEMA toolplane_jobs OWNER TO "tool user"'),
    });
    await sql`ALTER SCHEMA toolplane_jobs OWNER TO "tool user"`.execute(admin.kysely);
    const jobs = await openJobs(database);
    await send(database, jobs, "run-1");
    expect(await jobs.fetch(1)).toHaveLength(1);
  });

  it("throw while the database is away", async () => {
    const { database, jobs } = await openBoth();
    await send(database, jobs, "run-1");
    const [job] = await jobs.fetch(1);
    if (job === undefined) {
      throw new Error("expected a job");
    }
    await database.close();
    const away = { init: { code: Code.Unavailable } };
    await expect(jobs.fetch(1)).rejects.toMatchObject(away);
    await expect(jobs.touch([job])).rejects.toMatchObject(away);
    await expect(jobs.complete(job)).rejects.toMatchObject(away);
    await expect(jobs.release(job)).rejects.toMatchObject(away);
  });
});
