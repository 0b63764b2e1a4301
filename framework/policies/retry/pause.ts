import type { Clock } from "../../clock.ts";
import { keepAlive } from "../keep-alive.ts";

/** Waits, and keeps the process alive meanwhile; rejects with the signal's reason as soon as it aborts. */
export function pause(ms: number, clock: Clock, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const letEnd = keepAlive();
    const cancel = clock.after(ms, () => {
      letEnd();
      signal?.removeEventListener("abort", abort);
      resolve();
    });
    function abort() {
      letEnd();
      cancel();
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", abort, { once: true });
  });
}
