import { type Clock, systemClock } from "../../clock.ts";
import { demandAtLeast } from "../demand.ts";
import { keepAlive } from "../keep-alive.ts";
import { reportEvent } from "../report-event.ts";
import { createLatencyTrend } from "./latency-trend.ts";

export interface AdaptiveRateOptions {
  /** Calls a second to begin with. Default: 10. */
  readonly initialRate?: number | undefined;
  /** Default: 1. */
  readonly minRate?: number | undefined;
  /** Default: 100. */
  readonly maxRate?: number | undefined;
  /** How many calls may go at once after a quiet time, 1 or more. Default: 5. */
  readonly burst?: number | undefined;
  /** By how much as many successes as fit into a second raise the rate, in calls a second. Default: 1. */
  readonly increase?: number | undefined;
  /** What the rate is multiplied by after a failure. Default: 0.5. */
  readonly failureFactor?: number | undefined;
  /** What the rate is multiplied by when calls take too long. Default: 0.8. */
  readonly latencyFactor?: number | undefined;
  /** How many times as long as usual calls have to take, to be too long. Default: 2. */
  readonly latencyTolerance?: number | undefined;
  /** How long a call waits for its turn at most, in milliseconds. Default: 30,000. */
  readonly maxWaitMs?: number | undefined;
  /** How many calls may wait. Default: 1,000. */
  readonly maxWaiting?: number | undefined;
  readonly onEvent?: ((event: AdaptiveRateEvent) => void) | undefined;
  readonly clock?: Clock | undefined;
}

export type AdaptiveRateEvent =
  /** Reported for every whole call a second, not for every success. */
  | { readonly kind: "rate_raised"; readonly from: number; readonly to: number }
  | {
      readonly kind: "rate_cut";
      readonly from: number;
      readonly to: number;
      readonly cause: "failure" | "latency";
    };

/** How a call ended. `ignored`: it says nothing about the backend, such as a caller's mistake or its leaving. */
export type RateOutcome = "success" | "failure" | "ignored";

/** Leave to make one call. */
export interface RatePermit {
  /** How long it was waited for, in milliseconds. */
  readonly waitedMs: number;
  /**
   * Says how the call went; only the first word counts.
   *
   * @param latencyMs how long the backend took to answer, where that says something about its load
   */
  done(outcome: RateOutcome, latencyMs?: number): void;
}

export interface AdaptiveRateStats {
  /** Calls a second. */
  readonly rate: number;
  readonly waiting: number;
  /** Calls that were let go. */
  readonly acquired: number;
  /** Calls that had to wait, those that still do left out. */
  readonly waited: number;
  /** Together and at most, in milliseconds, of calls that were let go. */
  readonly totalWaitMs: number;
  readonly maxWaitMs: number;
  /** Calls that were turned away because too many waited, waited too long, or gave up. */
  readonly queueFull: number;
  readonly timedOut: number;
  readonly cancelled: number;
  readonly raises: number;
  readonly cuts: number;
  /** How long calls take now and usually, in milliseconds; undefined before the first. */
  readonly latencyMs: number | undefined;
  readonly usualLatencyMs: number | undefined;
}

/** Why a call was not let go. */
export class AdaptiveRateError extends Error {
  override readonly name = "AdaptiveRateError";
  readonly reason: "QUEUE_FULL" | "WAITED_TOO_LONG" | "CLOSED";
  /** After how long it makes sense to try again, in milliseconds. */
  readonly retryAfterMs: number;

  constructor(reason: AdaptiveRateError["reason"], message: string, retryAfterMs: number) {
    super(message);
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * A rate of calls that finds out by itself how much a backend can take: additive increase, multiplicative decrease
 * (Chiu and Jain 1989, "Analysis of the increase and decrease algorithms for congestion avoidance"), as TCP does.
 *
 * Calls take tokens from a bucket and wait in line for them. Every success raises the rate a little. A failure cuts it,
 * and so do calls that take several times as long as usual: at most once for all calls that were on their way together,
 * as they all say the same thing. A backend that has become slower for good is accepted after a while (see
 * `createLatencyTrend`).
 */
export interface AdaptiveRate {
  /**
   * Waits for its turn. Rejects with an `AdaptiveRateError`, or with the signal's reason when that aborts.
   */
  acquire(signal?: AbortSignal): Promise<RatePermit>;
  stats(): AdaptiveRateStats;
  /** Turns away everyone who waits, and who comes. */
  close(): void;
}

/** Whatever sums of fractions have lost, a token is a token. */
const WHOLE_TOKEN = 1 - 1e-9;

interface Waiter {
  readonly since: number;
  readonly resolve: (permit: RatePermit) => void;
  readonly reject: (reason: unknown) => void;
  readonly release: () => void;
}

export function createAdaptiveRate(options: AdaptiveRateOptions = {}): AdaptiveRate {
  const { minRate = 1, maxRate = 100, burst = 5, increase = 1, onEvent, clock = systemClock } = options;
  const { failureFactor = 0.5, latencyFactor = 0.8, latencyTolerance = 2 } = options;
  const { maxWaitMs: patienceMs = 30_000, maxWaiting = 1_000, initialRate = 10 } = options;
  if (!(minRate > 0 && minRate <= maxRate && Number.isFinite(maxRate) && burst >= 1)) {
    throw new RangeError(`rates from ${minRate} to ${maxRate} with a burst of ${burst} make no sense`);
  }
  demandAtLeast("an adaptive rate", 0, {
    initialRate,
    increase,
    maxWaitMs: patienceMs,
    maxWaiting,
    latencyTolerance,
  });
  if (!(failureFactor >= 0 && failureFactor <= 1 && latencyFactor >= 0 && latencyFactor <= 1)) {
    throw new RangeError("failureFactor and latencyFactor of an adaptive rate must be from 0 to 1");
  }

  let rate = Math.min(Math.max(initialRate, minRate), maxRate);
  let reportedRate = rate;
  let tokens = burst;
  let filledAt = clock.monotonic();
  /** Calls that began before say nothing that is not known. */
  let judgedFrom = Number.NEGATIVE_INFINITY;
  const trend = createLatencyTrend(latencyTolerance);
  // A Set keeps the order, and whoever gives up is taken out in no time.
  const line = new Set<Waiter>();
  let cancelTimer = () => {};
  let closed = false;
  const counts = { acquired: 0, waited: 0, totalWaitMs: 0, maxWaitMs: 0 };
  const turnedAway = { queueFull: 0, timedOut: 0, cancelled: 0 };
  const changes = { raises: 0, cuts: 0 };

  function fill(now: number): void {
    tokens = Math.min(burst, tokens + ((now - filledAt) * rate) / 1_000);
    filledAt = now;
  }

  /** Lets go whoever has a token, turns away whoever has waited too long, and sees to it that it comes back. */
  function serve(): void {
    cancelTimer();
    const now = clock.monotonic();
    fill(now);
    let next: Waiter | undefined;
    for (const waiter of line) {
      if (tokens >= WHOLE_TOKEN) {
        leave(waiter);
        waiter.resolve(permit(now, now - waiter.since));
      } else if (now - waiter.since >= patienceMs) {
        leave(waiter);
        turnedAway.timedOut++;
        waiter.reject(
          new AdaptiveRateError(
            "WAITED_TOO_LONG",
            `no turn came within ${patienceMs} ms at ${rate.toFixed(1)} calls a second`,
            lineMs(),
          ),
        );
      } else {
        next = waiter;
        break;
      }
    }
    if (next !== undefined) {
      const tokenMs = Math.ceil(((1 - tokens) * 1_000) / rate);
      cancelTimer = clock.after(Math.min(tokenMs, next.since + patienceMs - now), serve);
    }
  }

  function leave(waiter: Waiter): void {
    line.delete(waiter);
    waiter.release();
  }

  /** How long it takes until everyone who waits now has had a turn, in milliseconds. */
  function lineMs(): number {
    return Math.ceil(((line.size + 1) * 1_000) / rate);
  }

  function permit(now: number, waitedMs: number): RatePermit {
    tokens -= 1;
    counts.acquired++;
    counts.totalWaitMs += waitedMs;
    counts.maxWaitMs = Math.max(counts.maxWaitMs, waitedMs);
    if (waitedMs > 0) {
      counts.waited++;
    }
    let over = false;
    return {
      waitedMs,
      done(outcome, latency) {
        if (!over) {
          over = true;
          judge(now, outcome, latency);
        }
      },
    };
  }

  function judge(began: number, outcome: RateOutcome, latency: number | undefined): void {
    const tooSlow = latency !== undefined && outcome === "success" && trend.observe(latency);
    if (outcome === "failure" || tooSlow) {
      if (began >= judgedFrom) {
        judgedFrom = clock.monotonic();
        const cause = outcome === "failure" ? "failure" : "latency";
        change(rate * (cause === "failure" ? failureFactor : latencyFactor), cause);
      }
    } else if (outcome === "success") {
      change(rate + increase / rate, undefined);
    }
  }

  function change(wanted: number, cause: "failure" | "latency" | undefined): void {
    const to = Math.min(Math.max(wanted, minRate), maxRate);
    if (to === rate) {
      return;
    }
    fill(clock.monotonic());
    const from = rate;
    rate = to;
    if (cause !== undefined) {
      changes.cuts++;
      reportedRate = to;
      reportEvent(onEvent, { kind: "rate_cut", from, to, cause });
    } else {
      changes.raises++;
      if (to >= reportedRate + 1 || to === maxRate) {
        const reported = reportedRate;
        reportedRate = to;
        reportEvent(onEvent, { kind: "rate_raised", from: reported, to });
      }
    }
    if (line.size > 0) {
      serve();
    }
  }

  return {
    acquire(signal) {
      if (signal?.aborted) {
        return Promise.reject(signal.reason);
      }
      if (closed) {
        return Promise.reject(closedError());
      }
      const now = clock.monotonic();
      fill(now);
      if (line.size === 0 && tokens >= WHOLE_TOKEN) {
        return Promise.resolve(permit(now, 0));
      }
      if (line.size >= maxWaiting) {
        turnedAway.queueFull++;
        const message = `${line.size} calls wait already, at ${rate.toFixed(1)} calls a second`;
        return Promise.reject(new AdaptiveRateError("QUEUE_FULL", message, lineMs()));
      }
      return new Promise((resolve, reject) => {
        function giveUp(): void {
          leave(waiter);
          turnedAway.cancelled++;
          reject(signal?.reason);
          serve();
        }
        const letEnd = keepAlive();
        const waiter: Waiter = {
          since: now,
          resolve,
          reject,
          release() {
            letEnd();
            signal?.removeEventListener("abort", giveUp);
          },
        };
        signal?.addEventListener("abort", giveUp, { once: true });
        line.add(waiter);
        if (line.size === 1) {
          serve();
        }
      });
    },
    stats: () => ({
      rate,
      waiting: line.size,
      ...counts,
      ...turnedAway,
      ...changes,
      latencyMs: trend.nowMs,
      usualLatencyMs: trend.usualMs,
    }),
    close() {
      closed = true;
      cancelTimer();
      for (const waiter of line) {
        leave(waiter);
        waiter.reject(closedError());
      }
    },
  };
}

function closedError(): AdaptiveRateError {
  return new AdaptiveRateError("CLOSED", "the rate is closed", 0);
}
