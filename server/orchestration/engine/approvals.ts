import { create, type JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { ApprovalResolvedSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { ApprovalSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { toTimestamp } from "../../config/durations.ts";
import type { StepAbout } from "./finished-step.ts";
import type { ApprovalAnswer, Journal, RecordedStep } from "./journal.ts";
import type { Parking } from "./parking.ts";
import type { Recorder } from "./recorder.ts";
import { sleepUntil, untilAborted } from "./sleep.ts";

/** Asks people, and waits for what they say. */
export interface Approvals {
  /**
   * Waits for the answer to a question, and records it. Returns what the step gives back; throws FAILED_PRECONDITION,
   * reason `APPROVAL_REFUSED`, for a no, and DEADLINE_EXCEEDED, reason `APPROVAL_TIMEOUT`, for none in time.
   */
  ask(question: Question, signal: AbortSignal): Promise<JsonValue>;
  /** Looks for answers that have come. */
  look(): Promise<void>;
}

export interface Question {
  readonly about: StepAbout;
  readonly message: string;
  /** Undefined: no limit. */
  readonly timeoutMs: number | undefined;
  readonly approveOnTimeout: boolean;
}

export interface ApprovalsOptions {
  readonly journal: Pick<Journal, "answers">;
  readonly recorder: Recorder;
  readonly parking: Parking;
  /** What the journal knew of a step when this worker took the run. */
  readonly before: (path: string) => RecordedStep | undefined;
  readonly clock: Clock;
}

export function createApprovals({ journal, recorder, parking, before, clock }: ApprovalsOptions): Approvals {
  const open = new Map<string, (answer: ApprovalAnswer) => void>();

  async function look(): Promise<void> {
    if (open.size > 0) {
      for (const [path, answer] of await journal.answers()) {
        open.get(path)?.(answer);
      }
    }
  }

  /** Asks, unless another worker has. Returns when the time is over. */
  function begin({ about, message, timeoutMs }: Question): number | undefined {
    const known = before(about.path);
    if (known !== undefined && known.attempts > 0) {
      recorder.resume(about);
      return (
        known.wakeTime ?? (timeoutMs === undefined ? undefined : (known.startTime ?? clock.now()) + timeoutMs)
      );
    }
    const now = clock.now();
    const deadline = timeoutMs === undefined ? undefined : now + timeoutMs;
    const value = create(ApprovalSchema, { path: about.path, message, requestTime: toTimestamp(now) });
    if (deadline !== undefined) {
      value.deadline = toTimestamp(deadline);
    }
    recorder.begin(about, { input: message, wakeTime: deadline });
    recorder.note({ path: about.path, kind: { case: "approvalRequested", value }, wakeTime: deadline });
    return deadline;
  }

  /** Undefined: none came in time. */
  async function answerTo(
    path: string,
    deadline: number | undefined,
    signal: AbortSignal,
  ): Promise<ApprovalAnswer | undefined> {
    const given = before(path)?.approval;
    if (given !== undefined) {
      return given;
    }
    const { promise, resolve } = Promise.withResolvers<ApprovalAnswer>();
    open.set(path, resolve);
    const asked = new AbortController();
    const over = deadline === undefined ? [] : [sleepUntil(deadline, clock, asked.signal)];
    try {
      const first = untilAborted(Promise.race([promise, ...over]), signal);
      const answer = await parking.wait(deadline, first);
      // Whoever answered in time may not have been heard yet.
      return answer ?? (await journal.answers()).get(path);
    } finally {
      open.delete(path);
      asked.abort();
      for (const timer of over) {
        timer.catch(() => {});
      }
    }
  }

  return {
    look,
    async ask(question, signal) {
      const { path } = question.about;
      const answer = await answerTo(path, begin(question), signal);
      signal.throwIfAborted();
      const { approved, comment, by } = answer ?? {
        approved: question.approveOnTimeout,
        comment: "",
        by: "",
      };
      const value = create(ApprovalResolvedSchema, { approved, comment, by });
      recorder.note({ path, kind: { case: "approvalResolved", value } });
      if (!approved) {
        throw answer === undefined ? unanswered(path) : refused(path, answer);
      }
      return { approved, comment, by };
    },
  };
}

function refused(path: string, { by, comment }: ApprovalAnswer): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "APPROVAL_REFUSED",
    message: `${by} has refused step "${path}"${comment === "" ? "" : `: ${comment}`}`,
    metadata: { step: path, by },
  });
}

function unanswered(path: string): DomainError {
  return new DomainError({
    code: Code.DeadlineExceeded,
    reason: "APPROVAL_TIMEOUT",
    message: `nobody has answered step "${path}" in time`,
    metadata: { step: path },
  });
}
