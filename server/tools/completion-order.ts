/**
 * Yields the values of `promises` in the order in which they are fulfilled. The promises must not be rejected: turn
 * failures into values first, so that one never hides another.
 */
export async function* completionOrder<T>(
  promises: readonly Promise<T>[],
): AsyncGenerator<T, void, undefined> {
  const ready: T[] = [];
  let wake: () => void = () => {};
  for (const promise of promises) {
    void promise.then((value) => {
      ready.push(value);
      wake();
    });
  }
  for (let yielded = 0; yielded < promises.length; ) {
    const next = ready.splice(0);
    if (next.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      continue;
    }
    yield* next;
    yielded += next.length;
  }
}
