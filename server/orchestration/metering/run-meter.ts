import type { Usage } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { type RunSource, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { Claim, Claims, Journal, JournalEntry, RunEnd } from "../engine/journal.ts";

/** Runs of one kind. */
export interface RunKindStats {
  /** Such as `workflow`. */
  readonly kind: string;
  /** Of which the first worker was this server's. */
  readonly begun: number;
  readonly ended: Readonly<Record<RunEnd["state"], number>>;
}

/** Steps of one kind, those that are parts of others included. */
export interface StepKindStats {
  /** Such as `tool`, or `turn` of a model. */
  readonly kind: string;
  readonly attempts: number;
  /** Of the attempts, those beyond the first. */
  readonly retries: number;
  readonly ended: Readonly<Record<"succeeded" | "failed" | "skipped" | "cancelled", number>>;
}

/** What this server's worker has done since the start. */
export interface RunStats {
  readonly runs: readonly RunKindStats[];
  readonly steps: readonly StepKindStats[];
  /** Runs that this worker has taken over from one that had died. */
  readonly takeovers: number;
  /** How often a run was put aside until an approval or a time. */
  readonly parkings: number;
  /** Calls of tools that models have made. */
  readonly modelToolCalls: number;
}

/** Counts what workers write into the journals of runs, once it is durable. */
export interface RunMeter {
  /** The same claims, with journals that are counted. */
  metered(claims: Claims): Claims;
  stats(): RunStats;
}

type Counted<T> = { -readonly [Name in keyof T]: T[Name] extends object ? Counted<T[Name]> : T[Name] };

export function createRunMeter(): RunMeter {
  const runs = new Map<string, Counted<RunKindStats>>();
  const steps = new Map<string, Counted<StepKindStats>>();
  let takeovers = 0;
  let parkings = 0;
  let modelToolCalls = 0;

  function runsOf({ kind }: RunSource): Counted<RunKindStats> {
    const name = toSnakeCase(kind.case ?? "unspecified");
    const known = runs.get(name) ?? {
      kind: name,
      begun: 0,
      ended: { succeeded: 0, failed: 0, cancelled: 0 },
    };
    runs.set(name, known);
    return known;
  }

  function stepsOf(kind: string): Counted<StepKindStats> {
    const known = steps.get(kind) ?? {
      kind,
      attempts: 0,
      retries: 0,
      ended: { succeeded: 0, failed: 0, skipped: 0, cancelled: 0 },
    };
    steps.set(kind, known);
    return known;
  }

  function note(source: RunSource, { kind }: JournalEntry): void {
    switch (kind.case) {
      case "planned":
        runsOf(source).begun++;
        break;
      case "stepStarted": {
        const counts = stepsOf(kind.value.kind);
        counts.attempts++;
        counts.retries += kind.value.attempt > 1 ? 1 : 0;
        break;
      }
      case "stepFinished": {
        const { step } = kind.value;
        const state = step && endOf(step.state);
        if (state !== undefined) {
          stepsOf(step?.kind ?? "").ended[state]++;
        }
        break;
      }
      default:
      // The rest is told of by what it leads to.
    }
  }

  function meteredJournal({ run: { source, usage: before }, journal }: Claim): Journal {
    let toolCalls = before.toolCalls;
    return {
      record(entries) {
        const written = journal.record(entries);
        written.then(
          () => {
            for (const entry of entries) {
              note(source, entry);
            }
          },
          () => {
            // Whoever has recorded it hears of it.
          },
        );
        return written;
      },
      setUsage(total: Usage) {
        modelToolCalls += Math.max(0, total.toolCalls - toolCalls);
        toolCalls = total.toolCalls;
        journal.setUsage(total);
      },
      async finish(end) {
        await journal.finish(end);
        runsOf(source).ended[end.state]++;
      },
      async park(until) {
        const isParked = await journal.park(until);
        parkings += isParked ? 1 : 0;
        return isParked;
      },
      release: () => journal.release(),
      answers: () => journal.answers(),
    };
  }

  return {
    metered: (claims) => ({
      onCancel: (callback) => claims.onCancel(callback),
      onAnswer: (callback) => claims.onAnswer(callback),
      async claim(job, worker) {
        const claim = await claims.claim(job, worker);
        takeovers += claim?.isTakeover ? 1 : 0;
        return claim && { ...claim, journal: meteredJournal(claim) };
      },
    }),
    stats: () => ({
      runs: [...runs.values()],
      steps: [...steps.values()],
      takeovers,
      parkings,
      modelToolCalls,
    }),
  };
}

/** Undefined: that is no end. */
function endOf(state: StepState): keyof StepKindStats["ended"] | undefined {
  switch (state) {
    case StepState.SUCCEEDED:
      return "succeeded";
    case StepState.FAILED:
      return "failed";
    case StepState.SKIPPED:
      return "skipped";
    case StepState.CANCELLED:
      return "cancelled";
    case StepState.PENDING:
    case StepState.RUNNING:
    case StepState.WAITING:
    case StepState.UNSPECIFIED:
      return undefined;
  }
}

function toSnakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
