import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { Status } from "@toolplane/gen/google/rpc/status_pb.js";
import type { Usage, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import pLimit from "p-limit";
import type { Scope, StepScope } from "../expressions/expression.ts";
import type { PlanFanOut, PlanStep, RunPlan } from "../plan.ts";
import { createApprovals } from "./approvals.ts";
import type { EngineOptions } from "./driver.ts";
import { ReleasedError, type RunControl } from "./engine.ts";
import { collectItems, evaluateItems } from "./fan-out.ts";
import type { StepAbout } from "./finished-step.ts";
import { createIdling } from "./idling.ts";
import type { ClaimedRun, Journal, RunEnd } from "./journal.ts";
import { jsonBytes } from "./json-bytes.ts";
import { createOutputBudget } from "./output-budget.ts";
import { createParking } from "./parking.ts";
import { outputOf, outputOfFailed } from "./plan-output.ts";
import { fallbackOf, plannedAbout, plannedEntry, valueWork, workOf } from "./plan-work.ts";
import { createRecorder } from "./recorder.ts";
import { createResting } from "./resting.ts";
import { createSchedule, type Turn } from "./schedule.ts";
import { evaluateCondition, evaluateInputs, runScope, scopeOf, stepScope, targetOf } from "./scope.ts";
import { sleepUntil } from "./sleep.ts";
import { errorOf, statusOf } from "./statuses.ts";
import type { RunFacts, StepEnd } from "./step.ts";
import { createStepRunner, type Place } from "./step-runner.ts";
import { addUsage } from "./usage.ts";

/** Why a run is no longer driven here. */
export type Verdict =
  /** All its steps have ended. */
  | { readonly kind: "over" }
  | { readonly kind: "cancelled"; readonly by: string; readonly message: string }
  /** Its time is over. */
  | { readonly kind: "timeout"; readonly error: DomainError }
  /** It only waits. */
  | { readonly kind: "parked" }
  /** It is another worker's to go on with. */
  | { readonly kind: "released" }
  | { readonly kind: "left" }
  /** It can no longer be recorded. */
  | { readonly kind: "broken"; readonly error: unknown };

/** One run that is being driven, until there is a verdict. */
export interface Drive {
  begin(): void;
  /** Stops everything at once, unless there is a verdict already. */
  stop(verdict: Verdict, reason: unknown): void;
  /** Begins nothing more, and stops when all that has begun is recorded, or its time of grace is over. */
  rest(reason: ReleasedError): void;
  /** Looks for answers to approvals. */
  look(): void;
  readonly verdict: Promise<Verdict>;
  /** How the run ends when all its steps have. */
  end(): RunEnd;
  partialOutput(): ReturnType<typeof outputOfFailed>;
}

export function createDrive(
  run: ClaimedRun,
  plan: RunPlan,
  journal: Journal,
  options: EngineOptions & Pick<RunControl, "onIdle">,
): Drive {
  const { works, clock, logger, random, maxRunBytes } = options;
  const schedule = createSchedule(plan.steps);
  const base = runScope(run);
  /** Steps of the plan that have ended, as expressions see them. */
  const ended = new Map<string, StepScope>();
  const failures = new Map<string, Status>();
  const room = pLimit(plan.maxConcurrency);
  const idling = createIdling(options.onIdle);
  const stopped = new AbortController();
  const { signal } = stopped;
  const { promise: verdict, resolve } = Promise.withResolvers<Verdict>();
  let usage: Usage = run.usage;

  function stop(why: Verdict, reason: unknown): void {
    if (!signal.aborted) {
      recorder.close();
      stopped.abort(reason);
      resolve(why);
    }
  }

  const fail = (error: unknown) => stop({ kind: "broken", error }, error);
  const recorder = createRecorder({ run, journal, clock, onFailure: fail });
  const parking = createParking({
    journal,
    flushed: recorder.flushed,
    onAnswer: () => approvals.look(),
    onParked: () => stop({ kind: "parked" }, new ReleasedError("the run only waits")),
    onFailure: fail,
    signal,
    clock,
  });
  const approvals = createApprovals({
    journal,
    recorder,
    parking,
    before: (path) => run.steps.get(path),
    clock,
  });
  const resting = createResting();
  const outputs = createOutputBudget({ ...options, kept: keptBytes(run, plan) });
  const runner = createStepRunner({
    run: factsOf(run),
    recorder,
    resting,
    outputs,
    signal,
    use,
    clock,
    logger,
    random,
  });

  function rest(reason: ReleasedError): void {
    const release = () => stop({ kind: "released" }, reason);
    resting.rest(release);
    const cancelTimer = clock.after(reason.graceMs, release);
    signal.addEventListener("abort", cancelTimer, { once: true });
  }

  function use(more: MessageInitShape<typeof UsageSchema>): Usage {
    usage = addUsage(usage, more);
    journal.setUsage(usage);
    return usage;
  }

  function pump(): void {
    if (signal.aborted) {
      return;
    }
    for (let turns = schedule.next(); turns.length > 0; turns = schedule.next()) {
      turns.forEach(take);
    }
    if (schedule.isOver) {
      stop({ kind: "over" }, new ReleasedError("all steps have ended"));
    }
  }

  function take(turn: Turn): void {
    const { step } = turn;
    const known = run.steps.get(step.id)?.end;
    if (known !== undefined) {
      settle(step, known);
      return;
    }
    switch (turn.kind) {
      case "skip": {
        const end: StepEnd = { state: "skipped", cause: turn.cause };
        // Another worker would decide the same, so nobody has to wait until it is durable.
        recorder.end(plannedAbout(step), end).catch(() => {});
        settle(step, end);
        break;
      }
      case "begin":
        parking.enter();
        guarded(plannedAbout(step), () => runStep(step)).then(
          (end) => {
            settle(step, end);
            pump();
            parking.leave();
          },
          // Whatever it was, there is a verdict.
          () => {},
        );
        break;
    }
  }

  function settle(step: PlanStep, end: StepEnd): void {
    ended.set(step.id, stepScope(end));
    if (end.state === "failed") {
      failures.set(step.id, end.error);
    }
    schedule.end(step.id, end);
  }

  /** A mistake of ours fails the step, not the worker. */
  async function guarded(about: StepAbout, work: () => Promise<StepEnd>): Promise<StepEnd> {
    try {
      return await work();
    } catch (thrown) {
      signal.throwIfAborted();
      const end: StepEnd = {
        state: "failed",
        error: statusOf(thrown, { runId: run.id, path: about.path, logger }),
      };
      await recorder.end(about, end);
      return end;
    }
  }

  async function runStep(step: PlanStep): Promise<StepEnd> {
    const scope = scopeOf(step, base, ended);
    if (step.condition === undefined || isPerItem(step)) {
      return step.fanOut ? runFanOut(step, step.fanOut, scope) : runUnit(step, step.id, scope);
    }
    const about = plannedAbout(step);
    let holds: boolean;
    try {
      holds = evaluateCondition(step.condition, scope);
    } catch (error) {
      return refuse(about, placeOf(step, scope), error);
    }
    if (!holds) {
      return skip(about);
    }
    return step.fanOut ? runFanOut(step, step.fanOut, scope) : runUnit(step, step.id, scope);
  }

  /** A step, or one item of a fan-out. */
  async function runUnit(step: PlanStep, path: string, scope: Scope): Promise<StepEnd> {
    const { action } = step;
    const place = placeOf(step, scope);
    const about = { path, kind: action.kind, target: targetOf(action, {}), parent: undefined };
    let inputs: ReturnType<typeof evaluateInputs>;
    try {
      inputs = evaluateInputs(action, scope);
    } catch (error) {
      return refuse(about, place, error);
    }
    switch (action.kind) {
      case "approval": {
        const { timeoutMs } = step;
        const { approveOnTimeout } = action;
        const message = String(inputs["message"]);
        return runner.pause(about, place, () =>
          approvals.ask({ about, message, timeoutMs, approveOnTimeout }, signal),
        );
      }
      case "wait":
        return runner.pause(about, place, () => wait(about, action.ms));
      case "value":
        return runner.run(path, valueWork(path, inputs["value"] ?? null, step.retry), place);
      default:
        return runner.run(path, workOf(path, { ...step, action }, inputs, works), place);
    }
  }

  /** From when it first began, on whichever worker. */
  async function wait(about: StepAbout, ms: number): Promise<null> {
    const before = run.steps.get(about.path);
    let until = clock.now() + ms;
    if (before !== undefined && before.attempts > 0) {
      until = before.wakeTime ?? (before.startTime ?? clock.now()) + ms;
      recorder.resume(about);
    } else {
      recorder.begin(about, { wakeTime: until });
    }
    await parking.wait(until, sleepUntil(until, clock, signal));
    return null;
  }

  async function runFanOut(step: PlanStep, fanOut: PlanFanOut, scope: Scope): Promise<StepEnd> {
    const about = plannedAbout(step);
    let items: ReturnType<typeof evaluateItems>;
    try {
      items = evaluateItems(fanOut, scope);
    } catch (error) {
      return refuse(about, { ...placeOf(step, scope), fallback: undefined }, error);
    }
    if ((run.steps.get(step.id)?.attempts ?? 0) > 0) {
      // It is its items that are tried again, not the list.
      recorder.resume(about);
    } else {
      recorder.begin(about, { items: items.length });
    }
    const results = collectItems(items.length, fanOut);
    let next = 0;
    const cap = Math.min(fanOut.maxConcurrency ?? plan.maxConcurrency, plan.maxConcurrency);
    await inLanes(Math.min(cap, items.length), async () => {
      while (next < items.length) {
        const index = next;
        next += 1;
        const path = `${step.id}[${index}]`;
        const known = run.steps.get(path)?.end;
        const itemAbout = { ...about, path, kind: step.action.kind };
        results.note(
          index,
          path,
          known ??
            (await guarded(itemAbout, () =>
              runItem(step, itemAbout, { ...scope, item: items[index] ?? null, index }),
            )),
        );
      }
    });
    return finishFanOut(about, results.end());
  }

  /** Does the work in so many lanes; the lane of the caller is one of them, and is the caller's again afterwards. */
  async function inLanes(count: number, work: () => Promise<void>): Promise<void> {
    let left = count;
    parking.enter(Math.max(0, count - 1));
    await Promise.all(
      Array.from({ length: count }, async () => {
        await work();
        left -= 1;
        if (left > 0) {
          parking.leave();
        }
      }),
    );
  }

  async function runItem(step: PlanStep, about: StepAbout, scope: Scope): Promise<StepEnd> {
    if (step.condition !== undefined && isPerItem(step)) {
      let holds: boolean;
      try {
        holds = evaluateCondition(step.condition, scope);
      } catch (error) {
        return refuse(about, placeOf(step, scope), error);
      }
      if (!holds) {
        return skip(about);
      }
    }
    return runUnit(step, about.path, scope);
  }

  async function finishFanOut(about: StepAbout, result: StepEnd): Promise<StepEnd> {
    let end = result;
    let outputBytes = 0;
    if (end.state === "succeeded") {
      try {
        outputBytes = outputs.measure(about.path, end.output);
      } catch (error) {
        end = { state: "failed", error: statusOf(error, { runId: run.id, path: about.path, logger }) };
      }
    }
    await recorder.end(about, end, outputBytes);
    return end;
  }

  async function skip(about: StepAbout): Promise<StepEnd> {
    const end: StepEnd = { state: "skipped", cause: "condition" };
    await recorder.end(about, end);
    return end;
  }

  /** A step that cannot begin. */
  function refuse(about: StepAbout, place: Place, error: unknown): Promise<StepEnd> {
    return runner.pause(about, place, () => Promise.reject(error));
  }

  function placeOf(step: PlanStep, scope: Scope): Place {
    return {
      parent: undefined,
      signal,
      deadline: run.deadline,
      attemptDeadline: undefined,
      // Computing takes no time that others could use.
      room:
        step.action.kind === "value"
          ? (work) => work()
          : (work) => room(() => idling.during(step.action.kind, work)),
      wait: (until) => parking.wait(until, sleepUntil(until, clock, signal)),
      spend: () => {},
      fallback: fallbackOf(step, scope, works),
    };
  }

  function look(): void {
    approvals.look().catch(fail);
  }

  return {
    verdict,
    stop,
    rest,
    look,
    begin() {
      sleepUntil(run.deadline, clock, signal).then(
        () => {
          const error = runTimedOut();
          stop({ kind: "timeout", error }, error);
        },
        () => {},
      );
      if (run.isNew) {
        recorder.note(plannedEntry(plan));
      }
      pump();
      look();
    },
    end() {
      const failed = schedule.failure;
      if (failed !== undefined) {
        const status = failures.get(failed);
        const error = status ? errorOf(status, naming(failed, status.message)) : wasCancelled(failed);
        return { state: "failed", error, output: outputOfFailed(plan, ended) };
      }
      try {
        const output = outputOf(plan, base, ended);
        checkSize(jsonBytes(output), maxRunBytes);
        return { state: "succeeded", output };
      } catch (error) {
        return { state: "failed", error };
      }
    },
    partialOutput: () => outputOfFailed(plan, ended),
  };
}

function factsOf({ id, title, principal, depth, deadline }: ClaimedRun): RunFacts {
  return { id, title, principal, depth, deadline };
}

/** Whether it is up to each item of a fan-out whether it runs. */
function isPerItem({ fanOut, condition }: PlanStep): boolean {
  const named = condition?.references.variables;
  return fanOut !== undefined && named !== undefined && (named.has("item") || named.has("index"));
}

/** The list that a fan-out comes to holds the outputs of its items, which are counted already. */
function keptBytes({ steps }: ClaimedRun, plan: RunPlan): number {
  const fanOuts = new Set(plan.steps.filter(({ fanOut }) => fanOut !== undefined).map(({ id }) => id));
  let bytes = 0;
  for (const { path, end } of steps.values()) {
    if (end?.state === "succeeded" && !fanOuts.has(path)) {
      bytes += jsonBytes(end.output);
    }
  }
  return bytes;
}

function checkSize(bytes: number, limit: number): void {
  if (bytes > limit) {
    throw new DomainError({
      code: Code.ResourceExhausted,
      reason: "RUN_OUTPUT_TOO_LARGE",
      message:
        `the output of the run has ${bytes} bytes as JSON, and ${limit} is the limit. Let it give back less, or raise ` +
        "orchestration.max_run_bytes in the server's configuration",
      metadata: { bytes: String(bytes), limit: String(limit) },
    });
  }
}

/** The message of a step's error, for those who only see the run's. */
function naming(step: string, message: string): string {
  const name = `step "${step}"`;
  return message.includes(name) ? message : `${name}: ${message}`;
}

function wasCancelled(step: string): DomainError {
  return new DomainError({
    code: Code.Canceled,
    reason: "STEP_CANCELLED",
    message: `step "${step}" was cancelled`,
  });
}

function runTimedOut(): DomainError {
  return new DomainError({
    code: Code.DeadlineExceeded,
    reason: "RUN_TIMEOUT",
    message: "the run took longer than its timeout. Give it more time, or let it do less",
  });
}
