/** What one test took in the runs of both sides. */
export interface TimedTest {
  readonly base: readonly number[];
  readonly head: readonly number[];
}

/** How far apart the sides of a test are, and how far apart chance puts tests that last about as long. */
export interface Gap {
  /** From the slowest run of the faster side to the fastest run of the slower one; 0: they overlap. */
  readonly ms: number;
  /** The widest gap that the same runs show when they are divided in any other way. */
  readonly noiseMs: number;
}

/** Tests up to so many times as long tell of a test's noise: pauses hit all alike, and longer tests vary by more. */
const AS_LONG = 2;

/**
 * Tells a difference between the sides from the noise of these very runs, without a model of it. Were there no
 * difference, any other division of the runs into sides of these sizes could be as wide apart; so the widest gap of all
 * other divisions is what chance does here. The idea of permutation tests that look at the greatest of all statistics
 * (Westfall and Young 1993), but with so few divisions the greatest gap serves as a measure, not for a probability.
 *
 * Every test supports exactly one division, that of its longest durations against the others. Tests that support the
 * division in question say nothing of noise, and with several runs a side neither do those that support its reverse:
 * both may be real. With one run a side the reverse is all there is.
 */
export function noiseBound(
  tests: readonly TimedTest[],
  baseRuns: number,
  headRuns: number,
): (test: TimedTest) => Gap {
  // Sides of different sizes have no reverse: which runs are the longest is said within one side then.
  const leavesReverse = baseRuns === headRuns && baseRuns > 1;
  const slower: Noise[] = [];
  const faster: Noise[] = [];
  for (const test of tests) {
    // A test that is not in every run cannot be divided as the runs are.
    if (test.base.length !== baseRuns || test.head.length !== headRuns) {
      continue;
    }
    const apart = gapOf(test);
    const lengthMs = Math.min(...test.base, ...test.head);
    if (apart === 0 || (apart < 0 && !leavesReverse)) {
      slower.push({ lengthMs, gapMs: splitGap(test, headRuns) });
    }
    if (apart === 0 || (apart > 0 && !leavesReverse)) {
      faster.push({ lengthMs, gapMs: splitGap(test, baseRuns) });
    }
  }
  const slowerNoise = widestUpTo(slower);
  const fasterNoise = widestUpTo(faster);
  return (test) => {
    const apart = gapOf(test);
    const lengthMs = AS_LONG * Math.min(...test.base, ...test.head);
    return { ms: Math.abs(apart), noiseMs: (apart < 0 ? fasterNoise : slowerNoise)(lengthMs) };
  };
}

interface Noise {
  readonly lengthMs: number;
  readonly gapMs: number;
}

/** Above 0: every run of head is above every run of base. Below 0: the other way round. 0: they overlap. */
function gapOf({ base, head }: TimedTest): number {
  const above = Math.min(...head) - Math.max(...base);
  const below = Math.min(...base) - Math.max(...head);
  return above > 0 ? above : below > 0 ? -below : 0;
}

/** The gap below the `count` longest durations of a test. */
function splitGap({ base, head }: TimedTest, count: number): number {
  const descending = [...base, ...head].sort((a, b) => b - a);
  return (descending[count - 1] ?? 0) - (descending[count] ?? 0);
}

/** The widest gap among tests up to a length. */
function widestUpTo(noise: readonly Noise[]): (lengthMs: number) => number {
  const sorted = noise.toSorted((a, b) => a.lengthMs - b.lengthMs);
  let widest = 0;
  const widestSoFar = sorted.map(({ gapMs }) => {
    widest = Math.max(widest, gapMs);
    return widest;
  });
  return (lengthMs) => {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((sorted[middle]?.lengthMs ?? 0) <= lengthMs) low = middle + 1;
      else high = middle;
    }
    return widestSoFar[low - 1] ?? 0;
  };
}
