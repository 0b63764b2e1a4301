import { RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { sql } from "kysely";
import type { Database } from "../../storage/database.ts";

/** Runs that have not ended, on all replicas together. */
export interface OpenRuns {
  /** They wait for a worker. */
  readonly queued: number;
  /** A worker has them. */
  readonly running: number;
  /** They wait for an approval or a time. */
  readonly waiting: number;
}

export async function countOpenRuns({ kysely }: Pick<Database, "kysely">): Promise<OpenRuns> {
  const { rows } = await sql<Record<keyof OpenRuns, string>>`
    SELECT
      count(*) FILTER (WHERE state = ${RunState.QUEUED}) AS queued,
      count(*) FILTER (WHERE state = ${RunState.RUNNING}) AS running,
      count(*) FILTER (WHERE state = ${RunState.WAITING}) AS waiting
    FROM runs WHERE end_time IS NULL
  `.execute(kysely);
  const [{ queued, running, waiting } = { queued: "0", running: "0", waiting: "0" }] = rows;
  return { queued: Number(queued), running: Number(running), waiting: Number(waiting) };
}
