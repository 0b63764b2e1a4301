import { randomUUID } from "node:crypto";
import { type Clock, systemClock } from "@toolplane/framework";
import { sql } from "kysely";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Database } from "../../storage/database.ts";
import { silentLogger } from "../../storage/silent-logger.ts";
import { openTestDatabase } from "../../storage/testing.ts";
import { CancelledError, ReleasedError, type RunControl } from "../engine/engine.ts";
import type { RunJobs } from "../jobs.ts";
import { openRunJobs } from "./pg-boss-jobs.ts";
import { bareRun, noJournal } from "./test-support/bare-run.ts";
import { startWorker, type Worker } from "./worker.ts";

type Outcome = "finished" | "parked" | "left";

/** A run as the engine is given it; the test says what becomes of it. */
interface Drive {
  readonly runId: string;
  readonly control: RunControl;
  end(outcome: Outcome): void;
  fail(error: Error): void;
}

const open: { close(): Promise<void> }[] = [];
let database: Database;
let jobs: RunJobs;

beforeEach(async () => {
  database = await openTestDatabase({ migrations: [] });
  open.push(database);
  jobs = await openJobs();
});

afterEach(async () => {
  for (const part of open.splice(0).reverse()) {
    await part.close();
  }
});

async function openJobs(): Promise<RunJobs> {
  const opened = await openRunJobs({ database, clock: systemClock, logger: silentLogger });
  open.push(opened);
  return opened;
}

async function send(runId: string, depth = 0): Promise<string> {
  const id = randomUUID();
  await database.kysely.transaction().execute((transaction) => jobs.send(transaction, { id, runId, depth }));
  return id;
}

async function jobState(id: string): Promise<string | undefined> {
  const { rows } = await sql<{
    state: string;
  }>`SELECT state FROM toolplane_jobs.job WHERE id = ${id}`.execute(database.kysely);
  return rows[0]?.state;
}

interface Part {
  readonly worker: Worker;
  readonly drives: Drive[];
  readonly cancel: (runId: string, by: string, message: string) => void;
  readonly answer: (runId: string | undefined) => void;
  /** The next run that it is given. */
  next(): Promise<Drive>;
}

/** A worker with an engine that leaves a run when it is told to, unless it is `stubborn`. */
function start(
  options: {
    readonly jobs?: RunJobs;
    readonly clock?: Clock;
    readonly max?: number;
    readonly ended?: ReadonlySet<string>;
    readonly stubborn?: boolean;
  } = {},
): Part {
  const drives: Drive[] = [];
  let told = 0;
  const cancels = new Set<(runId: string, by: string, message: string) => void>();
  const answers = new Set<(runId: string | undefined) => void>();
  const worker = startWorker({
    jobs: options.jobs ?? jobs,
    clock: options.clock ?? systemClock,
    logger: silentLogger,
    maxConcurrentRuns: options.max ?? 50,
    name: randomUUID(),
    claims: {
      claim: async (job) =>
        options.ended?.has(job.runId)
          ? undefined
          : { run: bareRun(job.runId), journal: noJournal, isTakeover: false },
      onCancel(callback) {
        cancels.add(callback);
        return () => cancels.delete(callback);
      },
      onAnswer(callback) {
        answers.add(callback);
        return () => answers.delete(callback);
      },
    },
    engine: {
      drive(run, _journal, control) {
        const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
        drives.push({ runId: run.id, control, end: resolve, fail: reject });
        if (options.stubborn !== true) {
          control.signal.addEventListener("abort", () =>
            resolve(control.signal.reason instanceof CancelledError ? "finished" : "left"),
          );
        }
        return promise;
      },
    },
  });
  open.push(worker);
  return {
    worker,
    drives,
    cancel(runId, by, message) {
      for (const callback of cancels) {
        callback(runId, by, message);
      }
    },
    answer(runId) {
      for (const callback of answers) {
        callback(runId);
      }
    },
    async next() {
      await expect.poll(() => drives.length).toBeGreaterThan(told);
      const drive = drives[told++];
      if (drive === undefined) {
        throw new Error("expected a run");
      }
      return drive;
    },
  };
}

describe("a worker", () => {
  it.each(["finished", "parked"] as const)(
    "drives the run of a job, which is done when it has %s",
    async (end) => {
      const { worker, next } = start();
      const id = await send("run-1");
      const drive = await next();
      expect(drive.runId).toBe("run-1");
      expect(worker.active).toBe(1);
      expect(await jobState(id)).toBe("active");
      drive.end(end);
      await expect.poll(() => jobState(id)).toBe("completed");
      await expect.poll(() => worker.active).toBe(0);
    },
  );

  it("finds what was sent before it started", async () => {
    await send("run-1");
    const { next } = start();
    expect((await next()).runId).toBe("run-1");
  });

  it("has no more runs than it may have, and takes the next one as soon as one has ended", async () => {
    const ids: string[] = [];
    for (let number = 1; number <= 30; number++) {
      ids.push(await send(`run-${number}`));
    }
    const part = start({ max: 13 });
    for (let ended = 0; ended < 30; ended++) {
      const drive = await part.next();
      expect(part.worker.active).toBeLessThanOrEqual(13);
      drive.end("finished");
    }
    for (const id of ids) {
      await expect.poll(() => jobState(id)).toBe("completed");
    }
    expect(new Set(part.drives.map(({ runId }) => runId)).size).toBe(30);
  });

  it("takes another run while one only waits for runs that it has started", async () => {
    const part = start({ max: 1 });
    await send("parent");
    const parent = await part.next();
    await send("stranger");
    await send("child", 1);
    parent.control.onIdle?.(true);
    const child = await part.next();
    expect(child.runId).toBe("child");
    child.end("finished");
    const stranger = await part.next();
    parent.control.onIdle?.(false);
    stranger.end("finished");
    await send("last");
    await expect.poll(() => part.worker.active).toBe(1);
    expect(part.drives).toHaveLength(3);
    parent.end("finished");
    expect((await part.next()).runId).toBe("last");
  });

  it("has no more than ten times as many that only wait, and then takes those that others wait for", async () => {
    const part = start({ max: 1 });
    for (let number = 1; number <= 11; number++) {
      await send(`parent-${number}`);
    }
    for (let number = 1; number <= 10; number++) {
      (await part.next()).control.onIdle?.(true);
    }
    await send("child", 1);
    const child = await part.next();
    expect(child.runId).toBe("child");
    child.end("finished");
    await expect.poll(() => part.worker.active).toBe(10);
    part.drives[0]?.end("finished");
    expect((await part.next()).runId).toBe("parent-11");
  });

  it("has nothing to do for a run that has ended", async () => {
    const part = start({ ended: new Set(["run-1"]) });
    const id = await send("run-1");
    await expect.poll(() => jobState(id)).toBe("completed");
    expect(part.drives).toEqual([]);
  });

  it("tells a run that it is cancelled, and by whom", async () => {
    const part = start();
    const id = await send("run-1");
    const drive = await part.next();
    part.cancel("run-2", "user:bob", "another one");
    expect(drive.control.signal.aborted).toBe(false);
    part.cancel("run-1", "user:ada", "no longer wanted");
    expect(drive.control.signal.reason).toMatchObject({ name: "CancelledError", by: "user:ada" });
    await expect.poll(() => jobState(id)).toBe("completed");
  });

  it("tells a run of answers that may be its own", async () => {
    const part = start();
    await send("run-1");
    const drive = await part.next();
    let told = 0;
    const stop = drive.control.onAnswer(() => told++);
    part.answer("run-2");
    expect(told).toBe(0);
    part.answer("run-1");
    part.answer(undefined);
    expect(told).toBe(2);
    stop();
    part.answer("run-1");
    expect(told).toBe(2);
  });

  it("leaves a run to others when it drains, and takes no more", async () => {
    const first = start();
    const id = await send("run-1");
    const drive = await first.next();
    const drained = first.worker.drain();
    expect(drive.control.signal.reason).toBeInstanceOf(ReleasedError);
    await drained;
    expect(first.worker.active).toBe(0);
    expect(await jobState(id)).toBe("retry");
    await send("run-2");
    const second = start();
    expect([(await second.next()).runId, (await second.next()).runId].toSorted()).toEqual(["run-1", "run-2"]);
    expect(first.drives).toHaveLength(1);
  });

  it("waits no longer than 10 s for runs that do not let go", async () => {
    const clock = createFakeClock();
    const part = start({ clock, stubborn: true });
    await send("run-1");
    const drive = await part.next();
    let drained = false;
    const draining = part.worker.drain().then(() => {
      drained = true;
    });
    clock.advance(9_999);
    await sql`SELECT 1`.execute(database.kysely);
    expect(drained).toBe(false);
    clock.advance(1);
    await draining;
    drive.end("left");
  });

  it("tries a run again later when driving it has failed", async () => {
    const part = start();
    const id = await send("run-1");
    (await part.next()).fail(new Error("broken"));
    await expect.poll(() => jobState(id)).toBe("retry");
    const { rows } = await sql<{ waits: boolean }>`
      SELECT start_after > now() + interval '0.1 s' AS waits FROM toolplane_jobs.job WHERE id = ${id}
    `.execute(database.kysely);
    expect(rows).toEqual([{ waits: true }]);
    expect(part.worker.active).toBe(0);
    (await part.next()).end("finished");
    await expect.poll(() => jobState(id)).toBe("completed");
  });

  it("says that it lives", async () => {
    const clock = createFakeClock();
    const part = start({ clock });
    const id = await send("run-1");
    const drive = await part.next();
    for (let seconds = 0; seconds < 60; seconds += 3) {
      await sql`UPDATE toolplane_jobs.job SET heartbeat_on = now() - interval '9 s'`.execute(database.kysely);
      clock.advance(3_000);
      await expect
        .poll(async () => {
          const { rows } = await sql<{ fresh: boolean }>`
            SELECT heartbeat_on > now() - interval '5 s' AS fresh FROM toolplane_jobs.job WHERE id = ${id}
          `.execute(database.kysely);
          return rows[0]?.fresh;
        })
        .toBe(true);
    }
    expect(drive.control.signal.aborted).toBe(false);
  });

  it("lets go of its runs when it cannot say so for as long as the others wait", async () => {
    const clock = createFakeClock();
    let isAway = false;
    const unreachable: RunJobs = {
      ...bound(jobs),
      touch: (touched) => (isAway ? Promise.reject(new Error("away")) : jobs.touch(touched)),
      fetch: (limit) => (isAway ? Promise.reject(new Error("away")) : jobs.fetch(limit)),
    };
    const part = start({ jobs: unreachable, clock });
    await send("run-1");
    const drive = await part.next();
    isAway = true;
    for (let second = 0; second < 8; second++) {
      clock.advance(1_000);
    }
    expect(drive.control.signal.aborted).toBe(false);
    clock.advance(2_000);
    expect(drive.control.signal.reason).toBeInstanceOf(ReleasedError);
    await expect.poll(() => part.worker.active).toBe(0);

    // Back again, it goes on with what there is to do.
    isAway = false;
    clock.advance(2_000);
    (await part.next()).end("finished");
  });

  it("goes on when its connections to the database are lost", async () => {
    const part = start();
    const id = await send("run-1");
    const drive = await part.next();
    await sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
    `.execute(database.kysely);
    await expect.poll(() => send("run-2").catch(() => undefined)).toBeDefined();
    (await part.next()).end("finished");
    drive.end("finished");
    await expect.poll(() => jobState(id)).toBe("completed");
  });

  it("lets go of a run that another worker has taken over", async () => {
    const clock = createFakeClock();
    const part = start({ clock, max: 1 });
    const id = await send("run-1");
    const drive = await part.next();
    // As if it had been stopped for longer than the others wait.
    await sql`UPDATE toolplane_jobs.job SET heartbeat_on = now() - interval '11 s'`.execute(database.kysely);
    const second = start({ jobs: await openJobs() });
    const taken = await second.next();
    expect(taken.runId).toBe("run-1");
    clock.advance(3_000);
    await expect.poll(() => drive.control.signal.reason).toBeInstanceOf(ReleasedError);
    await expect.poll(() => part.worker.active).toBe(0);
    expect(await jobState(id)).toBe("active");
    taken.end("finished");
    await expect.poll(() => jobState(id)).toBe("completed");
  });

  it("goes on anew with a run that it has lost itself, once", async () => {
    const part = start();
    const id = await send("run-1");
    const drive = await part.next();
    await sql`UPDATE toolplane_jobs.job SET heartbeat_on = now() - interval '11 s'`.execute(database.kysely);
    const anew = await part.next();
    expect(drive.control.signal.reason).toBeInstanceOf(ReleasedError);
    expect(anew.control.signal.aborted).toBe(false);
    await expect.poll(() => part.worker.active).toBe(1);
    expect(await jobState(id)).toBe("active");
    anew.end("finished");
    await expect.poll(() => jobState(id)).toBe("completed");
  });

  it("lets a run that it has lost itself record what it came to, before it goes on anew", async () => {
    const part = start({ stubborn: true });
    await send("run-1");
    const drive = await part.next();
    await sql`UPDATE toolplane_jobs.job SET heartbeat_on = now() - interval '11 s'`.execute(database.kysely);
    await expect.poll(() => drive.control.signal.aborted).toBe(true);
    expect(part.drives).toHaveLength(1);
    drive.end("left");
    const anew = await part.next();
    expect(anew.control.signal.aborted).toBe(false);
    anew.end("finished");
    await expect.poll(() => part.worker.active).toBe(0);
  });
});

/** The methods of an object of a class, for spreading. */
function bound(real: RunJobs): RunJobs {
  return {
    send: (transaction, job) => real.send(transaction, job),
    fetch: (limit, minDepth) => real.fetch(limit, minDepth),
    touch: (touched) => real.touch(touched),
    complete: (job) => real.complete(job),
    release: (job, startAfter) => real.release(job, startAfter),
    onWork: (callback) => real.onWork(callback),
    close: () => real.close(),
  };
}
