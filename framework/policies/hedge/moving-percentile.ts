export interface MovingPercentileOptions {
  /** From 0 to 1. */
  readonly percentile: number;
  /** How many values, the latest ones, it is taken of. Default: 200. */
  readonly size?: number;
  /** Fewer values have no percentile. Default: 20. */
  readonly minSamples?: number;
}

export interface MovingPercentile {
  add(value: number): void;
  /** Undefined while there are too few values. */
  readonly value: number | undefined;
}

/** A percentile of the latest values, brought up to date with every tenth part of them. */
export function createMovingPercentile(options: MovingPercentileOptions): MovingPercentile {
  const { percentile, size = 200, minSamples = 20 } = options;
  const latest = new Float64Array(size);
  const interval = Math.max(1, Math.floor(size / 10));
  let added = 0;
  let current: number | undefined;
  return {
    add(value) {
      latest[added % size] = value;
      added += 1;
      if (added >= minSamples && (current === undefined || added % interval === 0)) {
        const sorted = latest.slice(0, Math.min(added, size)).sort();
        current = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * percentile))];
      }
    },
    get value() {
      return current;
    },
  };
}
