import { randomUUID } from "node:crypto";
import { create, type JsonValue } from "@bufbuild/protobuf";
import { anonymous, type Clock, type Principal } from "@toolplane/framework";
import { type Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { silentLogger } from "../../../storage/silent-logger.ts";
import { retryDelayMs } from "../../engine/retry-delay.ts";
import { sleepUntil } from "../../engine/sleep.ts";
import { statusOf } from "../../engine/statuses.ts";
import type { StepContext, StepEnd, StepOutput, ToldKind, WorkStep } from "../../engine/step.ts";
import { addUsage } from "../../engine/usage.ts";

/** Where a worker can die: as a part begins, when its work is done but not recorded, and once it is recorded. */
export interface Moment {
  readonly path: string;
  readonly phase: "begun" | "done" | "recorded";
}

export interface Told {
  readonly path: string;
  readonly kind: ToldKind;
}

type ToldOf<Case extends ToldKind["case"]> = Extract<ToldKind, { case: Case }>;

/** The run of one step, whose journal outlives the workers that have the run. */
export interface MemoryRun {
  readonly ends: ReadonlyMap<string, StepEnd>;
  readonly told: readonly Told[];
  /** The paths of all attempts that were begun, in order. */
  readonly begun: readonly string[];
  /** All moments that workers have come through. */
  readonly moments: readonly Moment[];
  /** Waits between attempts, in milliseconds. */
  readonly delays: readonly number[];
  readonly usage: () => Usage;
  /** What was told under a kind, in order. */
  tellings<Case extends ToldKind["case"]>(wanted: Case): ToldOf<Case>["value"][];
  /** Has a worker do the step; `dies` says where it dies, which rejects with a `DiedError`. */
  work(
    doIt: (context: StepContext) => Promise<StepOutput>,
    dies?: (moment: Moment) => boolean,
  ): Promise<StepOutput>;
  /** Stops the work that goes on. */
  abort(reason: unknown): void;
}

/** The worker has died in this place. */
export class DiedError extends Error {
  override readonly name = "DiedError";
}

export function createMemoryRun({
  clock,
  path: root = "main",
  principal = anonymous,
}: {
  readonly clock: Clock;
  readonly path?: string;
  readonly principal?: Principal;
}): MemoryRun {
  const id = randomUUID();
  const ends = new Map<string, StepEnd>();
  const attempts = new Map<string, number>();
  const starts = new Map<string, number>();
  const told: Told[] = [];
  const begun: string[] = [];
  const moments: Moment[] = [];
  const delays: number[] = [];
  let recorded: Usage = create(UsageSchema);
  let current: AbortController | undefined;

  async function work(
    doIt: (context: StepContext) => Promise<StepOutput>,
    dies: (moment: Moment) => boolean = () => false,
  ): Promise<StepOutput> {
    const worker = new AbortController();
    current = worker;
    let total = recorded;

    function pass(moment: Moment): void {
      worker.signal.throwIfAborted();
      moments.push(moment);
      if (dies(moment)) {
        worker.abort(new DiedError(`${moment.path} ${moment.phase}`));
        throw worker.signal.reason;
      }
    }

    function record(path: string, end: StepEnd): StepEnd {
      pass({ path, phase: "done" });
      // Like a journal, it keeps what JSON keeps.
      ends.set(path, structuredClone(end));
      recorded = total;
      pass({ path, phase: "recorded" });
      return end;
    }

    function begin(path: string): StepContext {
      attempts.set(path, (attempts.get(path) ?? 0) + 1);
      starts.set(path, starts.get(path) ?? clock.now());
      begun.push(path);
      return contextOf(path);
    }

    function contextOf(path: string): StepContext {
      return {
        run: { id, title: "test", principal, depth: 0, deadline: clock.now() + 86_400_000 },
        path,
        attempt: attempts.get(path) ?? 0,
        startTime: starts.get(path) ?? clock.now(),
        idempotencyKey: `key of ${path}`,
        signal: worker.signal,
        timeoutMs: undefined,
        tell: (kind) => void told.push({ path, kind }),
        use(usage) {
          total = addUsage(total, usage);
          return total;
        },
        recorded: (part) => ends.get(`${path}/${part}`),
        nested: (step) => nested(`${path}/${step.id}`, step),
      };
    }

    async function nested(path: string, step: WorkStep): Promise<StepEnd> {
      worker.signal.throwIfAborted();
      const known = ends.get(path);
      if (known !== undefined) {
        return known;
      }
      for (let failures = 1; ; failures++) {
        const context = begin(path);
        pass({ path, phase: "begun" });
        try {
          const output = await step.execute(context);
          return record(path, { state: "succeeded", ...output, output: asJson(output.output) });
        } catch (error) {
          worker.signal.throwIfAborted();
          const status = statusOf(error, { runId: id, path, logger: silentLogger });
          const { retry } = step;
          const left = { failures, retry, leftMs: Number.POSITIVE_INFINITY, random: () => 0.5 };
          const delay = retryDelayMs(status, left);
          if (delay === undefined) {
            return record(path, { state: "failed", error: status });
          }
          delays.push(delay);
          await sleepUntil(clock.now() + delay, clock, worker.signal);
        }
      }
    }

    const output = await doIt(begin(root));
    recorded = total;
    return output;
  }

  return {
    ends,
    told,
    begun,
    moments,
    delays,
    usage: () => recorded,
    tellings: (wanted) => told.flatMap(({ kind }) => (isOf(kind, wanted) ? [heldBy(kind)] : [])),
    work,
    abort: (reason) => current?.abort(reason),
  };
}

function asJson(value: JsonValue): JsonValue {
  const text = JSON.stringify(value);
  return JSON.parse(text);
}

function isOf<Case extends ToldKind["case"]>(kind: ToldKind, wanted: Case): kind is ToldOf<Case> {
  return kind.case === wanted;
}

function heldBy<Kind extends ToldKind>(kind: Kind): Kind["value"] {
  return kind.value;
}
