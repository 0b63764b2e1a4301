import { createByteLru } from "@toolplane/framework/policies";

/** Tools whose latencies are remembered. */
const REMEMBERED = 10_000;
/** The weight of the newest latency in the moving average. */
const WEIGHT = 0.1;
/** Less than this, in milliseconds, proves nothing about any tool. */
const SHORT_MS = 1_000;
/** How often the usual latency must fit into the time that was waited. */
const GENEROUS = 3;

/** What it means that a call was not answered for some time. */
export type Patience =
  /** It may only have needed longer. */
  | "short"
  /** It may be long for this tool: how long its calls usually take is not known. */
  | "unproven"
  /** Calls that go well are over by then, by far. */
  | "ample";

/** Remembers how long calls take, to tell a backend that hangs from a caller in a hurry. */
export interface Latencies {
  record(key: string, durationMs: number): void;
  patience(key: string, elapsedMs: number): Patience;
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
    patience(key, elapsedMs) {
      if (elapsedMs < SHORT_MS) {
        return "short";
      }
      const usual = averages.get(key);
      if (!usual) {
        return "unproven";
      }
      return elapsedMs >= GENEROUS * usual.ms ? "ample" : "short";
    },
  };
}
