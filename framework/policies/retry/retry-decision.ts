import { type Backoff, backoffDelayMs } from "./backoff.ts";

/** What a failure means for a repetition. */
export type Failure =
  /** The same call would fail the same way. */
  | { readonly kind: "permanent" }
  /** The server asks not to be called again. */
  | { readonly kind: "forbidden" }
  /** The next attempt may succeed. */
  | {
      readonly kind: "transient";
      /** The call certainly had no effect, such as when no connection could be made. Default: false. */
      readonly unsent?: boolean;
      /** The server asks to wait for at least so many milliseconds. */
      readonly pushBackMs?: number;
    };

/** What a classifier says of an error. Of one that fails itself nothing is known, so nothing is repeated. */
export function classified(classify: (error: unknown) => Failure, error: unknown): Failure {
  try {
    return classify(error);
  } catch {
    return { kind: "permanent" };
  }
}

export type GiveUpReason =
  | "permanent"
  | "forbidden"
  /** It may have had an effect, and must not have it twice. */
  | "not-repeatable"
  /** There were as many attempts as there may be. */
  | "attempts"
  /** The server asks to wait longer than the caller would. */
  | "push-back"
  /** The wait would not end before the deadline. */
  | "deadline"
  /** Too many other calls are being repeated. */
  | "budget"
  /** The caller has left. */
  | "cancelled";

export interface RetryLimits extends Backoff {
  /** How often a call is tried in all. */
  readonly attempts: number;
  /** The longest wait that a server may ask for, in milliseconds. */
  readonly maxPushBackMs: number;
}

/**
 * Whether a failure calls for another attempt; undefined: it does.
 *
 * @param failures attempts that failed so far, this one included
 * @param repeatable whether the call may reach the server twice
 */
export function reasonToGiveUp(
  failure: Failure,
  failures: number,
  repeatable: boolean,
  limits: RetryLimits,
): GiveUpReason | undefined {
  if (failure.kind !== "transient") {
    return failure.kind;
  }
  if (!repeatable && failure.unsent !== true) {
    return "not-repeatable";
  }
  if (failures >= limits.attempts) {
    return "attempts";
  }
  return (failure.pushBackMs ?? 0) > limits.maxPushBackMs ? "push-back" : undefined;
}

/**
 * How long to wait before the next attempt, in milliseconds. Where the server asks for a wait, callers that were told the
 * same come back spread over `baseDelayMs` after it.
 */
export function retryDelayMs(
  failure: Extract<Failure, { kind: "transient" }>,
  failures: number,
  limits: RetryLimits,
  random: () => number,
): number {
  return failure.pushBackMs === undefined
    ? backoffDelayMs(failures, limits, random)
    : failure.pushBackMs + backoffDelayMs(1, limits, random);
}
