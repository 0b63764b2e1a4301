import { type Clock, MAX_TIMER_MS } from "@toolplane/framework";

/**
 * Resolves at a time, in milliseconds since 1970, however far away it is; rejects with the signal's reason as soon as it
 * is aborted.
 */
export function sleepUntil(time: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let cancel = () => {};
  const wake = () => {
    const left = time - clock.now();
    if (left > 0) {
      cancel = clock.after(Math.min(left, MAX_TIMER_MS), wake);
    } else {
      signal.removeEventListener("abort", abort);
      resolve();
    }
  };
  const abort = () => {
    cancel();
    reject(signal.reason);
  };
  if (signal.aborted) {
    reject(signal.reason);
  } else {
    signal.addEventListener("abort", abort, { once: true });
    wake();
  }
  return promise;
}

/** What the work comes to, or the signal's reason as soon as it is aborted: then nobody waits for the work any more. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) {
    abort();
  }
  signal.addEventListener("abort", abort, { once: true });
  // What fails after nobody waits for it any more was stopped for a reason that is known.
  work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  return promise;
}
