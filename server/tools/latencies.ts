import { createByteLru } from "@toolplane/framework/policies";

/** Tools whose latencies are remembered. */
const REMEMBERED = 10_000;
/** The weight of the newest latency in the moving average. */
const WEIGHT = 0.1;
/** Less than this, in milliseconds, proves nothing about any tool. */
const SHORT_MS = 1_000;
/** How often the usual latency must fit into the time that was waited. */
const GENEROUS = 3;

/** Remembers how long calls take, to tell a backend that hangs from a caller in a hurry. */
export interface Latencies {
  record(key: string, durationMs: number): void;
  /** Whether a call that goes well is over by far after so many milliseconds. */
  suffices(key: string, elapsedMs: number): boolean;
}

export function createLatencies(): Latencies {
  const averages = createByteLru<{ ms: number }>({ maxEntries: REMEMBERED });
  return {
    record(key, durationMs) {
      const average = averages.get(key);
      if (average) {
        average.ms += WEIGHT * (durationMs - average.ms);
      } else {
        averages.set(key, { ms: durationMs });
      }
    },
    suffices: (key, elapsedMs) => elapsedMs >= Math.max(SHORT_MS, GENEROUS * (averages.get(key)?.ms ?? 0)),
  };
}
