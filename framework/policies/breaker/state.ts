/**
 * How a call ended, for those who judge what it was sent to.
 *
 * - `success`: it was answered as it should be.
 * - `failure`: what it was sent to is to blame.
 * - `ignored`: nothing can be said, since the caller made a mistake or has left. It counts nowhere.
 */
export type Outcome = "success" | "failure" | "ignored";

/** What a breaker does with calls. Times are in milliseconds since 1970. */
export type BreakerState =
  /** It lets all through and counts how they end. The state it begins in. */
  | { readonly kind: "closed"; readonly since: number }
  /**
   * It refuses all until `retryAt`. The first call after that makes it half-open: without calls it remains open, however
   * long that time has passed.
   */
  | { readonly kind: "open"; readonly since: number; readonly retryAt: number; readonly cause: OpenCause }
  /**
   * It lets a few through and refuses the rest. It closes when as many have succeeded as may be let through at once, and
   * opens, for longer than before, as soon as one fails.
   */
  | {
      readonly kind: "half-open";
      readonly since: number;
      /** Calls let through that have not reported. */
      readonly probing: number;
      /** Calls let through that have succeeded. */
      readonly succeeded: number;
    }
  /** It refuses all until it is reset: someone has asked for that. */
  | { readonly kind: "isolated"; readonly since: number; readonly reason: string };

/** Why a breaker opened. */
export type OpenCause =
  | "consecutive-failures"
  | "failure-rate"
  | "slow-call-rate"
  | "probe-failed"
  | "probes-slow";

/** A transition. `at` is in milliseconds since 1970, `name` the breaker's. */
export type BreakerEvent = { readonly name: string; readonly at: number } & (
  | {
      readonly kind: "opened";
      readonly from: "closed" | "half-open";
      readonly cause: OpenCause;
      /** How long it refuses, in milliseconds. */
      readonly openMs: number;
      /** What the last failure was, where that was told. */
      readonly lastFailure: string | undefined;
    }
  | { readonly kind: "half-opened" }
  | {
      readonly kind: "closed";
      readonly from: "half-open" | "open" | "isolated";
      readonly by: "probes" | "reset";
    }
  | { readonly kind: "isolated"; readonly from: "closed" | "open" | "half-open"; readonly reason: string }
);

/** A breaker at one moment. Counts are since it was made, unless they say otherwise. */
export interface BreakerSnapshot {
  readonly name: string;
  readonly state: BreakerState;
  /** Failures in a row while it was last closed. */
  readonly consecutiveFailures: number;
  /** What has ended within the window while it was last closed; ignored calls are not in it. */
  readonly window: { readonly calls: number; readonly failures: number; readonly slowCalls: number };
  /** Calls that were refused. */
  readonly rejected: number;
  readonly timesOpened: number;
  /** Calls that reported after the state they were let through in was over, so that they did not count. */
  readonly late: number;
  readonly lastFailure: { readonly text: string; readonly at: number } | undefined;
}

/** Leave to call. */
export interface BreakerPermit {
  readonly allowed: true;
  /** True: whether the breaker closes depends on this call. */
  readonly probe: boolean;
  /**
   * To be called once the call is over, however it ends; only the first time counts.
   *
   * @param failure what went wrong, for people; its beginning is kept
   * @param durationMs how long the call took; default: as long as the permit was held
   */
  record(outcome: Outcome, failure?: string, durationMs?: number): void;
}

/** No leave to call. */
export interface BreakerRefusal {
  readonly allowed: false;
  /** The breaker's. */
  readonly name: string;
  readonly state: "open" | "half-open" | "isolated";
  /** When it is worth trying again, in milliseconds; undefined when nobody knows. */
  readonly retryAfterMs: number | undefined;
}
