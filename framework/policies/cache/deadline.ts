import type { Clock } from "../../clock.ts";

/**
 * The outcome of `work`, or a `TimeoutError` after `ms` milliseconds, whether or not the work minds its signal.
 *
 * @param parent what else aborts the work's signal; it does not end the wait
 */
export function withDeadline<T>(
  clock: Clock,
  ms: number,
  work: (signal: AbortSignal) => Promise<T>,
  parent?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    const cancel = clock.after(ms, () => {
      const error = new DOMException(`not done within ${ms} ms`, "TimeoutError");
      controller.abort(error);
      reject(error);
    });
    const { signal } = controller;
    // In a function of its own, so that what is thrown at once rejects as well.
    const run = async () => work(parent === undefined ? signal : AbortSignal.any([parent, signal]));
    run().then(resolve, reject).finally(cancel);
  });
}
