import { DomainError } from "@toolplane/framework";
import { CancelledError } from "../engine/engine.ts";
import { idempotencyKey as keyOf } from "../idempotency-key.ts";

/** What the engine says of a step, and of a run, whose time is over. A database may have no time left, too. */
const timeoutReasons: ReadonlySet<string> = new Set(["STEP_TIMEOUT", "RUN_TIMEOUT"]);

/**
 * The idempotency key of what a step starts for the `index`-th time, from 0. A step that finds that what it started has
 * failed before starts another one; a step that was taken over by another worker finds the same ones again.
 */
export function childKey(idempotencyKey: string, index: number): string {
  return index === 0 ? idempotencyKey : keyOf(idempotencyKey, String(index));
}

/**
 * Whether what a step has started is to be stopped with the step: when that was cancelled or its time is over. When only
 * its worker goes, for whatever reason, another one finds it and waits on.
 */
export function stopsWithStep({ reason }: AbortSignal): boolean {
  return (
    reason instanceof CancelledError ||
    (reason instanceof DomainError && timeoutReasons.has(reason.init.reason))
  );
}
