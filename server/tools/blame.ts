import { createByteLru } from "@toolplane/framework/policies";

/** Services and tools of which it is remembered which instances failed. */
const REMEMBERED = 10_000;

/**
 * Tells the failures of instances from those of the service or tool that they offer: as long as one instance does
 * better, the others are to blame, and calls only have to go elsewhere.
 */
export interface Blame {
  /** A call of `key` succeeded at some instance. */
  succeeded(key: string): void;
  /**
   * A call of `key` failed at `instanceId`. Whether every one of `instances` has failed since the last success, so that
   * the key itself is to blame.
   */
  failed(key: string, instanceId: string, instances: readonly { readonly id: string }[]): boolean;
}

export function createBlame(): Blame {
  const failing = createByteLru<Set<string>>({ maxEntries: REMEMBERED });
  return {
    succeeded(key) {
      failing.get(key)?.clear();
    },
    failed(key, instanceId, instances) {
      let failed = failing.get(key);
      if (!failed) {
        failed = new Set();
        failing.set(key, failed, 1);
      }
      // Instances come and go: what is not offered any more says nothing.
      for (const id of failed) {
        if (!instances.some((instance) => instance.id === id)) {
          failed.delete(id);
        }
      }
      failed.add(instanceId);
      return instances.every(({ id }) => failed.has(id));
    },
  };
}
