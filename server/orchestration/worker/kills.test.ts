import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@toolplane/framework";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, it, vi } from "vitest";
import { type Database, openDatabase } from "../../storage/database.ts";
import { startPrivatePostgres } from "../../storage/private-postgres.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { databaseUrl } from "../../storage/testing.ts";
import { openRunJobs } from "./pg-boss-jobs.ts";

/** Another worker has to go on within this time, here with several on a busy machine. */
const TAKEOVER_MS = 30_000;
const patience = { timeout: TAKEOVER_MS, interval: 50 };

interface Row {
  readonly id: string;
  readonly epoch: number;
  readonly worker: string | null;
  readonly progress: number;
  readonly ended_by: string | null;
}

interface Replica {
  readonly process: ChildProcess;
  /** The runs that it has left to others. */
  readonly left: readonly string[];
}

let cache: string;
const closers: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  // Compiling the same sources for each process would take most of the time.
  cache = await mkdtemp(join(tmpdir(), "toolplane-test-"));
});

afterAll(async () => {
  for (const close of closers.splice(0).reverse()) {
    await close();
  }
  await rm(cache, { recursive: true, force: true });
});

/** A database with runs that go on until they are told to finish. */
async function startRuns(count: number) {
  // A server of its own: it takes no more connections than the processes of one test have.
  const folder = await mkdtemp(join(tmpdir(), "toolplane-test-"));
  const postgres = await startPrivatePostgres({ dataDir: folder, logger: silentLogger, clock: systemClock });
  closers.push(async () => {
    await postgres.stop();
    await rm(folder, { recursive: true, force: true });
  });
  const url = databaseUrl(postgres.address, "postgres");
  const database = await openDatabase({ url, dataDir: tmpdir(), logger: silentLogger, migrations: [] });
  closers.push(() => database.close());
  const { kysely } = database;
  await sql`
    CREATE TABLE stand_in_runs (
      id text PRIMARY KEY,
      job_id uuid NOT NULL,
      epoch integer NOT NULL DEFAULT 0,
      worker text,
      progress integer NOT NULL DEFAULT 0,
      finish boolean NOT NULL DEFAULT false,
      ended_by text
    )
  `.execute(kysely);
  const jobs = await openRunJobs({ database, clock: systemClock, logger: silentLogger });
  for (let number = 1; number <= count; number++) {
    const id = randomUUID();
    await kysely.transaction().execute(async (transaction) => {
      await sql`INSERT INTO stand_in_runs (id, job_id) VALUES (${`run-${number}`}, ${id})`.execute(
        transaction,
      );
      await jobs.send(transaction, { id, runId: `run-${number}` });
    });
  }
  // Who looks for dead workers is one of those that are left.
  await jobs.close();
  return { url, database };
}

async function startReplica(url: string, name: string): Promise<Replica> {
  const process_ = fork(join(import.meta.dirname, "test-support/working-process.ts"), [url, name], {
    execArgv: ["--conditions=toolplane-source"],
    env: { ...process.env, NODE_COMPILE_CACHE: cache },
  });
  closers.push(async () => {
    if (process_.exitCode === null && process_.signalCode === null) {
      process_.kill("SIGKILL");
      await once(process_, "exit");
    }
  });
  const left: string[] = [];
  process_.on("message", (message) => {
    if (message !== "open") {
      left.push(String(message));
    }
  });
  // Rejects when it ends instead.
  await new Promise((resolve, reject) => {
    process_.once("message", resolve);
    process_.once("exit", (code) => reject(new Error(`the replica "${name}" has ended with ${code}`)));
  });
  return { process: process_, left };
}

async function rows({ kysely }: Database): Promise<readonly Row[]> {
  const result = await sql<Row>`
    SELECT id, epoch, worker, progress, ended_by FROM stand_in_runs ORDER BY id
  `.execute(kysely);
  return result.rows;
}

async function jobStates({ kysely }: Database): Promise<readonly string[]> {
  const result = await sql<{ state: string }>`SELECT state FROM toolplane_jobs.job`.execute(kysely);
  return result.rows.map(({ state }) => state);
}

async function finish(database: Database): Promise<void> {
  await sql`UPDATE stand_in_runs SET finish = true`.execute(database.kysely);
}

/** Resolves when all rows are as they have to be. */
async function until(database: Database, isSo: (row: Row) => boolean): Promise<void> {
  await vi.waitFor(async () => {
    const found = await rows(database);
    if (!found.every(isSo)) {
      throw new Error(`still ${JSON.stringify(found)}`);
    }
  }, patience);
}

/** Resolves when each run is worked on by one of these. */
function workedOnBy(database: Database, ...names: readonly string[]): Promise<void> {
  return until(database, ({ worker }) => worker !== null && names.includes(worker));
}

/** Resolves when each run has gone on. */
async function goneOn(database: Database): Promise<void> {
  const before = new Map((await rows(database)).map(({ id, progress }) => [id, progress]));
  await until(database, ({ id, progress }) => progress > (before.get(id) ?? Number.MAX_SAFE_INTEGER));
}

describe.concurrent("runs", () => {
  it("are gone on with by another worker when theirs is killed", { timeout: 120_000 }, async ({ expect }) => {
    const { url, database } = await startRuns(5);
    const first = await startReplica(url, "first");
    const second = await startReplica(url, "second");
    await workedOnBy(database, "first", "second");
    await goneOn(database);
    const firsts = (await rows(database)).filter(({ worker }) => worker === "first").map(({ id }) => id);
    expect(firsts.length).toBeGreaterThan(0);

    first.process.kill("SIGKILL");
    await once(first.process, "exit");
    // The other one may have no more than 3 at once.
    await startReplica(url, "third");
    await workedOnBy(database, "second", "third");
    await goneOn(database);
    await finish(database);
    await until(database, ({ ended_by }) => ended_by !== null);
    for (const { id, epoch } of await rows(database)) {
      expect([id, epoch]).toEqual([id, firsts.includes(id) ? 2 : 1]);
    }
    await expect.poll(() => jobStates(database), patience).toEqual(Array(5).fill("completed"));
    expect(second.left).toEqual([]);
  });

  it("wait for a worker when the only one is killed", { timeout: 120_000 }, async ({ expect }) => {
    const { url, database } = await startRuns(3);
    const replica = await startReplica(url, "first");
    await workedOnBy(database, "first");
    await goneOn(database);
    replica.process.kill("SIGKILL");
    await once(replica.process, "exit");
    await finish(database);
    await startReplica(url, "second");
    await expect
      .poll(async () => (await rows(database)).map(({ epoch, ended_by }) => [epoch, ended_by]), patience)
      .toEqual(Array(3).fill([2, "second"]));
    await expect.poll(() => jobStates(database), patience).toEqual(Array(3).fill("completed"));
  });

  it("are another worker's when theirs was stopped and goes on", { timeout: 120_000 }, async ({ expect }) => {
    const { url, database } = await startRuns(3);
    const zombie = await startReplica(url, "zombie");
    await workedOnBy(database, "zombie");
    await goneOn(database);
    zombie.process.kill("SIGSTOP");
    const other = await startReplica(url, "other");
    await workedOnBy(database, "other");
    zombie.process.kill("SIGCONT");
    await expect.poll(() => zombie.left.toSorted(), patience).toEqual(["run-1", "run-2", "run-3"]);
    // It has let go of them, touched and completed what it could, and the other one goes on all the same.
    await goneOn(database);
    expect(await jobStates(database)).toEqual(Array(3).fill("active"));
    expect((await rows(database)).map(({ epoch, worker }) => [epoch, worker])).toEqual(
      Array(3).fill([2, "other"]),
    );
    await finish(database);
    await expect.poll(() => jobStates(database), patience).toEqual(Array(3).fill("completed"));
    expect((await rows(database)).map(({ ended_by }) => ended_by)).toEqual(Array(3).fill("other"));
    expect(other.left).toEqual([]);
  });
});
