import { create, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError, type Logger } from "@toolplane/framework";
import { type Status, StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { type Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { idempotencyKey } from "../idempotency-key.ts";
import { createAttemptLimit } from "./attempt-limit.ts";
import type { StepAbout } from "./finished-step.ts";
import type { OutputBudget } from "./output-budget.ts";
import type { Recorder } from "./recorder.ts";
import type { Busy, Resting } from "./resting.ts";
import { retryDelayMs } from "./retry-delay.ts";
import { untilAborted } from "./sleep.ts";
import { statusOf } from "./statuses.ts";
import type { RunFacts, StepContext, StepEnd, StepOutput, WorkStep } from "./step.ts";
import { addUsage } from "./usage.ts";

/** How often the worker of a step may die before the step is held to be the cause. */
const MAX_CRASHES = 5;

/** Where a step is done. */
export interface Place {
  /** The step that it is a part of. Undefined: none. */
  readonly parent: string | undefined;
  /** Aborted when nobody wants the step to be done here any more. */
  readonly signal: AbortSignal;
  /** No attempt begins later, in milliseconds since 1970. */
  readonly deadline: number;
  /** When the attempt that it is a part of must end; undefined: there is none, or it has no limit. */
  readonly attemptDeadline: number | undefined;
  /** Does an attempt when there is room for it. */
  readonly room: <T>(attempt: () => Promise<T>) => Promise<T>;
  /** Waits before an attempt until a time, in milliseconds since 1970; rejects when `signal` is aborted. */
  readonly wait: (until: number) => Promise<void>;
  /** Told what is used up. */
  readonly spend: (usage: MessageInitShape<typeof UsageSchema>) => void;
  /** What stands in when the step has failed for good. */
  readonly fallback?: StepFallback | undefined;
}

export type StepFallback =
  /** May throw. */
  | { readonly kind: "value"; readonly value: (error: Status) => JsonValue }
  /** Is done as a part of the step. */
  | { readonly kind: "work"; readonly work: (error: Status) => WorkStep };

/** The part of a step that its fallback is. */
export const FALLBACK_ID = "fallback";

export interface StepRunner {
  /**
   * Does a step until it has ended, and that is durable, or returns how it had ended before. Never throws for a failure of
   * the step; throws when the place's signal is aborted, or when nothing can be recorded any more.
   */
  run(path: string, step: WorkStep, place: Place): Promise<StepEnd>;
  /** The same for a step without attempts: one that only waits, or that fails before it can begin. */
  pause(about: StepAbout, place: Place, happening: () => Promise<JsonValue>): Promise<StepEnd>;
}

export interface StepRunnerOptions {
  readonly run: RunFacts;
  readonly recorder: Recorder;
  readonly outputs: OutputBudget;
  /** Asked before anything begins, and told when it is recorded. */
  readonly resting: Resting;
  /** Aborted when the run ends here. */
  readonly signal: AbortSignal;
  /** Adds to what the run has used up, and returns that. */
  readonly use: (usage: MessageInitShape<typeof UsageSchema>) => Usage;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Draws from [0, 1). */
  readonly random: () => number;
}

/** What an attempt came to. */
type Attempted =
  | { readonly ok: true; readonly result: StepOutput; readonly outputBytes: number }
  | { readonly ok: false; readonly error: Status };

/** A step that is being done. */
interface Doing {
  readonly about: StepAbout;
  readonly place: Place;
  /** What models have used up in it, here. */
  usage: Usage | undefined;
  /** Parts whose usage is in it. */
  readonly parts: Set<string>;
}

export function createStepRunner(options: StepRunnerOptions): StepRunner {
  const { run: facts, recorder, outputs, resting, signal, use, clock, logger, random } = options;

  const toStatus = (error: unknown, path: string) => statusOf(error, { runId: facts.id, path, logger });

  async function run(path: string, step: WorkStep, place: Place): Promise<StepEnd> {
    const known = recorder.ended(path);
    if (known !== undefined) {
      return known;
    }
    place.signal.throwIfAborted();
    const about: StepAbout = { path, kind: step.kind, target: step.target, parent: place.parent };
    const doing: Doing = { about, place, usage: undefined, parts: new Set() };
    // Its fallback has ended on another worker: the step itself had failed for good.
    const recorded = place.fallback?.kind === "work" && recorder.ended(`${path}/${FALLBACK_ID}`);
    return recorded ? concludeFallback(doing, recorded, undefined) : attempts(doing, step);
  }

  async function pause(
    about: StepAbout,
    place: Place,
    happening: () => Promise<JsonValue>,
  ): Promise<StepEnd> {
    const doing: Doing = { about, place, usage: undefined, parts: new Set() };
    let output: JsonValue;
    let outputBytes: number;
    try {
      output = await happening();
      outputBytes = outputs.take(about.path, output);
    } catch (thrown) {
      place.signal.throwIfAborted();
      return fail(doing, toStatus(thrown, about.path));
    }
    return finish(about, { state: "succeeded", output }, outputBytes);
  }

  async function attempts(doing: Doing, step: WorkStep): Promise<StepEnd> {
    const { about, place } = doing;
    const { crashes, wakeTime, ...history } = recorder.history(about.path);
    if (crashes >= MAX_CRASHES) {
      return fail(doing, toStatus(crashed(about.path, crashes), about.path));
    }
    if (wakeTime !== undefined && wakeTime > clock.now()) {
      await place.wait(wakeTime);
    }
    for (let { failures } = history; ; ) {
      let busy: Busy | undefined;
      let delay: number | undefined;
      try {
        const attempted = await place.room(async () => {
          await resting.admit(place.signal);
          busy = resting.begin();
          return await attempt(doing, step, busy);
        });
        if (attempted.ok) {
          const { result, outputBytes } = attempted;
          const usage = result.usage ?? doing.usage;
          return await finish(about, { ...result, state: "succeeded", usage }, outputBytes);
        }
        failures += 1;
        const leftMs = Math.min(place.deadline, place.attemptDeadline ?? Infinity) - clock.now();
        delay = retryDelayMs(attempted.error, { failures, retry: step.retry, leftMs, random });
        if (delay === undefined) {
          return await fail(doing, attempted.error);
        }
        recorder.retrying(about.path, attempted.error, delay);
      } finally {
        busy?.end();
      }
      await place.wait(clock.now() + delay);
    }
  }

  async function attempt(doing: Doing, step: WorkStep, busy: Busy): Promise<Attempted> {
    const { about, place } = doing;
    place.signal.throwIfAborted();
    const begun = recorder.begin(about, { input: step.input });
    const limit = createAttemptLimit({ path: about.path, timeoutMs: step.timeoutMs, within: place, clock });
    try {
      const context = createContext(doing, begun, limit, busy);
      const result = await untilAborted(execute(step, context), limit.signal);
      return { ok: true, result, outputBytes: outputs.take(about.path, result.output) };
    } catch (thrown) {
      signal.throwIfAborted();
      const error = toStatus(limit.signal.aborted ? limit.signal.reason : thrown, about.path);
      if (place.signal.aborted) {
        // What it is a part of has failed, and may be tried again. This attempt counts as one that failed: its worker lives.
        recorder.retrying(about.path, error, 0);
        throw place.signal.reason;
      }
      return { ok: false, error };
    } finally {
      limit.close();
    }
  }

  function createContext(
    doing: Doing,
    { attempt, startTime }: ReturnType<Recorder["begin"]>,
    limit: ReturnType<typeof createAttemptLimit>,
    busy: Busy,
  ): StepContext {
    const { about, place } = doing;
    const { path } = about;
    const spend: Place["spend"] = (usage) => {
      doing.usage = addUsage(doing.usage ?? create(UsageSchema), usage);
      place.spend(usage);
    };
    const inner: Place = {
      parent: path,
      signal: limit.signal,
      deadline: place.deadline,
      attemptDeadline: limit.deadline,
      room: (work) => work(),
      wait: (until) => limit.wait(until),
      spend,
    };
    return {
      run: facts,
      path,
      attempt,
      startTime,
      idempotencyKey: idempotencyKey(facts.id, path),
      signal: limit.signal,
      timeoutMs: limit.deadline && Math.max(0, limit.deadline - clock.now()),
      tell(kind) {
        if (!limit.signal.aborted) {
          recorder.tell(path, kind);
        }
      },
      use(usage) {
        spend(usage);
        return use(usage);
      },
      nested(part) {
        const partPath = `${path}/${part.id}`;
        const before = doing.parts.has(partPath) ? undefined : recorder.ended(partPath);
        doing.parts.add(partPath);
        if (before !== undefined && "usage" in before && before.usage !== undefined) {
          // Another worker has had it done; the run's total has it already.
          spend(before.usage);
        }
        const resume = busy.part();
        const end = run(partPath, part, inner).finally(resume);
        // Whoever does not wait for it any more is not interested in how it fails.
        end.catch(() => {});
        return end;
      },
      recorded: (id) => recorder.ended(`${path}/${id}`),
    };
  }

  /** The step has failed for good. */
  async function fail(doing: Doing, error: Status): Promise<StepEnd> {
    const { about, place } = doing;
    switch (place.fallback?.kind) {
      case undefined:
        return finish(about, { state: "failed", error, usage: doing.usage });
      case "value":
        return concludeFallback(doing, standIn(doing, error, place.fallback.value), error);
      case "work": {
        const { fallback, ...inner } = place;
        const work = fallback.work(error);
        const end = await run(`${about.path}/${FALLBACK_ID}`, work, { ...inner, parent: about.path });
        return concludeFallback(doing, end, error);
      }
    }
  }

  function standIn({ about }: Doing, error: Status, value: (error: Status) => JsonValue): StepEnd {
    try {
      return { state: "succeeded", output: value(error) };
    } catch (thrown) {
      return { state: "failed", error: toStatus(thrown, about.path) };
    }
  }

  /** @param error why the step itself failed, where that is still known */
  async function concludeFallback(doing: Doing, end: StepEnd, error: Status | undefined): Promise<StepEnd> {
    const { about, place, usage } = doing;
    if (end.state !== "succeeded") {
      const why = end.state === "failed" ? end.error : undefined;
      return finish(about, { state: "failed", error: withFallback(error, why), usage });
    }
    let outputBytes: number;
    try {
      // The output of work is counted already.
      outputBytes =
        place.fallback?.kind === "work"
          ? outputs.measure(about.path, end.output)
          : outputs.take(about.path, end.output);
    } catch (thrown) {
      return finish(about, { state: "failed", error: toStatus(thrown, about.path), usage });
    }
    const { output, childId } = end;
    return finish(about, { state: "succeeded", output, childId, fallback: true, usage }, outputBytes);
  }

  async function finish(about: StepAbout, end: StepEnd, outputBytes?: number): Promise<StepEnd> {
    await recorder.end(about, end, outputBytes);
    return end;
  }

  return { run, pause };
}

/** Also what throws at once is a failure of the attempt. */
async function execute(step: WorkStep, context: StepContext): Promise<StepOutput> {
  return await step.execute(context);
}

function crashed(path: string, crashes: number): DomainError {
  return new DomainError({
    code: Code.Aborted,
    reason: "STEP_CRASHES_WORKER",
    message:
      `${crashes} workers have died while they worked on step "${path}", so it is not tried again. Look into the ` +
      "servers' logs for the reason, then retry the run",
    metadata: { step: path, crashes: String(crashes) },
  });
}

/** The error of a step whose fallback has failed too. Its own error is lost when its worker died during the fallback. */
function withFallback(error: Status | undefined, fallback: Status | undefined): Status {
  const { code, details } = error ?? fallback ?? { code: Code.Aborted, details: [] };
  const why = `its fallback failed too: ${fallback?.message ?? "it was stopped"}`;
  const message = error === undefined ? `the step failed, and ${why}` : `${error.message}; ${why}`;
  return create(StatusSchema, { code, message, details });
}
