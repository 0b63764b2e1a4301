import { randomUUID } from "node:crypto";
import type { Clock } from "@toolplane/framework";
import { sql, type Transaction } from "kysely";
import { type Db, fromKysely, PgBoss } from "pg-boss";
import type { Logger } from "pino";
import type { Database } from "../../storage/database.ts";
import { toDatabaseError } from "../../storage/database-error.ts";
import type { Tables } from "../../storage/tables.ts";
import type { ClaimableJob } from "../engine/journal.ts";
import type { RunJobs } from "../jobs.ts";
import { explainRefusal, hasSchema, JOBS_SCHEMA } from "./jobs-schema.ts";

/** A worker that has not touched its jobs for this time is taken for dead. The shortest that pg-boss knows. */
export const HEARTBEAT_MS = 10_000;
/** Time between two looks for dead workers; with several replicas, one of them looks. */
const SUPERVISE_MS = 2_000;

const QUEUE = "runs";
const CHANNEL = "toolplane_run_jobs";
const MAX_INTEGER = 2 ** 31 - 1;
/** Jobs that wait may wait for a year and longer; what ends runs is their own deadline. */
const RETENTION_SECONDS = 10 * 365 * 86_400;
/** For people who look into the table. */
const KEEP_COMPLETED_SECONDS = 60;
/**
 * pg-boss takes a job from its worker, however alive, after at most a day. Runs may take a month, so the queue gets a time
 * (60 years) that pg-boss' own options refuse.
 */
const EXPIRE_SECONDS = 60 * 365 * 86_400;

const queueOptions = {
  // Being let go of is nothing that a job fails by.
  retryLimit: MAX_INTEGER,
  retryDelay: 0,
  retentionSeconds: RETENTION_SECONDS,
  deleteAfterSeconds: KEEP_COMPLETED_SECONDS,
  heartbeatSeconds: HEARTBEAT_MS / 1_000,
};

export interface RunJobsOptions {
  readonly database: Pick<Database, "kysely" | "connections" | "listen">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Opens the jobs of runs on pg-boss, in a schema of its own, which is made when it is missing; of several replicas that
 * start at once, one makes it. Throws FAILED_PRECONDITION when the database does not let it.
 */
export async function openRunJobs({ database, clock, logger }: RunJobsOptions): Promise<RunJobs> {
  const boss = new PgBoss({
    db: poolDatabase(database.connections),
    schema: JOBS_SCHEMA,
    createSchema: !(await hasSchema(database.kysely)),
    schedule: false,
    supervise: false,
    monitorIntervalSeconds: 1,
    maintenanceIntervalSeconds: 60,
    monitorVacuum: false,
    // How many may wait is for whoever makes runs to say.
    warningQueueSize: MAX_INTEGER,
    reindex: false,
  });
  boss.on("error", (error) => logger.warn({ err: error }, "the queue of runs could not be looked after"));
  boss.on("warning", ({ message, data }) => logger.warn({ data }, message));
  try {
    await boss.start();
    await putQueue(boss, database);
  } catch (error) {
    await boss.stop({ graceful: false });
    throw await explainRefusal(error, database.kysely);
  }
  const jobs = new PgBossJobs(boss, database, clock, logger);
  await jobs.start();
  return jobs;
}

class PgBossJobs implements RunJobs {
  readonly #boss: PgBoss;
  readonly #database: RunJobsOptions["database"];
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #listeners = new Set<() => void>();
  #subscription: { close(): Promise<void> } | undefined;
  #cancelTimer: () => void = () => undefined;
  #supervising: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(boss: PgBoss, database: RunJobsOptions["database"], clock: Clock, logger: Logger) {
    this.#boss = boss;
    this.#database = database;
    this.#clock = clock;
    this.#logger = logger;
  }

  async start(): Promise<void> {
    const wake = () => this.#wake();
    try {
      this.#subscription = await this.#database.listen(CHANNEL, wake, wake);
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#scheduleSupervision();
  }

  async send(
    transaction: Transaction<Tables>,
    { id, runId, depth = 0, startAfter }: Parameters<RunJobs["send"]>[1],
  ): Promise<void> {
    const sent = await this.#boss.send(
      QUEUE,
      { runId },
      {
        id,
        priority: depth,
        db: fromKysely(transaction),
        ...(startAfter !== undefined && { startAfter: new Date(startAfter) }),
      },
    );
    if (sent === null) {
      throw new Error(`there is a job ${id} already`);
    }
    if (startAfter === undefined || startAfter <= this.#clock.now()) {
      await notify(transaction);
    }
  }

  async fetch(limit: number, minDepth = 0): Promise<readonly ClaimableJob[]> {
    if (limit < 1) {
      return [];
    }
    const jobs = await this.#boss.fetch<{ runId: string }>(QUEUE, {
      batchSize: limit,
      minPriority: minDepth,
    });
    return jobs.map(({ id, data, retryCount }) => ({ id, runId: data.runId, retryCount }));
  }

  async touch(jobs: readonly ClaimableJob[]): Promise<ReadonlySet<string>> {
    return jobs.length === 0 ? new Set() : affectedIds(await this.#boss.touch(QUEUE, [...jobs]));
  }

  async complete(job: ClaimableJob): Promise<void> {
    await this.#boss.complete(QUEUE, job);
  }

  async release(job: ClaimableJob, startAfter?: number): Promise<void> {
    await this.#database.kysely.transaction().execute(async (transaction) => {
      const db = fromKysely(transaction);
      const failed = await this.#boss.fail(QUEUE, job, { message: "released" }, { db });
      if (!affectedIds(failed).has(job.id)) {
        return;
      }
      if (startAfter === undefined) {
        await notify(transaction);
      } else {
        await this.#boss.update(QUEUE, undefined, { id: job.id, startAfter: new Date(startAfter), db });
      }
    });
  }

  onWork(callback: () => void): () => void {
    // A function of its own, so that the same callback may be given twice.
    const own = () => callback();
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer();
    this.#listeners.clear();
    await this.#subscription?.close();
    await this.#supervising;
    await this.#boss.stop({ graceful: false });
  }

  #wake(): void {
    for (const listener of [...this.#listeners]) {
      listener();
    }
  }

  #scheduleSupervision(): void {
    if (!this.#closed) {
      this.#cancelTimer = this.#clock.after(SUPERVISE_MS, () => {
        this.#supervising = this.#supervise().then(() => this.#scheduleSupervision());
      });
    }
  }

  /** Frees the jobs of dead workers, and deletes what is done. */
  async #supervise(): Promise<void> {
    try {
      await this.#boss.supervise(QUEUE);
    } catch (error) {
      this.#logger.warn({ err: error }, "could not look for runs whose worker has died");
    }
    this.#wake();
  }
}

/** Makes the queue, or brings it to what this version wants. */
async function putQueue(boss: PgBoss, database: Pick<Database, "kysely">): Promise<void> {
  await boss.createQueue(QUEUE, queueOptions);
  await boss.updateQueue(QUEUE, queueOptions);
  await sql`
    UPDATE ${sql.table(`${JOBS_SCHEMA}.queue`)} SET expire_seconds = ${EXPIRE_SECONDS} WHERE name = ${QUEUE}
  `.execute(database.kysely);
  // Now pg-boss knows the queue by heart. Otherwise it would look it up with the first job, on another connection than that
  // of the job's transaction: of several at once, all could wait for each other.
  await boss.findJobs(QUEUE, { id: randomUUID() });
}

async function notify(transaction: Transaction<Tables>): Promise<void> {
  await sql`SELECT pg_notify(${CHANNEL}, '')`.execute(transaction);
}

/** The jobs that a command had an effect on, which pg-boss returns without declaring it. */
function affectedIds(response: object): ReadonlySet<string> {
  const ids: unknown = "settled" in response ? response.settled : undefined;
  if (!Array.isArray(ids)) {
    throw new Error("pg-boss does not say which jobs a command had an effect on");
  }
  return new Set(ids.filter((id) => typeof id === "string"));
}

/**
 * Some of pg-boss' texts are whole transactions, which an error leaves open; the pool drops the connection then, which
 * Kysely would not.
 */
function poolDatabase(connections: Database["connections"]): Db {
  return {
    async executeSql(text, values) {
      try {
        return await connections.query(text, values);
      } catch (error) {
        throw toDatabaseError(error);
      }
    },
  };
}
