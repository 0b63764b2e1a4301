// A replica for tests to kill and to stop: a worker on the database whose URL is its first argument, under the name in its
// second. Its runs are rows of `stand_in_runs`, and what it does for one is to count `progress` until the row says
// `finish`. It tells its parent over IPC when it is "open", and the id of each run that it leaves to others.
import { flushCompileCache } from "node:module";
import { tmpdir } from "node:os";
import { setTimeout as wait } from "node:timers/promises";
import { systemClock } from "@toolplane/framework";
import { sql } from "kysely";
import { openDatabase } from "../../../storage/database.ts";
import { silentLogger } from "../../../storage/silent-logger.ts";
import type { ClaimableJob, ClaimedRun } from "../../engine/journal.ts";
import { openRunJobs } from "../pg-boss-jobs.ts";
import { startWorker } from "../worker.ts";
import { bareRun, noJournal } from "./bare-run.ts";

const STEP_MS = 50;

// Written when a process ends by itself, which one that is killed does not.
flushCompileCache();
const [url = "", name = ""] = process.argv.slice(2);
const database = await openDatabase({ url, dataDir: tmpdir(), logger: silentLogger, migrations: [] });
const { kysely } = database;
const options = { database, clock: systemClock, logger: silentLogger };
const jobs = await openRunJobs(options);

async function claim(job: ClaimableJob) {
  const { rows } = await sql<{ epoch: number }>`
    UPDATE stand_in_runs SET epoch = epoch + 1, worker = ${name}
    WHERE id = ${job.runId} AND job_id = ${job.id} AND ended_by IS NULL RETURNING epoch
  `.execute(kysely);
  const [row] = rows;
  return row && { run: { ...bareRun(job.runId), epoch: row.epoch }, journal: noJournal, isTakeover: false };
}

/** Counts by one, unless another worker has the run. */
async function step(run: ClaimedRun): Promise<{ readonly finish: boolean } | undefined> {
  const { rows } = await sql<{ finish: boolean }>`
    UPDATE stand_in_runs SET progress = progress + 1, ended_by = CASE WHEN finish THEN ${name} END
    WHERE id = ${run.id} AND epoch = ${run.epoch} AND ended_by IS NULL RETURNING finish
  `.execute(kysely);
  return rows[0];
}

startWorker({
  ...options,
  jobs,
  name,
  maxConcurrentRuns: 3,
  claims: { claim, onCancel: () => () => undefined, onAnswer: () => () => undefined },
  engine: {
    async drive(run, _journal, { signal }) {
      while (!signal.aborted) {
        const stepped = await step(run);
        if (stepped === undefined) {
          break;
        }
        if (stepped.finish) {
          return "finished";
        }
        await wait(STEP_MS, undefined, { signal }).catch(() => undefined);
      }
      process.send?.(run.id);
      return "left";
    },
  },
});
process.send?.("open");
