import type { Clock } from "@toolplane/framework";
import type { BreakerRefusal, BreakerSet, Outcome } from "@toolplane/framework/policies";
import type { Output } from "../backends/invocation.ts";
import { isUnreached } from "../backends/unreached.ts";
import type { Registry } from "../registry/registry.ts";
import { Attempt, type AttemptedCall, AttemptFailure } from "./attempt.ts";
import { createBlame } from "./blame.ts";
import { type BreakerNames, breakerNames, circuitOpen } from "./breakers.ts";
import type { InstanceChooser } from "./choose-instance.ts";
import { abandoned, type Judgement } from "./judge.ts";
import { createLatencies } from "./latencies.ts";
import type { Outliers } from "./outliers.ts";
import type { Plan } from "./plan.ts";
import type { Repetition } from "./repetition.ts";

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
  /** Aborted when nobody waits for the result any more or time is up; its reason is a ConnectError. */
  readonly signal: AbortSignal;
  /** Told of each attempt before it is sent. */
  readonly onSent?: ((instanceId: string) => void) | undefined;
}

/** A call that is being answered. */
export interface Answering {
  readonly instanceId: string;
  /** How often it was sent. */
  readonly attempts: number;
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
   * `CIRCUIT_OPEN` when nothing may be sent.
   */
  open(call: Dispatch): Promise<Answering>;
}

/** The end of a whole call, as the breakers of service and tool see it. */
interface CallFailure {
  readonly instanceId: string;
  readonly judgement: Judgement;
}

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { registry, chooser, repetition, breakers, outliers, clock } = options;
  const blame = createBlame();
  const latencies = createLatencies();

  /** Begins an attempt on an instance that was not tried yet, if there is one. */
  function start(call: Dispatch, names: BreakerNames, tried: Set<string>, signal: AbortSignal): Attempt {
    const { instances } = call.tool;
    const fresh = instances.filter(({ id }) => !tried.has(id));
    const candidates = fresh.length > 0 ? fresh : instances;
    let left = outliers?.eligible(names.service, candidates) ?? candidates;
    let refusal: BreakerRefusal | undefined;
    for (;;) {
      const [first, ...others] = left;
      if (!first) {
        throw refusal ? circuitOpen(refusal) : new Error("a call was dispatched without an instance");
      }
      const { instance, release } = chooser.choose([first, ...others]);
      const permit = breakers?.get(names.instance(instance.id)).tryAcquire();
      if (permit && !permit.allowed) {
        release();
        refusal = soonest(refusal, permit);
        left = left.filter(({ id }) => id !== instance.id);
        continue;
      }
      tried.add(instance.id);
      call.onSent?.(instance.id);
      const observed = outliers?.begin(names.service, instance.id);
      let stopWatching = () => {};
      try {
        const attempt = new Attempt({
          call,
          instance,
          signal,
          clock,
          permit,
          observed,
          suffices: (elapsedMs) => latencies.suffices(names.method, elapsedMs),
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
        if (outliers && isRepeatable(call)) {
          stopWatching = outliers.onEjected(names.service, instance.id, () => attempt.takeAway());
        }
        return attempt;
      } catch (error) {
        // A secret of the service is missing: nothing was sent.
        release();
        permit?.record("ignored");
        observed?.end("ignored");
        throw error;
      }
    }
  }

  /** Says to the breakers of service and tool how a call ended. */
  function settle(
    names: BreakerNames,
    permits: ReturnType<BreakerSet["acquire"]> | undefined,
    instances: Dispatch["tool"]["instances"],
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
      const names = breakerNames(tool);
      const permits = breakers?.acquire([names.service, names.method]);
      if (permits && !permits.allowed) {
        throw circuitOpen(permits);
      }
      const tried = new Set<string>();
      let attempts = 0;
      let failure: CallFailure | undefined;
      let settled = false;
      function settleOnce(outcome: CallFailure | undefined): void {
        if (!settled) {
          settled = true;
          settle(names, permits, tool.instances, outcome);
        }
      }

      async function attempt(attemptSignal: AbortSignal): Promise<Attempt> {
        const running = start(call, names, tried, attemptSignal);
        attempts++;
        try {
          await running.begin();
        } catch (error) {
          if (error instanceof AttemptFailure) {
            failure = error;
          }
          throw error;
        }
        if (attemptSignal.aborted) {
          running.close();
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
        throw unwrap(error);
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
        get attempts() {
          return attempts;
        },
        results,
        close() {
          running.close();
          settleOnce({ instanceId: running.instanceId, judgement: abandoned });
        },
      };
    },
  };
}

/** Whether the call may reach a backend twice. */
function isRepeatable({ plan, requestId }: Dispatch): boolean {
  return plan.repeatable || requestId !== "";
}

function unwrap(error: unknown): unknown {
  return error instanceof AttemptFailure ? error.error : error;
}

/** Of two refusals, the one that ends first. */
function soonest(one: BreakerRefusal | undefined, other: BreakerRefusal): BreakerRefusal {
  const time = ({ retryAfterMs = Number.POSITIVE_INFINITY }: BreakerRefusal) => retryAfterMs;
  return one === undefined || time(other) < time(one) ? other : one;
}
