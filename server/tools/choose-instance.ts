/**
 * Chooses between instances by the power of two choices: of two random candidates the one with fewer running calls
 * (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996).
 */
export interface InstanceChooser {
  /** Picks one of `candidates`, which must not be empty, and counts it as busy until the returned function is called. */
  choose<T extends { readonly id: string }>(
    candidates: readonly [T, ...T[]],
  ): { instance: T; release: () => void };
}

export function createInstanceChooser(random: () => number = Math.random): InstanceChooser {
  const running = new Map<string, number>();
  return {
    choose(candidates) {
      const at = Math.floor(random() * candidates.length);
      const first = candidates[at] ?? candidates[0];
      // Another one, so that the least busy of two wins against an instance that answers nothing.
      const other = (at + 1 + Math.floor(random() * (candidates.length - 1))) % candidates.length;
      const second = candidates[other] ?? first;
      const instance = (running.get(second.id) ?? 0) < (running.get(first.id) ?? 0) ? second : first;
      running.set(instance.id, (running.get(instance.id) ?? 0) + 1);
      let released = false;
      return {
        instance,
        release() {
          if (released) {
            return;
          }
          released = true;
          const left = (running.get(instance.id) ?? 1) - 1;
          if (left > 0) {
            running.set(instance.id, left);
          } else {
            running.delete(instance.id);
          }
        },
      };
    },
  };
}
