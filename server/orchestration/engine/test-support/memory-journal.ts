import { clone, create, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Clock } from "@toolplane/framework";
import type { Agent, Usage } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  type RunSource,
  type RunStep,
  RunStepSchema,
  StepState,
} from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import {
  type ApprovalAnswer,
  type ClaimedRun,
  type Journal,
  type JournalEntry,
  LostRunError,
  type RecordedStep,
  type RunEnd,
} from "../journal.ts";
import type { StepEnd } from "../step.ts";

/** A run whose journal is in memory. It refuses whatever breaks the rules of a journal. */
export interface MemoryRun {
  /** Everything that was recorded, in order. */
  readonly entries: JournalEntry[];
  readonly steps: ReadonlyMap<string, RecordedStep>;
  readonly end: RunEnd | undefined;
  readonly parkedUntil: readonly (number | undefined)[];
  /** A worker takes the run; whoever had it has lost it. */
  claim(options?: ClaimOptions): { run: ClaimedRun; journal: Journal };
  answer(path: string, answer: ApprovalAnswer): void;
  onAnswer(callback: () => void): () => void;
}

export interface ClaimOptions {
  /** The worker dies when so many entries have been recorded in all, its last transaction undone. */
  readonly diesAt?: number | undefined;
  readonly cancelled?: ClaimedRun["cancelled"];
}

export function createMemoryRun(options: {
  readonly source: RunSource;
  readonly clock: Clock;
  readonly agents?: readonly Agent[];
  readonly timeoutMs?: number;
}): MemoryRun {
  const { source, clock, agents = [], timeoutMs = 86_400_000 } = options;
  const entries: JournalEntry[] = [];
  const steps = new Map<string, RecordedStep>();
  const answers = new Map<string, ApprovalAnswer>();
  const listeners = new Set<() => void>();
  const parkedUntil: (number | undefined)[] = [];
  const created = clock.now();
  let epoch = 0;
  let end: RunEnd | undefined;
  let usage: Usage = create(UsageSchema);

  function apply(entry: JournalEntry): void {
    const { path, kind, wakeTime } = entry;
    const before = steps.get(path) ?? {
      path,
      attempts: 0,
      failures: 0,
      startTime: undefined,
      end: undefined,
      wakeTime: undefined,
      approval: undefined,
    };
    if (before.end !== undefined) {
      throw new Error(`${kind.case} of step "${path}", which has ended`);
    }
    switch (kind.case) {
      case "stepStarted":
        if (kind.value.attempt !== before.attempts + 1) {
          throw new Error(`attempt ${kind.value.attempt} of step "${path}" comes after ${before.attempts}`);
        }
        steps.set(path, {
          ...before,
          attempts: kind.value.attempt,
          startTime: before.startTime ?? clock.now(),
          wakeTime,
        });
        break;
      case "stepRetrying":
        steps.set(path, { ...before, failures: before.failures + 1, wakeTime });
        break;
      case "stepFinished":
        steps.set(path, { ...before, end: endOf(kind.value.step), wakeTime: undefined });
        break;
      default:
        break;
    }
    entries.push(entry);
  }

  function openAnswers(): ReadonlyMap<string, ApprovalAnswer> {
    return new Map([...answers].filter(([path]) => steps.get(path)?.end === undefined));
  }

  function createJournal(mine: number, diesAt: number): Journal {
    let isLost = false;
    function check(more: number): void {
      isLost ||= mine !== epoch || entries.length + more > diesAt;
      if (isLost) {
        throw new LostRunError("another worker has the run");
      }
      if (end !== undefined) {
        throw new Error("the run has ended");
      }
    }
    return {
      async record(batch) {
        check(batch.length);
        batch.forEach(apply);
      },
      setUsage(total) {
        usage = clone(UsageSchema, total);
      },
      async finish(how) {
        check(0);
        end = how;
      },
      async park(until) {
        check(0);
        if (openAnswers().size > 0) {
          return false;
        }
        epoch += 1;
        parkedUntil.push(until);
        return true;
      },
      async release() {
        check(0);
        epoch += 1;
        for (const [path, step] of steps) {
          if (step.end === undefined && step.wakeTime === undefined) {
            steps.set(path, { ...step, attempts: Math.max(step.attempts - 1, 0) });
          }
        }
      },
      async answers() {
        return openAnswers();
      },
    };
  }

  return {
    entries,
    steps,
    parkedUntil,
    get end() {
      return end;
    },
    claim({ diesAt = Number.POSITIVE_INFINITY, cancelled } = {}) {
      epoch += 1;
      const known = [...steps].map(
        ([path, step]) => [path, { ...step, approval: answers.get(path) }] as const,
      );
      const run: ClaimedRun = {
        id: "run-1",
        number: 1,
        title: "",
        principal: { kind: "user", id: "ada" } as unknown as ClaimedRun["principal"],
        depth: 0,
        deadline: created + timeoutMs,
        epoch,
        source,
        agents,
        createTime: created,
        startTime: created,
        takeovers: 0,
        isNew: !entries.some(({ kind }) => kind.case === "planned"),
        cancelled,
        steps: new Map(known),
        usage,
        retryOf: "",
      };
      return { run, journal: createJournal(epoch, diesAt) };
    },
    answer(path, answer) {
      answers.set(path, answer);
      for (const listener of [...listeners]) {
        listener();
      }
    },
    onAnswer(callback) {
      listeners.add(callback);
      return () => listeners.delete(callback);
    },
  };
}

function endOf(step: RunStep = create(RunStepSchema)): StepEnd {
  switch (step.state) {
    case StepState.SUCCEEDED:
      return {
        state: "succeeded",
        output: step.output ? toJson(ValueSchema, step.output) : null,
        fallback: step.fallback,
      };
    case StepState.FAILED:
      if (step.error === undefined) {
        throw new Error(`step "${step.path}" has failed without an error`);
      }
      return { state: "failed", error: step.error };
    case StepState.SKIPPED:
      return { state: "skipped", cause: step.error ? "failure" : "condition" };
    case StepState.CANCELLED:
      return { state: "cancelled" };
    default:
      throw new Error(`step "${step.path}" has ended in state ${step.state}`);
  }
}
