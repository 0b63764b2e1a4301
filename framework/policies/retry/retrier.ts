import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast, demandWhole } from "../demand.ts";
import { reportEvent } from "../report-event.ts";
import { pause } from "./pause.ts";
import { createRetryBudget, type RetryBudget } from "./retry-budget.ts";
import {
  classified,
  type Failure,
  type GiveUpReason,
  type RetryLimits,
  reasonToGiveUp,
  retryDelayMs,
} from "./retry-decision.ts";

export interface RetrierOptions {
  /** Says what a failure means. It alone knows the errors of the work. Where it throws, nothing is repeated. */
  readonly classify: (error: unknown) => Failure;
  /** How often a call is tried in all. Default: 3. */
  readonly attempts?: number;
  /** The longest wait before the second attempt, in milliseconds; it doubles with each further one. Default: 100. */
  readonly baseDelayMs?: number;
  /** The longest wait before any attempt, in milliseconds. Default: 5,000. */
  readonly maxDelayMs?: number;
  /** When a server asks for a longer wait, the call is given up. In milliseconds. Default: 30,000. */
  readonly maxPushBackMs?: number;
  /** Where permission for repetitions comes from. Default: a budget of the retrier's own, with its defaults. */
  readonly budget?: RetryBudget;
  readonly clock?: Clock;
  /** Draws from [0, 1). Default: `Math.random`. */
  readonly random?: () => number;
  readonly onEvent?: (event: RetryEvent) => void;
}

export type RetryEvent =
  /** Attempt `attempt` failed, the next one starts in `delayMs`. */
  | {
      readonly kind: "retry-scheduled";
      readonly attempt: number;
      readonly delayMs: number;
      readonly error: unknown;
    }
  /** A call succeeded that had failed before. */
  | { readonly kind: "recovered"; readonly attempt: number }
  /** A call failed, after `attempt` attempts. */
  | {
      readonly kind: "gave-up";
      readonly attempt: number;
      readonly reason: GiveUpReason;
      readonly error: unknown;
    };

/** The circumstances of one call. */
export interface RetryCall {
  /** Whether the call may reach the server twice: it has no side effects, is idempotent, or carries a request id. */
  readonly repeatable: boolean;
  /** Ends waits; nothing is tried again afterwards. */
  readonly signal?: AbortSignal | undefined;
  /** When the call must be over, in milliseconds since 1970. */
  readonly deadline?: number | undefined;
  /** Instead of the retrier's own number of attempts. */
  readonly attempts?: number | undefined;
}

export interface Retrier {
  /**
   * Does some work, again where it fails and may be repeated. Rejects with the last attempt's own error, or with the
   * signal's reason when it is aborted during a wait.
   *
   * @param work gets the number of the attempt, from 1 up
   */
  run<T>(work: (attempt: number) => Promise<T>, call: RetryCall): Promise<T>;
  stats(): RetryStats;
}

export interface RetryStats {
  readonly calls: number;
  /** Attempts beyond the first. */
  readonly retries: number;
  /** Calls that succeeded after a failure. */
  readonly recovered: number;
  /** Calls that failed, by why they were not tried again. */
  readonly gaveUp: Readonly<Record<GiveUpReason, number>>;
}

/**
 * Repeats what failed, within bounds that keep a target in trouble from more of it: few attempts, random waits that grow,
 * a budget over all calls, what the server asks for, and never a wait that cannot end before the deadline.
 *
 * @throws RangeError for options that no retrier can work with
 */
export function createRetrier(options: RetrierOptions): Retrier {
  const { classify, clock = systemClock, random = Math.random, onEvent } = options;
  const budget = options.budget ?? createRetryBudget({ clock });
  const limits: RetryLimits = {
    attempts: options.attempts ?? 3,
    baseDelayMs: options.baseDelayMs ?? 100,
    maxDelayMs: options.maxDelayMs ?? 5_000,
    maxPushBackMs: options.maxPushBackMs ?? 30_000,
  };
  const { attempts, ...times } = limits;
  demandWhole("a retrier", 1, { attempts });
  demandAtLeast("a retrier", 0, times);
  const gaveUp: Record<GiveUpReason, number> = {
    permanent: 0,
    forbidden: 0,
    "not-repeatable": 0,
    attempts: 0,
    "push-back": 0,
    deadline: 0,
    budget: 0,
    cancelled: 0,
  };
  let calls = 0;
  let retries = 0;
  let recovered = 0;

  /** How long to wait before the next attempt, or why there is none. Spends the budget last, when all else allows it. */
  function decide(error: unknown, failures: number, call: RetryCall): number | GiveUpReason {
    if (call.signal?.aborted) {
      return "cancelled";
    }
    const failure = classified(classify, error);
    const own = call.attempts === undefined ? limits : { ...limits, attempts: call.attempts };
    const reason = reasonToGiveUp(failure, failures, call.repeatable, own);
    if (reason !== undefined || failure.kind !== "transient") {
      return reason ?? "permanent";
    }
    const delayMs = retryDelayMs(failure, failures, limits, random);
    if (call.deadline !== undefined && clock.now() + delayMs >= call.deadline) {
      return "deadline";
    }
    return budget.trySpend() ? delayMs : "budget";
  }

  return {
    async run(work, call) {
      calls += 1;
      budget.count();
      for (let attempt = 1; ; attempt++) {
        try {
          const result = await work(attempt);
          if (attempt > 1) {
            recovered += 1;
            reportEvent(onEvent, { kind: "recovered", attempt });
          }
          return result;
        } catch (error) {
          const decision = decide(error, attempt, call);
          if (typeof decision === "string") {
            gaveUp[decision] += 1;
            reportEvent(onEvent, { kind: "gave-up", attempt, reason: decision, error });
            throw error;
          }
          reportEvent(onEvent, { kind: "retry-scheduled", attempt, delayMs: decision, error });
          try {
            await pause(decision, clock, call.signal);
          } catch (reason) {
            gaveUp.cancelled += 1;
            reportEvent(onEvent, { kind: "gave-up", attempt, reason: "cancelled", error });
            throw reason;
          }
          retries += 1;
        }
      }
    },
    stats: () => ({ calls, retries, recovered, gaveUp: { ...gaveUp } }),
  };
}
