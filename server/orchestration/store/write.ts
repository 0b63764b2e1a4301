import { toBinary } from "@bufbuild/protobuf";
import { type Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  RunState,
  type StepCounts,
  StepCountsSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { sql, type Transaction } from "kysely";
import type { Tables } from "../../storage/tables.ts";
import { storable } from "../../storage/text.ts";
import type { StepWrite } from "./step-images.ts";

/** Rows that one statement writes. */
const MAX_ROWS = 1_000;

/** The run is no longer as whoever writes believed: somebody else has it, or it has ended. */
export class StaleRunError extends Error {
  override readonly name = "StaleRunError";
}

/** As whom a run is written to. */
export interface Fence {
  readonly number: string;
  readonly epoch: number;
  /** Whether a worker has the run. */
  readonly owned: boolean;
}

export interface RunWrite {
  readonly steps: readonly StepWrite[];
  readonly counts: StepCounts;
  readonly usage: Usage;
  readonly lastSequence: number;
  readonly planned: boolean;
  /** A step has ended. */
  readonly progressed: boolean;
  readonly end?: RunEndColumns | undefined;
  /** The run is let go of until its new job, or until an approval is resolved. */
  readonly park?: { readonly state: RunState; readonly jobId: string | undefined } | undefined;
}

export interface RunEndColumns {
  readonly state: RunState;
  readonly time: Date;
  readonly output: Buffer | undefined;
  readonly error: Uint8Array | undefined;
}

/** Somebody wants the run to stop. */
export interface Cancellation {
  readonly by: string;
  readonly message: string;
}

/**
 * Writes what happened to a run and its steps. Throws a `StaleRunError` when it is not as the fence says; otherwise the
 * run's row is locked from here on. Returns who wants the run to stop.
 */
export async function writeRun(
  transaction: Transaction<Tables>,
  { number, epoch, owned }: Fence,
  write: RunWrite,
): Promise<Cancellation | undefined> {
  const row = await transaction
    .updateTable("runs")
    .set({
      counts: Buffer.from(toBinary(StepCountsSchema, write.counts)),
      usage: Buffer.from(toBinary(UsageSchema, write.usage)),
      last_sequence: write.lastSequence,
      ...(write.planned && { planned: true }),
      ...(write.progressed && { barren_takeovers: 0 }),
      ...(write.end && {
        state: write.end.state,
        end_time: write.end.time,
        output: write.end.output ?? null,
        error: write.end.error === undefined ? null : Buffer.from(write.end.error),
        worker: null,
        job_id: null,
      }),
      ...(write.park && {
        state: write.park.state,
        worker: null,
        job_id: write.park.jobId ?? null,
        job_retry: null,
      }),
    })
    .where("number", "=", number)
    .where("epoch", "=", epoch)
    .where("worker", owned ? "is not" : "is", null)
    .where("end_time", "is", null)
    .returning(["cancel_by", "cancel_message"])
    .executeTakeFirst();
  if (row === undefined) {
    throw new StaleRunError("the run has ended, or somebody else has it");
  }
  for (let start = 0; start < write.steps.length; start += MAX_ROWS) {
    await writeSteps(transaction, number, write.steps.slice(start, start + MAX_ROWS));
  }
  return row.cancel_by === null ? undefined : { by: row.cancel_by, message: row.cancel_message ?? "" };
}

/** Lets go of a run, and of what its worker had begun. Throws a `StaleRunError` when somebody else has it. */
export async function releaseRun(
  transaction: Transaction<Tables>,
  { number, epoch }: Pick<Fence, "number" | "epoch">,
): Promise<void> {
  const row = await transaction
    .updateTable("runs")
    .set({ state: RunState.QUEUED, worker: null })
    .where("number", "=", number)
    .where("epoch", "=", epoch)
    .where("worker", "is not", null)
    .where("end_time", "is", null)
    .returning("number")
    .executeTakeFirst();
  if (row === undefined) {
    throw new StaleRunError("the run has ended, or somebody else has it");
  }
  await transaction
    .updateTable("run_steps")
    .set({ attempts: sql<number>`greatest(attempts - 1, 0)` })
    .where("run", "=", number)
    .where("state", "=", sql<number>`${sql.lit(StepState.RUNNING)}`)
    .execute();
}

/** Bytes of many rows in one parameter, since in an array they would travel as hexadecimal text. */
function pack() {
  const parts: Uint8Array[] = [];
  let length = 0;
  const column = () => {
    const starts: (number | null)[] = [];
    const lengths: (number | null)[] = [];
    return {
      starts,
      lengths,
      add(bytes: Uint8Array | undefined) {
        starts.push(bytes === undefined ? null : length + 1);
        lengths.push(bytes === undefined ? null : bytes.byteLength);
        if (bytes !== undefined) {
          parts.push(bytes);
          length += bytes.byteLength;
        }
      },
    };
  };
  return { column, join: () => Buffer.concat(parts, length) };
}

async function writeSteps(
  transaction: Transaction<Tables>,
  run: string,
  steps: readonly StepWrite[],
): Promise<void> {
  const packed = pack();
  const output = packed.column();
  const error = packed.column();
  const usage = packed.column();
  for (const step of steps) {
    output.add(step.output);
    error.add(step.error);
    usage.add(step.usage);
  }
  const column = <T>(read: (step: StepWrite) => T): T[] => steps.map(read);
  const times = (read: (step: StepWrite) => number | undefined): (Date | null)[] =>
    steps.map((step) => dateOf(read(step)));
  await sql`
    WITH packed AS (SELECT ${packed.join()}::bytea AS bytes)
    INSERT INTO run_steps AS known (
      run, path, position, kind, target, state, attempts, failures, start_time, end_time, wake_time, output, output_bytes,
      error, usage, fallback, reused, child_id, approval_message, approval_time, approval_deadline, answer_approved,
      answer_comment, answer_by, answer_time, answer_taken
    )
    SELECT ${run}, path, position, kind, target, state, attempts, failures, start_time, end_time, wake_time,
      substring(packed.bytes FROM output_start FOR output_length), output_bytes,
      substring(packed.bytes FROM error_start FOR error_length),
      substring(packed.bytes FROM usage_start FOR usage_length), fallback, reused, child_id, approval_message,
      approval_time, approval_deadline, answer_approved, answer_comment, answer_by,
      CASE WHEN answer_by IS NULL THEN NULL ELSE now() END, answer_by IS NOT NULL
    FROM packed, unnest(
      ${column(({ path }) => storable(path))}::text[], ${column(({ position }) => position)}::integer[],
      ${column(({ kind }) => storable(kind))}::text[], ${column(({ target }) => storable(target))}::text[],
      ${column(({ state }) => state)}::smallint[], ${column(({ attempts }) => attempts)}::integer[],
      ${column(({ failures }) => failures)}::integer[], ${times(({ startTime }) => startTime)}::timestamptz[],
      ${times(({ endTime }) => endTime)}::timestamptz[], ${times(({ wakeTime }) => wakeTime)}::timestamptz[],
      ${output.starts}::integer[], ${output.lengths}::integer[], ${column(({ outputBytes }) => outputBytes)}::bigint[], ${error.starts}::integer[],
      ${error.lengths}::integer[], ${usage.starts}::integer[], ${usage.lengths}::integer[],
      ${column(({ fallback }) => fallback)}::boolean[], ${column(({ reused }) => reused)}::boolean[],
      ${column(({ childId }) => storable(childId))}::text[],
      ${column(({ approval }) => approval && storable(approval.message))}::text[],
      ${times(({ approval }) => approval?.time)}::timestamptz[],
      ${times(({ approval }) => approval?.deadline)}::timestamptz[],
      ${column(({ answer }) => answer?.approved)}::boolean[],
      ${column(({ answer }) => answer && storable(answer.comment))}::text[],
      ${column(({ answer }) => answer && storable(answer.by))}::text[]
    ) AS step (
      path, position, kind, target, state, attempts, failures, start_time, end_time, wake_time, output_start,
      output_length, output_bytes, error_start, error_length, usage_start, usage_length, fallback, reused, child_id,
      approval_message, approval_time, approval_deadline, answer_approved, answer_comment, answer_by
    )
    ON CONFLICT (run, path) DO UPDATE SET
      kind = excluded.kind, target = excluded.target, state = excluded.state, attempts = excluded.attempts,
      failures = excluded.failures, start_time = excluded.start_time, end_time = excluded.end_time,
      wake_time = excluded.wake_time, output = excluded.output, output_bytes = excluded.output_bytes,
      error = excluded.error, usage = excluded.usage, fallback = excluded.fallback, reused = excluded.reused,
      child_id = excluded.child_id, approval_message = excluded.approval_message,
      approval_time = excluded.approval_time, approval_deadline = excluded.approval_deadline,
      -- A person's answer may have come since the step was last looked at.
      answer_time = coalesce(known.answer_time, excluded.answer_time),
      answer_approved = coalesce(known.answer_approved, excluded.answer_approved),
      answer_comment = coalesce(known.answer_comment, excluded.answer_comment),
      answer_by = coalesce(known.answer_by, excluded.answer_by),
      answer_taken = excluded.answer_taken
  `.execute(transaction);
}

function dateOf(ms: number | undefined): Date | null {
  return ms === undefined ? null : new Date(ms);
}
