import { compareRuns } from "../server/test-runs/comparison/compare-runs.ts";
import {
  noisyRun,
  noisySuite,
  seededRandom,
} from "../server/test-runs/comparison/test-support/noisy-suite.ts";
import type { BenchRow } from "./row.ts";

const TESTS = 10_000;
const RUNS = 10;
const MAX_MS = 2_000;
const REPEATS = 5;
/** The number of tests of a known suite whose runs were compared before the rule had its second threshold. */
const IDENTICAL_TESTS = 2_646;
const TRIES = 20;

/** How long a comparison takes, and how often runs of identical code show a regression. */
export async function run(): Promise<BenchRow[]> {
  return [speed(), falseAlarms(1), falseAlarms(6)];
}

function speed(): BenchRow {
  const random = seededRandom(1);
  const suite = noisySuite(TESTS, random);
  const side = () => Array.from({ length: RUNS }, () => noisyRun(suite, random));
  const base = side();
  const head = side();
  const times = Array.from({ length: REPEATS }, () => {
    const begin = performance.now();
    compareRuns(base, head);
    return performance.now() - begin;
  });
  const worst = Math.max(...times);
  return {
    area: "comparison",
    what: `${TESTS.toLocaleString("en")} tests, ${RUNS} runs a side, slowest of ${REPEATS}`,
    ours: `${worst.toFixed(0)} ms`,
    peer: "–",
    peerName: "",
    ratio: "–",
    target: `≤ ${MAX_MS} ms`,
    pass: worst <= MAX_MS,
  };
}

/** Beside ours, what "20 % slower" alone calls a regression in the same runs. */
function falseAlarms(runs: number): BenchRow {
  let ours = 0;
  let naive = 0;
  for (let seed = 1; seed <= TRIES; seed++) {
    const random = seededRandom(seed);
    const suite = noisySuite(IDENTICAL_TESTS, random);
    const side = () => Array.from({ length: runs }, () => noisyRun(suite, random));
    const base = side();
    const head = side();
    ours += compareRuns(base, head).summary?.regression ? 1 : 0;
    naive += base[0] && head[0] && slowerByPercentage(base[0].results, head[0].results) > 0 ? 1 : 0;
  }
  return {
    area: "comparison",
    what: `comparisons of identical code with a regression, ${runs} ${runs === 1 ? "run" : "runs"} a side, of ${TRIES}`,
    ours: String(ours),
    peer: String(naive),
    peerName: "20 % alone",
    ratio: "–",
    target: "0",
    pass: ours === 0,
  };
}

type Timed = readonly { readonly durationMs: number | undefined }[];

function slowerByPercentage(base: Timed, head: Timed): number {
  return head.filter(
    ({ durationMs = 0 }, index) => durationMs > 1.2 * (base[index]?.durationMs ?? durationMs),
  ).length;
}
