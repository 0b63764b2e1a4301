import type { MessageInitShape } from "@bufbuild/protobuf";
import { Confidence, type VerdictSchema } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { type AlignedTest, knownDurations, type Observations } from "./aligned-test.ts";
import { durationText } from "./duration-text.ts";
import type { MachineSpeed } from "./machine-speed.ts";
import { type Gap, noiseBound } from "./noise-bound.ts";
import { benjaminiHochberg } from "./statistics/benjamini-hochberg.ts";
import { mannWhitney } from "./statistics/mann-whitney.ts";
import { median, robustDeviation } from "./statistics/quantile.ts";

/** Without statistics, what must be exceeded both in proportion and in time. */
const THRESHOLD_RATIO = 1.2;
const THRESHOLD_MS = 20;
/**
 * By how much a difference may be measured too small: many runners tell whole milliseconds, and a timer may fire up to
 * one early. What takes 20 ms more must not be missed for that.
 */
const RESOLUTION_MS = 1;
/** With statistics, what is worth telling. */
const RELEVANT_RATIO = 1.05;
const RELEVANT_MS = 5;
/** Runs on each side from which on statistics are used. */
const MIN_STATISTICS = 6;
/** The share of findings that may be false. */
const FALSE_DISCOVERY_RATE = 0.05;
/** From here on Cliff's delta is called medium (Romano, Kromrey, Coraggio and Skowronek 2006). */
const MIN_EFFECT = 0.33;
/**
 * How many standard deviations of the tests' noise a change without statistics must exceed: among 200 normal values, one
 * in 80 comparisons has one beyond four.
 */
const NOISE_DEVIATIONS = 4;
/** Noise is told by at least so many tests that last so long. */
const NOISE_TESTS = 10;
const NOISE_TEST_MS = 20;
/** So much must remain of it to be listed. A timer takes no longer on a slow machine; a factor takes too much off. */
const MACHINE_SHARE = 0.5;
/** Whatever the noise of long tests, one that lasts twice as long is listed. */
const MAX_NOISE_RATIO = 2;
/**
 * With one or two runs on a side, how many times as wide as chance's a gap must be to be beyond the noise. With more,
 * chance would have to strike all of them at once: each takes another root (the square root for three, the cube root
 * for four).
 */
const NOISE_MARGIN = 10;
/** With one run on a side, how wide a gap must be at least: one pause of the machine makes all of it. */
const SINGLE_RUN_MS = 1_000;
/** From here on statistics are beyond doubt for a whole comparison, and not only in most of what they find. */
const CERTAIN = 0.01;

export type Direction = "slower" | "faster";

export interface DurationJudgement {
  readonly baseMs: number;
  readonly headMs: number;
  /** Undefined: nothing can be said to have changed. */
  readonly direction: Direction | undefined;
  /** Whether the change is more than what chance does in these runs. Without that it is told, and blamed on nobody. */
  readonly beyondNoise: boolean;
  readonly verdict: MessageInitShape<typeof VerdictSchema>;
}

/** The durations of a test as they were, and as they would have been on one machine. */
interface Sample {
  readonly index: number;
  readonly base: readonly number[];
  readonly head: readonly number[];
  readonly baseMs: number;
  readonly headMs: number;
  readonly evenBase: readonly number[];
  readonly evenHead: readonly number[];
  readonly evenBaseMs: number;
  readonly evenHeadMs: number;
}

/**
 * Which of these tests, all of which passed on both sides, became slower or faster. Whatever the rule, a change must show
 * both in the durations as they were and in those that have been divided by their run's common factor: neither a slow
 * machine nor a correction makes a finding.
 *
 * - `mann-whitney-bh`, from six runs a side: Mann and Whitney's test, corrected after Benjamini and Hochberg over all
 *   tests whose durations differ at all worth telling; an effect of at least 0.33, medians 5 % and 5 ms apart.
 * - `all-pairs-threshold`, from three runs in all: every run of head differs from every run of base in one direction, and
 *   the medians by 20 % and 20 ms.
 * - `two-run-threshold`, one run a side: 20 % and 20 ms.
 *
 * The rules without statistics also ask for more than four standard deviations of what long tests of these sides show as
 * noise, or twice the duration. What they find is a candidate: among thousands of tests on a busy machine a few are
 * always paused by 20 ms and more. It is beyond the noise when the sides are further apart than any other division of
 * the same runs, by a margin. Percentages are of the smaller duration, so that exchanging the sides exchanges slower and faster.
 */
export function judgeDurations(
  tests: readonly AlignedTest[],
  speed: MachineSpeed,
): readonly DurationJudgement[] {
  const samples = tests.map((test, index) => sampleOf(test, index, speed));
  const noiseRatio = Math.exp(NOISE_DEVIATIONS * noiseOf(samples));
  const isBeyondNoise = noiseTest(samples, speed, noiseRatio);
  const byStatistics = judgeByStatistics(samples, isBeyondNoise);
  return samples.map(
    (sample) => byStatistics.get(sample.index) ?? judgeByThreshold(sample, noiseRatio, isBeyondNoise),
  );
}

type NoiseTest = (sample: Sample) => boolean;

/** Whether what the thresholds call slower or faster is so by more than chance does here. */
function noiseTest(samples: readonly Sample[], speed: MachineSpeed, noiseRatio: number): NoiseTest {
  const even = ({ evenBase, evenHead }: Sample) => ({ base: evenBase, head: evenHead });
  const bound = noiseBound(samples.map(even), speed.baseFactors.length, speed.headFactors.length);
  return (sample) => {
    const { ms, noiseMs }: Gap = bound(even(sample));
    const runs = Math.min(sample.base.length, sample.head.length);
    const least = runs === 1 ? SINGLE_RUN_MS : THRESHOLD_MS - RESOLUTION_MS;
    const apart = ms >= least && ms > NOISE_MARGIN ** (1 / Math.max(1, runs - 1)) * noiseMs;
    return apart && beyondMachine(sample, Math.max(THRESHOLD_RATIO, noiseRatio), least) !== undefined;
  };
}

function sampleOf({ base, head }: AlignedTest, index: number, speed: MachineSpeed): Sample {
  const before = knownDurations(base);
  const after = knownDurations(head);
  const evenBase = evenDurations(base, speed.baseFactors);
  const evenHead = evenDurations(head, speed.headFactors);
  return {
    index,
    base: before,
    head: after,
    baseMs: median(before),
    headMs: median(after),
    evenBase,
    evenHead,
    evenBaseMs: median(evenBase),
    evenHeadMs: median(evenHead),
  };
}

function evenDurations(side: Observations, factors: readonly number[]): number[] {
  return side.durations.flatMap((ms, run) => (ms === undefined ? [] : [ms / (factors[run] ?? 1)]));
}

/** The deviation of the logarithm of head divided by base among tests that are long enough to show it. */
function noiseOf(samples: readonly Sample[]): number {
  const logs = samples
    .filter(({ evenBaseMs, evenHeadMs }) => Math.min(evenBaseMs, evenHeadMs) >= NOISE_TEST_MS)
    .map(({ evenBaseMs, evenHeadMs }) => Math.log(evenHeadMs / evenBaseMs));
  return logs.length < NOISE_TESTS ? 0 : robustDeviation(logs);
}

/** Where one is above the other by both a ratio and a time. */
function beyond(base: number, head: number, ratio: number, ms: number): Direction | undefined {
  if (Math.abs(head - base) < ms || Math.max(base, head) < ratio * Math.min(base, head)) {
    return undefined;
  }
  return head > base ? "slower" : "faster";
}

/**
 * The same for what remains once the machine's part is taken off: the longer side as it was, against what the shorter one
 * would have been on the machine of the longer.
 */
function beyondMachine(sample: Sample, ratio: number, ms: number): Direction | undefined {
  const { baseMs, headMs, evenBaseMs, evenHeadMs } = sample;
  return evenHeadMs > evenBaseMs
    ? beyond(headMs * (evenBaseMs / evenHeadMs), headMs, ratio, ms)
    : beyond(baseMs, baseMs * (evenHeadMs / evenBaseMs), ratio, ms);
}

function agreed(first: Direction | undefined, second: Direction | undefined): Direction | undefined {
  return first === second ? first : undefined;
}

/** Judgements of the tests that have enough runs, by their index; without those that a plain threshold may still find. */
function judgeByStatistics(
  samples: readonly Sample[],
  isBeyondNoise: NoiseTest,
): Map<number, DurationJudgement> {
  const enough = samples.filter(
    ({ base, head }) => Math.min(base.length, head.length) >= MIN_STATISTICS && mayDiffer(base, head),
  );
  const results = enough.map(({ evenBase, evenHead }) => mannWhitney(evenBase, evenHead));
  const corrected = benjaminiHochberg(results.map(({ p }) => p));
  const found = new Map<number, DurationJudgement>();
  enough.forEach((sample, place) => {
    const effect = results[place]?.effect ?? 0;
    const pValue = corrected[place] ?? 1;
    const direction = agreed(
      beyond(sample.baseMs, sample.headMs, RELEVANT_RATIO, RELEVANT_MS),
      beyondMachine(sample, RELEVANT_RATIO, RELEVANT_MS),
    );
    if (pValue > FALSE_DISCOVERY_RATE || Math.abs(effect) < MIN_EFFECT || direction === undefined) {
      return;
    }
    found.set(sample.index, {
      baseMs: sample.baseMs,
      headMs: sample.headMs,
      direction,
      beyondNoise: pValue <= CERTAIN || isBeyondNoise(sample),
      verdict: {
        rule: "mann-whitney-bh",
        baseN: sample.base.length,
        headN: sample.head.length,
        pValue,
        effect,
        confidence: Confidence.HIGH,
        explanation: `${change(sample)} over ${sample.base.length} and ${sample.head.length} runs: chance would show this with p = ${probability(pValue)}, corrected for ${enough.length} tests; effect ${effect.toFixed(2)}`,
      },
    });
  });
  return found;
}

/**
 * Whether the durations could differ between sides by what is worth telling. Asks only how far the upper half of all of
 * them lies above the lower half, not which side they are of: leaving out the others leaves probabilities as they are
 * (Bourgon, Gentleman and Huber 2010) and makes the correction for many tests milder.
 */
function mayDiffer(base: readonly number[], head: readonly number[]): boolean {
  const all = [...base, ...head].sort((a, b) => a - b);
  const half = Math.floor(all.length / 2);
  const low = median(all.slice(0, half));
  const high = median(all.slice(-half));
  return beyond(low, high, RELEVANT_RATIO, RELEVANT_MS) !== undefined;
}

function judgeByThreshold(sample: Sample, noiseRatio: number, isBeyondNoise: NoiseTest): DurationJudgement {
  const { base, head, baseMs, headMs } = sample;
  const single = base.length === 1 && head.length === 1;
  const verdict = {
    rule: single ? "two-run-threshold" : "all-pairs-threshold",
    baseN: base.length,
    headN: head.length,
  };
  if (base.length === 0 || head.length === 0) {
    const explanation = "no duration is known on one side";
    const insufficient = { ...verdict, confidence: Confidence.INSUFFICIENT_DATA, explanation };
    return { baseMs, headMs, direction: undefined, beyondNoise: false, verdict: insufficient };
  }
  const ratio = Math.max(THRESHOLD_RATIO, Math.min(noiseRatio, MAX_NOISE_RATIO));
  const least = THRESHOLD_MS - RESOLUTION_MS;
  const candidate = agreed(
    beyond(baseMs, headMs, THRESHOLD_RATIO, least),
    beyondMachine(sample, ratio, MACHINE_SHARE * least),
  );
  const apart = agreed(separation(base, head), separation(sample.evenBase, sample.evenHead));
  const several = Math.min(base.length, head.length) >= 2;
  const direction = agreed(candidate, apart);
  const beyondNoise = direction !== undefined && isBeyondNoise(sample);
  const noise = beyondNoise ? "more than chance does in these runs" : "chance may do as much in these runs";
  return {
    baseMs,
    headMs,
    direction,
    beyondNoise,
    verdict: {
      ...verdict,
      confidence: several ? Confidence.MEDIUM : Confidence.LOW,
      explanation: single
        ? `${change(sample)} in the only run of each side, at least 20 % and 20 ms; ${noise}`
        : `${change(sample)}, at least 20 % and 20 ms, in each of ${base.length} × ${head.length} pairs of runs; ${noise}`,
    },
  };
}

/** Whether all durations of one side are above all of the other. */
function separation(base: readonly number[], head: readonly number[]): Direction | undefined {
  if (Math.min(...head) > Math.max(...base)) {
    return "slower";
  }
  return Math.max(...head) < Math.min(...base) ? "faster" : undefined;
}

function change({ baseMs, headMs }: Sample): string {
  return `${durationText(baseMs)} → ${durationText(headMs)}`;
}

function probability(p: number): string {
  return p < 0.001 ? p.toExponential(1) : p.toFixed(3);
}
