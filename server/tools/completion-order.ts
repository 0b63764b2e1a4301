/**
 * Runs `run` for every item, at most `concurrency` at once, and yields what it returns in the order in which it does.
 *
 * A result that is not taken yet counts as running: a reader that is slow slows the work down, instead of having results
 * pile up. `run` must not reject: turn failures into values first, so that one never hides another. Leaving the iteration
 * starts nothing more; it does not stop what runs.
 */
export async function* inCompletionOrder<T, R>(
  items: readonly T[],
  concurrency: number,
  run: (item: T, index: number) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const ready: R[] = [];
  let started = 0;
  let wake = () => {};

  function startNext(): void {
    const index = started++;
    const item = items[index];
    if (item !== undefined) {
      void run(item, index).then((result) => {
        ready.push(result);
        wake();
      });
    }
  }

  for (let slot = 0; slot < concurrency; slot++) {
    startNext();
  }
  for (let yielded = 0; yielded < items.length; yielded++) {
    while (ready.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    // The loop above has seen one.
    yield ready.shift() as R;
    startNext();
  }
}
