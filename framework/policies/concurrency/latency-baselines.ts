/** The latencies of one kind of work, all as natural logarithms. */
interface Kind {
  /** Without load; undefined: not known. */
  baseline: number | undefined;
  /** Of the samples since the last `forgetSamples`. */
  count: number;
  sum: number;
  sumOfSquares: number;
}

/**
 * How a baseline takes in the samples:
 * - `follow`: it moves towards their mean, the further the more there are, but upwards only slowly.
 * - `replace`: it becomes their mean.
 * - `downwards`: it follows where their mean is lower by more than chance explains.
 */
export type Learning = "follow" | "replace" | "downwards";

/** What is known of how long work takes without load, by kind. All values are natural logarithms of milliseconds. */
export interface Baselines {
  add(kind: string, latency: number): void;
  /** Adds what is at least so long: it counts where it is longer than usual, else it says nothing. */
  addAtLeast(kind: string, latency: number): void;
  /** How many samples there are. */
  readonly samples: number;
  /** How far the samples are above the baselines of their kinds, on average. 0 where no baseline is known. */
  slowdown(): number;
  /** The samples' mean. */
  mean(): number;
  learn(how: Learning): void;
  forgetSamples(): void;
}

/** So many samples weigh as much as what is known already. */
const MEMORY = 100;
/** A window moves a baseline up by at most such a part of the distance: a machine that stalls is no new usual. */
const MAX_RISE = 0.05;
/** How many standard errors chance explains. */
const CHANCE = 3;
/** Kinds are methods of a server, of which there are few; whatever else they are made of, memory stays bounded. */
const MAX_KINDS = 1_000;

/**
 * Logarithms make means geometric ones: a few outliers do not move them, and "twice as long" is the same distance for
 * fast and slow kinds of work.
 */
export function createBaselines(): Baselines {
  const kinds = new Map<string, Kind>();
  let samples = 0;

  function kindOf(name: string): Kind {
    let kind = kinds.get(name);
    if (kind === undefined) {
      if (kinds.size >= MAX_KINDS) {
        return kindOf(kinds.keys().next().value ?? "");
      }
      kind = { baseline: undefined, count: 0, sum: 0, sumOfSquares: 0 };
      kinds.set(name, kind);
    }
    return kind;
  }

  function count(kind: Kind, latency: number): void {
    samples += 1;
    kind.count += 1;
    kind.sum += latency;
    kind.sumOfSquares += latency * latency;
  }

  function slowdown(): number {
    let excess = 0;
    let known = 0;
    for (const { baseline, count: own, sum } of kinds.values()) {
      if (baseline !== undefined) {
        excess += sum - own * baseline;
        known += own;
      }
    }
    return known === 0 ? 0 : excess / known;
  }

  return {
    add(name, latency) {
      count(kindOf(name), latency);
    },
    addAtLeast(name, latency) {
      const kind = kindOf(name);
      const usual = kind.baseline ?? kind.sum / kind.count;
      if (latency > usual) {
        count(kind, latency);
      }
    },
    get samples() {
      return samples;
    },
    slowdown,
    mean() {
      let sum = 0;
      for (const kind of kinds.values()) {
        sum += kind.sum;
      }
      return sum / samples;
    },
    learn(how) {
      const common = slowdown();
      const anyKnown = kinds.values().some(({ baseline }) => baseline !== undefined);
      for (const kind of kinds.values()) {
        if (kind.count > 0) {
          const mean = kind.sum / kind.count;
          if (kind.baseline !== undefined) {
            kind.baseline = learned(kind.baseline, kind, how);
          } else if (how !== "downwards") {
            kind.baseline = mean;
          } else if (anyKnown) {
            // A kind that appears under load is taken to be slowed down as much as the others.
            kind.baseline = mean - common;
          }
        }
      }
    },
    forgetSamples() {
      samples = 0;
      for (const kind of kinds.values()) {
        kind.count = 0;
        kind.sum = 0;
        kind.sumOfSquares = 0;
      }
    },
  };
}

function learned(baseline: number, { count, sum, sumOfSquares }: Kind, how: Learning): number {
  const mean = sum / count;
  const weight = count / (count + MEMORY);
  const followed = baseline + (mean - baseline) * (mean > baseline ? Math.min(weight, MAX_RISE) : weight);
  switch (how) {
    case "replace":
      return mean;
    case "follow":
      return followed;
    case "downwards": {
      const variance = Math.max(0, sumOfSquares / count - mean * mean);
      const clearlyLower = count > 1 && mean < baseline - CHANCE * Math.sqrt(variance / (count - 1));
      return clearlyLower ? followed : baseline;
    }
  }
}
