/** Shares out the event loop among work that is ready all at once. */
export interface Turns {
  /** Resolves when it is one's turn: at once as long as little was done since the event loop last came round. */
  take(weight: number): Promise<void>;
}

/**
 * So much weight is let through each time the event loop comes round, and one piece of work at least, whatever its weight.
 *
 * What is read from memory never waits: a thousand watchers who begin at once would be told everything in one go, and
 * until its end this process would answer nobody else.
 */
export function createTurns(budget: number): Turns {
  const waiting: { readonly weight: number; readonly resolve: () => void }[] = [];
  let used = 0;
  let isScheduled = false;

  function schedule(): void {
    if (!isScheduled) {
      isScheduled = true;
      setImmediate(comeRound);
    }
  }

  function comeRound(): void {
    isScheduled = false;
    used = 0;
    while (used < budget) {
      const next = waiting.shift();
      if (next === undefined) {
        break;
      }
      used += next.weight;
      next.resolve();
    }
    if (used > 0) {
      schedule();
    }
  }

  return {
    async take(weight) {
      schedule();
      if (used < budget && waiting.length === 0) {
        used += weight;
        return;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.push({ weight, resolve });
      await promise;
    },
  };
}
