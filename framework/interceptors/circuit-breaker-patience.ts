import type { DescMethod } from "@bufbuild/protobuf";

/** The weight of the newest duration; the mean is one of logarithms, so that a few long calls do not move it far. */
const NEWEST_WEIGHT = 0.1;
/** How many times as long as usual a caller has to wait for its impatience to say something about the backend. */
const PATIENCE = 2;

/** Tells whether a deadline was long enough for a method, judged by how long its calls usually take. */
export interface Patience {
  /** A call of this method succeeded after so many milliseconds. */
  succeeded(method: DescMethod, ms: number): void;
  /** Whether a call of this method should have ended within so many milliseconds. Yes, while nothing is known. */
  wasEnough(method: DescMethod, ms: number): boolean;
}

export function createPatience(): Patience {
  const usual = new WeakMap<DescMethod, { logMs: number }>();
  return {
    succeeded(method, ms) {
      const log = Math.log(Math.max(ms, 0.001));
      const known = usual.get(method);
      if (known === undefined) {
        usual.set(method, { logMs: log });
      } else {
        known.logMs += (log - known.logMs) * NEWEST_WEIGHT;
      }
    },
    wasEnough(method, ms) {
      const known = usual.get(method);
      return known === undefined || ms >= Math.exp(known.logMs) * PATIENCE;
    },
  };
}
