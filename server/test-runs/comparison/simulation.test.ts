import {
  Confidence,
  PerformanceTrend,
  QualityTrend,
  TestChangeKind,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { describe, expect, it } from "vitest";
import { compareRuns } from "./compare-runs.ts";
import { noisyRun, noisySuite, seededRandom } from "./test-support/noisy-suite.ts";
import type { SampleResult } from "./test-support/sample-runs.ts";

const TESTS = 2_646;
const TRIES = Array.from({ length: 20 }, (_, index) => index + 1);

function simulate(seed: number, runs: number, headMachine?: number) {
  const random = seededRandom(seed);
  const suite = noisySuite(TESTS, random);
  const side = (machine?: number) =>
    Array.from({ length: runs }, () => noisyRun(suite, random, undefined, machine));
  return { suite, random, base: side(), head: side(headMachine) };
}

describe("runs of identical code, with the noise of a real machine", () => {
  for (const runs of [1, 3, 6, 10]) {
    it(`show no regression in 20 of 20 comparisons of ${runs} and ${runs} runs`, () => {
      const found = TRIES.map((seed) => {
        const { base, head } = simulate(seed, runs);
        const { summary, changes } = compareRuns(base, head);
        const blamed = changes.filter(({ regression }) => regression);
        return { seed, summary, changes, blamed: blamed.map(({ verdict }) => verdict?.explanation) };
      });
      expect(found.filter(({ summary, blamed }) => summary?.regression || blamed.length > 0)).toEqual([]);
      // One run a side lists what may be chance; it is seldom anything.
      expect(found.filter(({ changes }) => changes.length > 0).length).toBeLessThanOrEqual(
        runs === 1 ? 2 : 0,
      );
      for (const { summary } of found) {
        expect(summary).toMatchObject({
          regression: false,
          improvement: false,
          quality: QualityTrend.STABLE,
          performance: PerformanceTrend.STABLE,
        });
      }
    });
  }

  it("show no regression when the machine of one side is slower, and name the machine", () => {
    for (const runs of [1, 6]) {
      for (const seed of TRIES.slice(0, 5)) {
        const { base, head } = simulate(seed, runs, 1.6);
        const { summary, changes, recommendations } = compareRuns(base, head);
        expect(summary).toMatchObject({ regression: false, performance: PerformanceTrend.UNSPECIFIED });
        expect(changes.length).toBeLessThanOrEqual(runs === 1 ? 2 : 0);
        const check = recommendations.find(({ kind }) => kind === "CHECK_ENVIRONMENT");
        expect(check?.evidence.join()).toMatch(/moved together, in the median by \+(5|6)\d %/);
      }
    }
  });
});

describe("changes in the noise", () => {
  for (const runs of [1, 3, 6, 10]) {
    it(`are each found and named in ${runs} and ${runs} runs, and nothing else`, () => {
      // One run may hide up to 15 ms in a pause of the runtime; six runs do not.
      const slowdownMs = runs < 6 ? 36 : 21;
      for (const seed of TRIES.slice(0, 5)) {
        const random = seededRandom(seed);
        const suite = noisySuite(TESTS, random).map((test, index) =>
          index < 10 ? { ...test, ms: 1 + index } : test,
        );
        const inBase = (test: SampleResult, index: number) =>
          index === 0 ? undefined : index === 3 ? { ...test, status: TestStatus.FAILED } : test;
        const inHead = (test: SampleResult, index: number) => {
          switch (index) {
            case 1:
              return undefined;
            case 2:
              return { ...test, status: TestStatus.FAILED, message: "expected 1 to be 2" };
            case 4:
            case 5:
              return { ...test, ms: (test.ms ?? 0) + slowdownMs };
            case 6:
              return { ...test, name: test.name.replace("does what it should", "does what it must") };
            default:
              return test;
          }
        };
        const base = Array.from({ length: runs }, () => noisyRun(suite, random, inBase));
        const head = Array.from({ length: runs }, () => noisyRun(suite, random, inHead));
        const { changes, summary, proposedRenames } = compareRuns(base, head);
        const named = (kind: TestChangeKind) =>
          changes.filter((change) => change.kind === kind).map(({ test }) => test?.name);
        expect(named(TestChangeKind.NEWLY_FAILING)).toEqual(["case 2 does what it should"]);
        expect(named(TestChangeKind.SLOWER).sort()).toEqual([
          "case 4 does what it should",
          "case 5 does what it should",
        ]);
        expect(named(TestChangeKind.FIXED)).toEqual(["case 3 does what it should"]);
        expect(named(TestChangeKind.ADDED).sort()).toEqual([
          "case 0 does what it should",
          "case 6 does what it must",
        ]);
        expect(named(TestChangeKind.REMOVED)).toEqual([
          "case 1 does what it should",
          "case 6 does what it should",
        ]);
        expect(changes).toHaveLength(8);
        expect(proposedRenames.map(({ from, to }) => [from?.name, to?.name])).toEqual([
          ["case 6 does what it should", "case 6 does what it must"],
        ]);
        expect(summary).toMatchObject({
          regression: true,
          unchanged: TESTS - 7,
          performance: PerformanceTrend.STABLE,
        });
        const confidence = runs === 1 ? Confidence.LOW : runs < 6 ? Confidence.MEDIUM : undefined;
        if (confidence !== undefined) {
          expect(changes.find(({ kind }) => kind === TestChangeKind.SLOWER)?.verdict?.confidence).toBe(
            confidence,
          );
        }
      }
    });
  }
});
