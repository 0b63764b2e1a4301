import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast, demandWhole } from "../demand.ts";
import { reportEvent } from "../report-event.ts";
import { createRetryBudget, type RetryBudget } from "../retry/retry-budget.ts";
import { classified, type Failure } from "../retry/retry-decision.ts";
import { createMovingPercentile } from "./moving-percentile.ts";

export interface HedgerOptions {
  /** Says what a failure means. It alone knows the errors of the work. Where it throws, the failure is permanent. */
  readonly classify: (error: unknown) => Failure;
  /**
   * How long an attempt may take before another one starts beside it, in milliseconds. Default: what 95 % of the latest
   * 200 calls stay below; there is no second attempt before 20 calls have been measured.
   */
  readonly delayMs?: number;
  /** How many attempts may start beside the first: 0, 1, or 2, as which more counts. Default: 1. */
  readonly maxExtra?: number;
  /**
   * Where permission for further attempts comes from, to be shared with a retrier of the same target, which counts the
   * calls. Default: a budget of the hedger's own.
   */
  readonly budget?: RetryBudget;
  readonly clock?: Clock;
  readonly onEvent?: (event: HedgeEvent) => void;
}

export type HedgeEvent =
  /** Attempt `attempt` starts, so many milliseconds after the call's first. */
  | { readonly kind: "hedged"; readonly attempt: number; readonly afterMs: number }
  /** There was no permission for another attempt. */
  | { readonly kind: "denied" }
  /** Of several attempts, this one was first to succeed; so many others were cancelled. */
  | { readonly kind: "won"; readonly attempt: number; readonly cancelled: number };

/** The circumstances of one call. */
export interface HedgeCall {
  /** Whether the call may reach the server twice. If not, there is one attempt. */
  readonly repeatable: boolean;
  /** Cancels all attempts. */
  readonly signal?: AbortSignal | undefined;
  /** When the call must be over, in milliseconds since 1970: no attempt starts afterwards. */
  readonly deadline?: number | undefined;
}

export interface Hedger {
  /**
   * Does some work, a second time beside the first when that takes long, and answers with what succeeds first. All other
   * attempts are cancelled: their signals abort with a `HedgeLostError`; what they still bring is dropped.
   *
   * An attempt that fails permanently ends the call; after a transient failure the next attempt starts at once, unless the
   * server asks to wait. Rejects with the last failure when no attempt is left, or with the signal's reason.
   *
   * @param work gets the number of the attempt, from 1 up, and the signal that cancels it
   */
  run<T>(work: (attempt: number, signal: AbortSignal) => Promise<T>, call: HedgeCall): Promise<T>;
  stats(): HedgeStats;
}

export interface HedgeStats {
  readonly calls: number;
  /** Attempts beyond the first. */
  readonly hedges: number;
  /** Calls in which another attempt than the first succeeded. */
  readonly wins: number;
  /** Attempts for which there was no permission. */
  readonly denied: number;
  /** How long an attempt may take now before another one starts; undefined: not known yet. */
  readonly delayMs: number | undefined;
}

/** Why an attempt was cancelled whose result is not needed any more. */
export class HedgeLostError extends Error {
  override readonly name = "HedgeLostError";

  constructor() {
    super("another attempt was faster");
  }
}

/** More would be load that the tail is not worth. */
const MAX_EXTRA = 2;

/**
 * Hedged requests as in Dean and Barroso, "The Tail at Scale" (CACM 56/2, 2013): a request that is slower than 95 % of its
 * kind is sent again, which takes the tail off the latency for about 5 % more load. Failures are answered as in
 * gRPC's hedging policy (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
 *
 * @throws RangeError for options that no hedger can work with
 */
export function createHedger(options: HedgerOptions): Hedger {
  const { classify, delayMs, clock = systemClock, onEvent } = options;
  demandWhole("a hedger", 0, { maxExtra: options.maxExtra ?? 1 });
  demandAtLeast("a hedger", 0, { delayMs: delayMs ?? 0 });
  const maxExtra = Math.min(options.maxExtra ?? 1, MAX_EXTRA);
  const budget = options.budget ?? createRetryBudget({ clock });
  const countsCalls = options.budget === undefined;
  const usual = createMovingPercentile({ percentile: 0.95 });
  let calls = 0;
  let hedges = 0;
  let wins = 0;
  let denied = 0;

  function race<T>(work: (attempt: number, signal: AbortSignal) => Promise<T>, call: HedgeCall): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const began = clock.monotonic();
    const running = new Map<number, AbortController>();
    let started = 0;
    let mayStart = call.repeatable;
    let stopWaiting: (() => void) | undefined;

    function start(): void {
      started += 1;
      const attempt = started;
      const controller = new AbortController();
      running.set(attempt, controller);
      scheduleNext(delayMs ?? usual.value);
      invoke(work, attempt, controller.signal).then(
        (result) => running.has(attempt) && win(attempt, result),
        (error: unknown) => running.delete(attempt) && fail(error),
      );
    }

    function scheduleNext(afterMs: number | undefined): void {
      stopWaiting?.();
      stopWaiting =
        mayStart && started <= maxExtra && afterMs !== undefined
          ? clock.after(afterMs, startAnother)
          : undefined;
    }

    /** Returns false when there is no further attempt. */
    function startAnother(): boolean {
      stopWaiting?.();
      stopWaiting = undefined;
      if (!mayStart || started > maxExtra || clock.now() >= (call.deadline ?? Number.POSITIVE_INFINITY)) {
        return false;
      }
      if (!budget.trySpend()) {
        mayStart = false;
        denied += 1;
        reportEvent(onEvent, { kind: "denied" });
        return false;
      }
      hedges += 1;
      const afterMs = clock.monotonic() - began;
      start();
      // Only now, so that a listener who ends the call ends this attempt too.
      reportEvent(onEvent, { kind: "hedged", attempt: started, afterMs });
      return true;
    }

    function win(attempt: number, result: T): void {
      // What the first attempt takes is also known, as a lower bound, when it is overtaken; when it failed, it is not.
      if (delayMs === undefined && running.has(1)) {
        usual.add(clock.monotonic() - began);
      }
      running.delete(attempt);
      if (started > 1) {
        wins += attempt > 1 ? 1 : 0;
        reportEvent(onEvent, { kind: "won", attempt, cancelled: running.size });
      }
      end();
      resolve(result);
    }

    function fail(error: unknown): void {
      const failure = classified(classify, error);
      switch (failure.kind) {
        case "permanent":
          end();
          reject(error);
          return;
        case "forbidden":
          mayStart = false;
          break;
        case "transient":
          // Waiting for a server is a retrier's business.
          mayStart &&= failure.pushBackMs === undefined;
          if (startAnother()) {
            return;
          }
      }
      if (running.size === 0) {
        end();
        reject(error);
      }
    }

    function end(reason: unknown = undefined): void {
      stopWaiting?.();
      call.signal?.removeEventListener("abort", abort);
      const losers = [...running.values()];
      running.clear();
      for (const loser of losers) {
        loser.abort(reason ?? new HedgeLostError());
      }
    }

    function abort(): void {
      end(call.signal?.reason);
      reject(call.signal?.reason);
    }

    call.signal?.addEventListener("abort", abort, { once: true });
    start();
    return promise;
  }

  return {
    run(work, call) {
      if (call.signal?.aborted) {
        return Promise.reject(call.signal.reason);
      }
      calls += 1;
      if (countsCalls) {
        budget.count();
      }
      return race(work, call);
    },
    stats: () => ({ calls, hedges, wins, denied, delayMs: delayMs ?? usual.value }),
  };
}

async function invoke<T>(
  work: (attempt: number, signal: AbortSignal) => Promise<T>,
  attempt: number,
  signal: AbortSignal,
): Promise<T> {
  return work(attempt, signal);
}
