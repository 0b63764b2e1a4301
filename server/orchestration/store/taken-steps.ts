import { RunState, type StepCounts, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { type Kysely, sql, type Transaction } from "kysely";
import type { Tables } from "../../storage/tables.ts";
import { notRetryable } from "../refusals.ts";
import { readRun } from "./rows.ts";
import { countSteps } from "./step-images.ts";

/** Steps that a run takes over from one that has ended. */
export interface TakenSteps {
  /** The number of the run that has them. */
  readonly from: string;
  readonly paths: readonly string[];
  readonly counts: StepCounts;
}

/**
 * Those that had succeeded, with all that is below them, except for `anew` and what is below these. Throws
 * FAILED_PRECONDITION unless the run has failed or was cancelled.
 */
export async function findTakenSteps(
  kysely: Kysely<Tables>,
  runId: string,
  anew: ReadonlySet<string>,
): Promise<TakenSteps> {
  const { number, state } = await readRun(kysely, runId);
  if (state !== RunState.FAILED && state !== RunState.CANCELLED) {
    throw notRetryable(runId, (RunState[state] ?? "").toLowerCase());
  }
  const steps = await kysely
    .selectFrom("run_steps")
    .select(["path", "state"])
    .where("run", "=", number)
    .orderBy("position")
    .execute();
  const succeeded = new Set(
    steps.filter((step) => step.state === StepState.SUCCEEDED).map(({ path }) => path),
  );
  const taken = steps.filter(({ path, state: end }) => {
    const places = placesOf(path);
    return !places.some((place) => anew.has(place)) && isTaken(places, end, succeeded);
  });
  return { from: number, paths: taken.map(({ path }) => path), counts: countSteps(taken) };
}

/** @param places the path of the step and all that it is below, the topmost first */
function isTaken(places: readonly string[], end: StepState, succeeded: ReadonlySet<string>): boolean {
  if (places.some((place) => !isPart(place) && succeeded.has(place))) {
    return true;
  }
  // Of a step that did not succeed, the parts that did are taken with what came of them: what a model has answered, and
  // the results that it has gone on from. What was stopped on the way is done anew.
  const part = places.find(isPart);
  return part !== undefined && succeeded.has(part) && end !== StepState.CANCELLED;
}

/** Whether it is a part of a step, as what models do is. */
function isPart(path: string): boolean {
  return path.includes("/");
}

/** Of `a[1]/b`: `a`, `a[1]` and itself. */
function placesOf(path: string): string[] {
  const ends = [...path.matchAll(/[/[]/g)].map(({ index }) => index);
  return [...ends.map((end) => path.slice(0, end)), path];
}

export async function copySteps(
  transaction: Transaction<Tables>,
  run: string,
  { from, paths }: TakenSteps,
): Promise<void> {
  await sql`
    INSERT INTO run_steps (
      run, path, position, kind, target, state, attempts, failures, start_time, end_time, output, output_bytes, error,
      fallback, reused, usage, child_id, approval_message, approval_time, approval_deadline, answer_time,
      answer_approved, answer_comment, answer_by, answer_taken
    )
    SELECT ${run}, path, position, kind, target, state, attempts, failures, start_time, end_time, output, output_bytes,
      error, fallback, true, usage, child_id, approval_message, approval_time, approval_deadline, answer_time,
      answer_approved, answer_comment, answer_by, answer_taken
    FROM run_steps WHERE run = ${from} AND path = ANY (${paths}::text[])
  `.execute(transaction);
}
