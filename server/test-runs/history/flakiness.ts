import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Confidence } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import {
  type Flakiness,
  type FlakinessEvidenceSchema,
  FlakinessSchema,
} from "@toolplane/gen/toolplane/testing/v1/history_pb.js";
import { countText } from "../comparison/duration-text.ts";
import { counts, isGood, type Observation } from "./observation.ts";

/** Fewer runs say nothing, unless one of them is proof. */
const MIN_RUNS = 5;
/** From so many runs on, steadiness is believed. */
const MANY_RUNS = 20;
const FLAKY_SCORE = 0.05;
const MAX_RUN_IDS = 10;
/** A test that is broken once and repaired once changes twice; that is what tests are for. */
const HONEST_FLIPS = 2;

/**
 * Each kind of evidence has a third of the scale, so that the stronger kind outranks the weaker whatever their numbers:
 * the same code had both outcomes; a run saw both outcomes but was repeated until it passed; outcomes alternate, which
 * the code may have done.
 */
const bands = { "same-commit-flip": 2 / 3, "retry-pass": 1 / 3, "flip-rate": 0 } as const;
const BAND_WIDTH = 1 / 3;

type Kind = keyof typeof bands;

interface Evidence {
  readonly kind: Kind;
  readonly count: number;
  readonly opportunities: number;
  readonly runIds: readonly string[];
  readonly explanation: string;
}

/**
 * How flaky a test is. Runs that are excluded, and those in which it did not run, have no part in it; `observations` may
 * come in any order.
 */
export function flakinessOf(observations: readonly Observation[]): Flakiness {
  const ran = observations.filter(counts).sort((a, b) => a.timeMs - b.timeMs);
  const evidence = [sameCommitFlips(ran), retryPasses(ran), flips(ran)].filter(({ count }) => count > 0);
  const strongest = evidence[0];
  if (ran.length < MIN_RUNS && (strongest === undefined || strongest.kind === "flip-rate")) {
    return create(FlakinessSchema, {
      confidence: Confidence.INSUFFICIENT_DATA,
      evidence: evidence.map(toMessage),
    });
  }
  const score = strongest ? scoreOf(strongest) : 0;
  return create(FlakinessSchema, {
    score,
    flaky: score >= FLAKY_SCORE,
    confidence: confidenceOf(strongest, ran.length),
    evidence: evidence.map(toMessage),
  });
}

function scoreOf({ kind, count, opportunities }: Evidence): number {
  return bands[kind] + BAND_WIDTH * Math.min(1, count / Math.max(1, opportunities));
}

function confidenceOf(strongest: Evidence | undefined, runs: number): Confidence {
  switch (strongest?.kind) {
    case "same-commit-flip":
    case "retry-pass":
      return strongest.count >= 2 ? Confidence.HIGH : Confidence.MEDIUM;
    case "flip-rate":
      return runs >= MANY_RUNS ? Confidence.MEDIUM : Confidence.LOW;
    case undefined:
      return runs >= MANY_RUNS ? Confidence.HIGH : Confidence.MEDIUM;
  }
}

function toMessage(evidence: Evidence): MessageInitShape<typeof FlakinessEvidenceSchema> {
  return { ...evidence, runIds: evidence.runIds.slice(-MAX_RUN_IDS).reverse() };
}

/** Commits that were tested more than once in one environment without local changes, and had both outcomes. */
function sameCommitFlips(ran: readonly Observation[]): Evidence {
  const clean = ran.filter(({ commit, dirty }) => commit !== "" && !dirty);
  const repeated = [
    ...Map.groupBy(clean, ({ commit, environment }) => `${commit}\0${environment}`).values(),
  ].filter((group) => group.length > 1);
  const torn = repeated.filter((group) => new Set(group.map(({ status }) => isGood(status))).size > 1);
  return {
    kind: "same-commit-flip",
    count: torn.length,
    opportunities: repeated.length,
    runIds: torn.flat().map(({ runId }) => runId),
    explanation: `passed and failed on the same commit: ${torn.length} of ${countText(repeated.length, "commit")} that ran more than once`,
  };
}

function retryPasses(ran: readonly Observation[]): Evidence {
  const retried = ran.filter(({ status, attempts }) => attempts > 1 && isGood(status));
  return {
    kind: "retry-pass",
    count: retried.length,
    opportunities: ran.length,
    runIds: retried.map(({ runId }) => runId),
    explanation: `passed only after retries in ${retried.length} of ${countText(ran.length, "run")}`,
  };
}

/**
 * How often an outcome differs from the one before in the same environment and branch: the flip rate of Kowalczyk et al.,
 * Modeling and Ranking Flaky Tests at Apple, 2020; without the two flips of one breakage and its repair.
 */
function flips(ran: readonly Observation[]): Evidence {
  const lines = Map.groupBy(ran, ({ environment, branch }) => `${environment}\0${branch}`);
  const runIds: string[] = [];
  let count = 0;
  let opportunities = 0;
  for (const line of lines.values()) {
    const flipped = line.filter((observation, index) => {
      const before = line[index - 1];
      return before !== undefined && isGood(before.status) !== isGood(observation.status);
    });
    opportunities += line.length - 1;
    if (flipped.length > HONEST_FLIPS) {
      count += flipped.length - HONEST_FLIPS;
      runIds.push(...flipped.map(({ runId }) => runId));
    }
  }
  return {
    kind: "flip-rate",
    count,
    opportunities,
    runIds,
    explanation: `changed its outcome ${countText(count, "time")} more than one breakage and its repair do, in ${countText(opportunities, "pair")} of runs that follow each other`,
  };
}
