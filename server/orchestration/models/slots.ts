import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import pLimit from "p-limit";

/** How many requests to one provider may wait for others to end. */
export const MAX_WAITING = 1_000;

/** Lets so many requests to a provider run at once; further ones wait, as long as their callers do. */
export interface Slots {
  run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export function createSlots(provider: string, maxConcurrency: number): Slots {
  const limit = pLimit(maxConcurrency);
  return {
    async run(signal, work) {
      signal.throwIfAborted();
      if (limit.pendingCount >= MAX_WAITING) {
        throw new DomainError({
          code: Code.ResourceExhausted,
          reason: "MODEL_QUEUE_FULL",
          message: `${MAX_WAITING} requests already wait for the provider "${provider}", of which ${maxConcurrency} may run at once`,
          metadata: { provider },
          retryAfterMs: 1_000,
        });
      }
      return await new Promise((resolve, reject) => {
        const leave = () => reject(signal.reason);
        signal.addEventListener("abort", leave, { once: true });
        void limit(async () => {
          signal.removeEventListener("abort", leave);
          if (!signal.aborted) {
            // The place stays taken until all is over, even when the caller has left.
            await work().then(resolve, reject);
          }
        });
      });
    },
  };
}
