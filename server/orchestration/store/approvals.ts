import { randomUUID } from "node:crypto";
import type { Clock } from "@toolplane/framework";
import { RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Kysely, Transaction } from "kysely";
import type { Database } from "../../storage/database.ts";
import type { Tables } from "../../storage/tables.ts";
import { storable } from "../../storage/text.ts";
import type { ApprovalAnswer } from "../engine/journal.ts";
import type { RunJobs } from "../jobs.ts";
import { unknownRun } from "../refusals.ts";
import { announce } from "./announcements.ts";
import { approvalResolved, notWaitingForApproval, whichApproval } from "./refusals.ts";
import type { StepRow } from "./rows.ts";

type AskedStep = Pick<
  StepRow,
  "path" | "approval_deadline" | "end_time" | "answer_time" | "answer_approved" | "answer_by"
>;

/** Answers that the run has not taken note of, by path. */
export async function readAnswers(
  kysely: Kysely<Tables>,
  run: string,
): Promise<ReadonlyMap<string, ApprovalAnswer>> {
  const rows = await kysely
    .selectFrom("run_steps")
    .select(["path", "answer_approved", "answer_comment", "answer_by", "answer_time", "answer_taken"])
    .where("run", "=", run)
    .where("approval_message", "is not", null)
    .where("end_time", "is", null)
    .execute();
  return new Map(
    rows.flatMap((row) => {
      const answer = freshAnswer(row);
      return answer === undefined ? [] : [[row.path, answer] as const];
    }),
  );
}

/** Undefined: there is none, or the run has taken note of it. */
export function freshAnswer(
  row: Pick<StepRow, "answer_time" | "answer_taken" | "answer_approved" | "answer_comment" | "answer_by">,
): ApprovalAnswer | undefined {
  return row.answer_time === null || row.answer_taken
    ? undefined
    : {
        approved: row.answer_approved ?? false,
        comment: row.answer_comment ?? "",
        by: row.answer_by ?? "",
      };
}

/** Records an answer, and sees to it that the run goes on: its worker is told, or it gets a new job. */
export async function resolveApproval(
  options: {
    readonly database: Pick<Database, "kysely">;
    readonly jobs: Pick<RunJobs, "send">;
    readonly clock: Clock;
  },
  runId: string,
  path: string,
  answer: ApprovalAnswer,
): Promise<void> {
  const { database, jobs, clock } = options;
  await database.kysely.transaction().execute(async (transaction) => {
    // Locked, so that the run is either let go of with the answer seen, or found to have been let go of.
    const run = await transaction
      .selectFrom("runs")
      .select(["number", "state", "depth"])
      .where("id", "=", storable(runId))
      .forUpdate()
      .executeTakeFirst();
    if (run === undefined) {
      throw unknownRun(runId);
    }
    const now = new Date(clock.now());
    const asked = await readAsked(transaction, run.number);
    const step = choose(asked, runId, path, answer.approved, now);
    if (step === undefined) {
      return;
    }
    await transaction
      .updateTable("run_steps")
      .set({
        answer_time: now,
        answer_approved: answer.approved,
        answer_comment: storable(answer.comment),
        answer_by: storable(answer.by),
      })
      .where("run", "=", run.number)
      .where("path", "=", step.path)
      .execute();
    if (run.state === RunState.WAITING) {
      const jobId = randomUUID();
      await transaction
        .updateTable("runs")
        .set({ state: RunState.QUEUED, job_id: jobId, job_retry: null })
        .where("number", "=", run.number)
        .execute();
      await jobs.send(transaction, { id: jobId, runId, depth: run.depth });
    } else {
      await announce(transaction, { kind: "answer", runId });
    }
  });
}

function readAsked(transaction: Transaction<Tables>, run: string): Promise<AskedStep[]> {
  return transaction
    .selectFrom("run_steps")
    .select(["path", "approval_deadline", "end_time", "answer_time", "answer_approved", "answer_by"])
    .where("run", "=", run)
    .where("approval_message", "is not", null)
    .orderBy("position")
    .execute();
}

/** The step that is to be answered. Undefined: it was, and the same way. */
function choose(
  asked: readonly AskedStep[],
  runId: string,
  path: string,
  approved: boolean,
  now: Date,
): AskedStep | undefined {
  const pending = asked.filter((step) => isPending(step, now));
  const paths = pending.map((step) => step.path);
  if (path === "" && pending.length > 1) {
    throw whichApproval(paths);
  }
  // Without a path, a repeated answer is about the only approval that there was.
  const candidates = pending.length === 0 ? asked : pending;
  const step =
    path === ""
      ? candidates.length === 1
        ? candidates[0]
        : undefined
      : asked.find((other) => other.path === path);
  if (step === undefined || (step.answer_time === null && !isPending(step, now))) {
    throw notWaitingForApproval(runId, path, paths);
  }
  if (step.answer_time === null) {
    return step;
  }
  if (step.answer_approved !== approved) {
    throw approvalResolved(step.path, step.answer_approved ?? false, step.answer_by ?? "");
  }
  return undefined;
}

/** After its deadline, the default stands, whether or not the run has taken note of that. */
function isPending({ answer_time, end_time, approval_deadline }: AskedStep, now: Date): boolean {
  return answer_time === null && end_time === null && (approval_deadline === null || now < approval_deadline);
}
