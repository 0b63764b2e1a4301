/**
 * Settles as `promise` does, or rejects with the signal's reason as soon as it aborts. What `promise` does afterwards
 * is not looked at: the work behind it has to watch the signal itself.
 */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) {
      abort();
    }
    signal.addEventListener("abort", abort, { once: true });
    promise.then(
      (value) => {
        signal.removeEventListener("abort", abort);
        resolve(value);
      },
      (error: unknown) => {
        signal.removeEventListener("abort", abort);
        reject(error);
      },
    );
  });
}

/**
 * The items of `source` until the signal aborts: then the pending `next` rejects with the signal's reason and the
 * source is told to clean up, whether or not anyone is reading. Without that, the `finally` of a generator whose
 * reader has silently gone would never run.
 *
 * `Promise.race` against one long-lived promise would keep every item of a long stream in memory; here a single
 * listener rejects whichever `next` is pending.
 */
export function abortable<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      let rejectPending: ((reason: unknown) => void) | undefined;
      let over = false;

      function finish() {
        over = true;
        signal.removeEventListener("abort", abort);
      }
      function abort() {
        finish();
        rejectPending?.(signal.reason);
        // Its outcome is nobody's business any more: the call has its answer, which is the abort's reason.
        iterator.return?.().catch(() => {});
      }
      if (signal.aborted) {
        abort();
      } else {
        signal.addEventListener("abort", abort, { once: true });
      }

      return {
        next() {
          if (over) {
            return signal.aborted
              ? Promise.reject(signal.reason)
              : Promise.resolve({ done: true, value: undefined });
          }
          return new Promise<IteratorResult<T>>((resolve, reject) => {
            rejectPending = reject;
            iterator.next().then(
              (result) => {
                rejectPending = undefined;
                if (result.done === true) {
                  finish();
                }
                resolve(result);
              },
              (error: unknown) => {
                rejectPending = undefined;
                finish();
                reject(error);
              },
            );
          });
        },
        async return() {
          if (!over) {
            finish();
            await iterator.return?.();
          }
          return { done: true, value: undefined };
        },
      };
    },
  };
}
