import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import { sleepUntil } from "./sleep.ts";

/** The time and the signal of one attempt. */
export interface AttemptLimit {
  /** Aborted when the attempt's time is over, and when nobody wants it any more. */
  readonly signal: AbortSignal;
  /** In milliseconds since 1970. Undefined: there is none. */
  readonly deadline: number | undefined;
  wait(until: number): Promise<void>;
  /** The attempt has ended; what still runs of it is stopped. */
  close(): void;
}

export function createAttemptLimit(options: {
  readonly path: string;
  readonly timeoutMs: number | undefined;
  /** What the attempt is a part of. */
  readonly within: { readonly signal: AbortSignal; readonly attemptDeadline: number | undefined };
  readonly clock: Clock;
}): AttemptLimit {
  const { path, timeoutMs, within, clock } = options;
  const controller = new AbortController();
  const { signal } = controller;
  const follow = () => controller.abort(within.signal.reason);
  within.signal.addEventListener("abort", follow, { once: true });
  if (within.signal.aborted) {
    follow();
  }
  const own = timeoutMs === undefined ? Infinity : clock.now() + timeoutMs;
  if (timeoutMs !== undefined) {
    sleepUntil(own, clock, signal).then(
      () => controller.abort(timedOut(path, timeoutMs)),
      // The attempt ended first.
      () => {},
    );
  }
  const deadline = Math.min(own, within.attemptDeadline ?? Infinity);
  return {
    signal,
    deadline: Number.isFinite(deadline) ? deadline : undefined,
    wait: (until) => sleepUntil(until, clock, signal),
    close() {
      within.signal.removeEventListener("abort", follow);
      controller.abort(over(path));
    },
  };
}

function timedOut(path: string, timeoutMs: number): DomainError {
  const seconds = `${timeoutMs / 1_000} s`;
  return new DomainError({
    code: Code.DeadlineExceeded,
    reason: "STEP_TIMEOUT",
    message: `step "${path}" took longer than its timeout of ${seconds}`,
    metadata: { step: path, timeout: seconds },
  });
}

function over(path: string): DomainError {
  return new DomainError({
    code: Code.Aborted,
    reason: "ATTEMPT_OVER",
    message: `the attempt of step "${path}" that this is a part of has ended`,
  });
}
