import { createHash } from "node:crypto";
import { Code } from "@connectrpc/connect";
import { ReleasedError } from "../engine/engine.ts";
import { LostRunError } from "../engine/journal.ts";

/**
 * The idempotency key of what a step starts for the `index`-th time, from 0. A step that finds that what it started has
 * failed before starts another one; a step that was taken over by another worker finds the same ones again.
 */
export function childKey(idempotencyKey: string, index: number): string {
  if (index === 0) {
    return idempotencyKey;
  }
  const hex = createHash("sha256").update(`${idempotencyKey}/${index}`).digest("hex");
  // A UUID of version 8, whose bits mean what one likes (RFC 9562).
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 3) | 8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/**
 * Whether what a step has started is to be stopped with the step: when that was cancelled or its time was over. When only
 * the worker goes, another one finds it and waits on.
 */
export function stopsWithStep(signal: AbortSignal): boolean {
  return (
    signal.aborted && !(signal.reason instanceof ReleasedError) && !(signal.reason instanceof LostRunError)
  );
}

/** Whether what failed with this code may succeed when it is tried again: see RetryPolicy in the contract. */
export function mayPass(code: Code): boolean {
  switch (code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.Aborted:
    case Code.ResourceExhausted:
    case Code.Internal:
    case Code.Unknown:
      return true;
    default:
      return false;
  }
}
