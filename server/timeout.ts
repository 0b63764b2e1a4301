import { Code, ConnectError } from "@connectrpc/connect";
import type { Clock } from "@toolplane/framework";
import { codeOf } from "./error-code.ts";

/** A signal that ends with its caller or at a deadline, whichever is first. */
export interface Timeout {
  /** Its reason is a ConnectError: CANCELED or DEADLINE_EXCEEDED. */
  readonly signal: AbortSignal;
  /** The caller is not interested any more. */
  leave(): void;
  /** Lets go of the timer and of the caller's signal. */
  clear(): void;
}

export function createTimeout(clock: Clock, timeoutMs: number, caller: AbortSignal): Timeout {
  const controller = new AbortController();
  const onCallerLeft = () => controller.abort(ConnectError.from(caller.reason, Code.Canceled));
  const cancelTimer = clock.after(timeoutMs, () =>
    controller.abort(
      new ConnectError(`the call took longer than ${Math.round(timeoutMs)} ms`, Code.DeadlineExceeded),
    ),
  );
  if (caller.aborted) {
    onCallerLeft();
  } else {
    caller.addEventListener("abort", onCallerLeft, { once: true });
  }
  return {
    signal: controller.signal,
    leave: () => controller.abort(new ConnectError("the caller left", Code.Canceled)),
    clear() {
      cancelTimer();
      caller.removeEventListener("abort", onCallerLeft);
    },
  };
}

/** Whether something failed because its time was up. */
export function isTimeout(error: unknown): boolean {
  return codeOf(error) === Code.DeadlineExceeded;
}
