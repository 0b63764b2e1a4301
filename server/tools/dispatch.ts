import { Code, ConnectError } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import type {
  BreakerPermit,
  BreakerRefusal,
  BreakerSet,
  InstanceCall,
  Outcome,
} from "@toolplane/framework/policies";
import type { Output } from "../backends/invocation.ts";
import { isUnreached } from "../backends/unreached.ts";
import type { Registry, ResolvedInstance, ResolvedTool } from "../registry/registry.ts";
import { Attempt, type AttemptedCall, AttemptFailure } from "./attempt.ts";
import { createBlame } from "./blame.ts";
import { type BreakerNames, circuitOpen, rememberBreakerNames } from "./breakers.ts";
import type { InstanceChooser } from "./choose-instance.ts";
import { abandoned } from "./judge.ts";
import { createLatencies } from "./latencies.ts";
import type { Outliers } from "./outliers.ts";
import type { Plan } from "./plan.ts";
import { NothingLeftError, type Repetition } from "./repetition.ts";
import { answersWithStream } from "./streaming.ts";

export interface DispatcherOptions {
  readonly registry: Pick<Registry, "reportUnreachable">;
  readonly chooser: InstanceChooser;
  readonly repetition: Repetition;
  /** Undefined: there are none. */
  readonly breakers: BreakerSet | undefined;
  readonly outliers: Outliers | undefined;
  readonly clock: Clock;
}

/** One call, ready to be sent. */
export interface Dispatch extends AttemptedCall {
  readonly plan: Plan;
  /** By which the backend can tell a repetition; empty: it cannot. */
  readonly requestId: string;
  /** The field path of the call in its request. */
  readonly path: string;
  /** Aborted when nobody waits for the result any more or time is up; its reason is a ConnectError. */
  readonly signal: AbortSignal;
  /** Told of each attempt before it is sent, and whether that is beside another one. */
  readonly onSent?: ((instanceId: string, beside: boolean) => void) | undefined;
}

/** A call that is being answered. */
export interface Answering {
  readonly instanceId: string;
  /** The results as they come, to be read once. Failures are as `open` throws them. */
  results(): AsyncIterable<Output>;
  /** Gives up what was not read. To be called in any case. */
  close(): void;
}

export interface Dispatcher {
  /**
   * Sends a call to the instance that suits best, and to others where that fails and the call may be repeated. Resolves
   * when the first result is there, or the end.
   *
   * Throws the last failure as the backend has it, with an ErrorInfo that says where it came from, or UNAVAILABLE
   * when nothing was sent: `NO_INSTANCE` or `CIRCUIT_OPEN`.
   */
  open(call: Dispatch): Promise<Answering>;
}

/** The end of a whole call, as the breakers of service and tool see it. */
type CallFailure = Pick<AttemptFailure, "instanceId" | "judgement">;

/** What is known of the attempts of one call. */
interface Attempts {
  /** Instances that were tried, in order. */
  readonly tried: string[];
  /** Instances that an attempt runs on now. */
  readonly busy: Set<string>;
}

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { registry, chooser, repetition, breakers, outliers, clock } = options;
  const namesOf = rememberBreakerNames();
  const blame = createBlame();
  const latencies = createLatencies();

  /**
   * Begins an attempt on an instance that was not tried yet, else on one that is not busy with this call. When breakers
   * keep the call away from all of these, an ejected one is better than none: it may only be slow. Throws when there is
   * none that may be called.
   */
  function start(
    call: Dispatch,
    names: BreakerNames,
    { tried, busy }: Attempts,
    signal: AbortSignal,
  ): Attempt {
    const { instances } = call.tool;
    const eligible = outliers?.eligible(names.method, instances) ?? instances;
    let refusal: BreakerRefusal | undefined;
    const candidates: (readonly ResolvedInstance[])[] =
      tried.length === 0
        ? [eligible]
        : [
            eligible.filter(({ id }) => !tried.includes(id)),
            eligible.filter(({ id }) => tried.includes(id) && !busy.has(id)),
          ];
    if (eligible.length < instances.length && busy.size === 0) {
      candidates.push(instances.filter((each) => !eligible.includes(each)));
    }
    for (let left of candidates) {
      while (isFilled(left)) {
        const { instance, release } = chooser.choose(left);
        const permit = breakers?.get(names.instance(instance.id)).tryAcquire();
        if (!permit || permit.allowed) {
          tried.push(instance.id);
          const last = tried.length >= call.plan.attempts;
          return begin(call, names, instance, { signal, permit, release, beside: busy.size > 0, last });
        }
        release();
        refusal = soonest(refusal, permit);
        left = left.filter(({ id }) => id !== instance.id);
      }
    }
    throw refusal && tried.length === 0 ? circuitOpen(refusal) : new NothingLeftError();
  }

  function begin(
    call: Dispatch,
    names: BreakerNames,
    instance: ResolvedInstance,
    { signal, permit, release, beside, last }: Begin,
  ): Attempt {
    const streams = answersWithStream(call.invoker.streaming);
    const observed = streams
      ? observeEnd(names.method, instance.id)
      : outliers?.begin(names.method, instance.id);
    let stopWatching = () => {};
    try {
      const attempt = new Attempt({
        call,
        instance,
        signal,
        clock,
        permit,
        observed,
        patience: (elapsedMs) => latencies.patience(names.method, elapsedMs),
        onEnd(failed, durationMs, error) {
          stopWatching();
          release();
          if (failed === undefined) {
            latencies.record(names.method, durationMs);
          } else if (isUnreached(error)) {
            registry.reportUnreachable(instance.id);
          }
        },
      });
      if (outliers && !streams && !last && isRepeatable(call)) {
        stopWatching = outliers.onSlow(names.method, instance.id, () => attempt.takeAway());
      }
      call.onSent?.(instance.id, beside);
      return attempt;
    } catch (error) {
      // A secret of the service is missing: nothing was sent.
      release();
      permit?.record("ignored");
      observed?.end("ignored");
      throw error;
    }
  }

  /** A stream that brings nothing for long is no sign of an instance that hangs: only what it brings counts. */
  function observeEnd(tool: string, instanceId: string): InstanceCall | undefined {
    let over = false;
    return (
      outliers && {
        end(outcome, durationMs) {
          if (!over) {
            over = true;
            outliers.begin(tool, instanceId).end(outcome, durationMs);
          }
        },
      }
    );
  }

  /** Says to the breakers of service and tool how a call ended. */
  function settle(
    names: BreakerNames,
    permits: ReturnType<BreakerSet["acquire"]> | undefined,
    instances: ResolvedTool["instances"],
    failure: CallFailure | undefined,
  ): void {
    if (failure === undefined) {
      blame.succeeded(names.service);
      blame.succeeded(names.method);
    }
    if (!permits?.allowed) {
      return;
    }
    const [service, method] = permits.permits;
    const verdict = (key: string, outcome: Outcome = "success"): Outcome =>
      outcome === "failure" && failure && !blame.failed(key, failure.instanceId, instances)
        ? "ignored"
        : outcome;
    service?.record(verdict(names.service, failure?.judgement.service), failure?.judgement.text);
    method?.record(verdict(names.method, failure?.judgement.tool), failure?.judgement.text);
  }

  return {
    async open(call) {
      const { tool, plan, signal, deadline } = call;
      signal.throwIfAborted();
      if (clock.now() >= deadline) {
        throw new ConnectError("time was up before the call could be sent", Code.DeadlineExceeded);
      }
      if (tool.instances.length === 0) {
        throw noInstance(tool);
      }
      const names = namesOf(tool);
      const permits = breakers?.acquire(names.both);
      if (permits && !permits.allowed) {
        throw circuitOpen(permits);
      }
      const attempts: Attempts = { tried: [], busy: new Set() };
      let failure: AttemptFailure | undefined;
      let settled = false;
      function settleOnce(outcome: CallFailure | undefined): void {
        if (!settled) {
          settled = true;
          settle(names, permits, tool.instances, outcome);
        }
      }

      async function attempt(attemptSignal: AbortSignal, lost?: AbortSignal): Promise<Attempt> {
        const running = start(call, names, attempts, attemptSignal);
        attempts.busy.add(running.instanceId);
        try {
          await running.begin();
        } catch (error) {
          attempts.busy.delete(running.instanceId);
          if (error instanceof AttemptFailure) {
            failure = error;
          }
          throw error;
        }
        // Two streams may begin at the same moment: nobody reads the one that loses.
        if (!running.over && lost) {
          const close = () => running.close();
          lost.addEventListener("abort", close, { once: true });
          if (lost.aborted) {
            close();
          }
        }
        return running;
      }

      let running: Attempt;
      try {
        running = await repetition.run(names.service, attempt, {
          repeatable: isRepeatable(call),
          signal,
          deadline,
          attempts: plan.attempts,
          hedgeDelayMs: plan.hedgeDelayMs,
        });
      } catch (error) {
        settleOnce(failure ?? { instanceId: "", judgement: abandoned });
        throw unwrap(error instanceof NothingLeftError ? (failure ?? error) : error);
      }
      if (running.over) {
        settleOnce(undefined);
      }
      async function* results(): AsyncGenerator<Output, void, undefined> {
        try {
          yield* running.results();
          settleOnce(undefined);
        } catch (error) {
          if (error instanceof AttemptFailure) {
            settleOnce(error);
          }
          throw unwrap(error);
        }
      }
      return {
        instanceId: running.instanceId,
        results,
        close() {
          running.close();
          settleOnce(undefined);
        },
      };
    },
  };
}

/** What an attempt begins with besides its call. */
interface Begin {
  readonly signal: AbortSignal;
  readonly permit: BreakerPermit | undefined;
  readonly release: () => void;
  /** Another attempt of the call is running. */
  readonly beside: boolean;
  /** The call is not tried again. */
  readonly last: boolean;
}

/** Whether the call may reach a backend twice. */
export function isRepeatable({ plan, requestId }: Pick<Dispatch, "plan" | "requestId">): boolean {
  return plan.repeatable || requestId !== "";
}

function unwrap(error: unknown): unknown {
  return error instanceof AttemptFailure ? error.error : error;
}

function isFilled<T>(items: readonly T[]): items is readonly [T, ...T[]] {
  return items.length > 0;
}

/** Of two refusals, the one that ends first. */
function soonest(one: BreakerRefusal | undefined, other: BreakerRefusal): BreakerRefusal {
  const time = ({ retryAfterMs = Number.POSITIVE_INFINITY }: BreakerRefusal) => retryAfterMs;
  return one === undefined || time(other) < time(one) ? other : one;
}

function noInstance(tool: ResolvedTool): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "NO_INSTANCE",
    message: `Service "${tool.service}" ${tool.version} has no instance in environment "${tool.environment}" now`,
    resource: { type: "service", name: tool.service },
    retryAfterMs: 1_000,
  });
}
