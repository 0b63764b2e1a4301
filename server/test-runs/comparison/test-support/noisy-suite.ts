import type { RunResults } from "../../run-results.ts";
import { type SampleResult, sampleRun } from "./sample-runs.ts";

/** Numbers from 0 to 1 that are the same for the same seed. Mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

export interface NoisyTest {
  readonly name: string;
  readonly file: string;
  /** Its duration on a quiet machine. */
  readonly ms: number;
}

/**
 * A suite as they are: half of the tests take less than 2 ms, one in a hundred more than 65 ms, a few take seconds.
 */
export function noisySuite(tests: number, random: () => number): NoisyTest[] {
  return Array.from({ length: tests }, (_, index) => ({
    name: `case ${index} does what it should`,
    file: `folder-${index % 40}/part-${index % 160}.test.ts`,
    ms: Math.min(5_000, 2 * Math.exp(1.5 * normal(random))),
  }));
}

/**
 * One run of the suite on a machine with moods: a factor for the whole run, a drift while it lasts, log-normal noise of
 * each test, now and then a pause of the runtime, and clocks that tick in microseconds.
 */
export function noisyRun(
  suite: readonly NoisyTest[],
  random: () => number,
  change: (test: SampleResult, index: number) => SampleResult | undefined = (test) => test,
  machine: number = Math.exp(0.05 * normal(random)),
): RunResults {
  const drift = 0.1 * (random() - 0.5);
  const results = suite.flatMap(({ name, file, ms }, index): SampleResult[] => {
    const mood = machine * (1 + (drift * index) / suite.length);
    const noise = Math.exp(0.06 * normal(random));
    const pause = random() < 0.02 ? Math.min(15, (1 - random()) ** (-1 / 1.5) - 1) : 0;
    const measured = ms * mood * noise + pause;
    const changed = change({ name, file, ms: Math.round(measured * 1_000) / 1_000 }, index);
    return changed === undefined ? [] : [changed];
  });
  return sampleRun(results);
}
