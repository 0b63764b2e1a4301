import { create } from "@bufbuild/protobuf";
import {
  Confidence,
  PerformanceTrend,
  QualityTrend,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunSchema } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { changePoints } from "./change-points.ts";
import { flakinessOf } from "./flakiness.ts";
import type { Observation } from "./observation.ts";
import { projectHistory } from "./project-history.ts";
import { mannKendall, projectTrend } from "./trend.ts";

/** Letters for what happened, the oldest first: `P`assed, `F`ailed, `S`kipped, `R`etried and passed, `X` excluded failure. */
function observe(
  letters: string,
  facts: Partial<Observation> = {},
  commitOf = (index: number) => `c${index}`,
) {
  const statuses: Record<string, TestStatus> = { P: 1, F: 2, S: 3, R: 1, X: 2 };
  return [...letters].map(
    (letter, index): Observation => ({
      runId: `run-${index}`,
      timeMs: index,
      commit: commitOf(index),
      dirty: false,
      branch: "main",
      environment: "ci",
      status: statuses[letter] ?? TestStatus.NOT_RUN,
      durationMs: 1,
      attempts: letter === "R" ? 2 : 1,
      excluded: letter === "X",
      ...facts,
    }),
  );
}

describe("flakinessOf", () => {
  it("ranks flips on one commit above retries, and retries above alternation, whatever the numbers", () => {
    const one = flakinessOf(observe(`${"P".repeat(49)}F`, {}, (index) => `c${index >> 1}`));
    const retries = flakinessOf(observe("R".repeat(50)));
    const fewRetries = flakinessOf(observe(`R${"P".repeat(99)}`));
    const alternates = flakinessOf(observe("PF".repeat(25)));
    const steady = flakinessOf(observe("P".repeat(50)));
    const scores = [one, retries, fewRetries, alternates, steady].map(({ score }) => score ?? -1);
    expect(scores).toEqual(scores.toSorted((a, b) => b - a));
    expect(steady).toMatchObject({ score: 0, flaky: false, confidence: Confidence.HIGH, evidence: [] });
    expect(one.evidence[0]).toMatchObject({ kind: "same-commit-flip", count: 1, opportunities: 25 });
    expect(one.evidence[0]?.runIds).toEqual(["run-49", "run-48"]);
    expect(one.evidence[0]?.explanation).toBe(
      "passed and failed on the same commit: 1 of 25 commits that ran more than once",
    );
    expect(retries.evidence[0]).toMatchObject({ kind: "retry-pass", count: 50, opportunities: 50 });
    expect(retries.evidence[0]?.runIds).toHaveLength(10);
  });

  it("takes one breakage and its repair for what they are", () => {
    expect(flakinessOf(observe("PPPPPPFFFFPPPPPP"))).toMatchObject({ score: 0, flaky: false });
    expect(flakinessOf(observe("PPFPPPFPPPFPPPFP"))).toMatchObject({
      flaky: true,
      evidence: [{ kind: "flip-rate", count: 6, opportunities: 15 }],
    });
  });

  it("keeps excluded runs, and runs in which the test did not run, out", () => {
    expect(flakinessOf(observe("PXPXPXPXPXPX"))).toMatchObject({ score: 0, flaky: false });
    expect(flakinessOf(observe("PSPSPSPSPS"))).toMatchObject({ score: 0 });
  });

  it("holds nothing against a test that a changed working tree, or another environment, may have broken", () => {
    const sameCommit = () => "c";
    expect(flakinessOf(observe("PPPPPF", { dirty: true }, sameCommit)).evidence).toEqual([]);
    const elsewhere = [
      ...observe("PPPPPP", {}, sameCommit),
      ...observe("FFFFFF", { environment: "windows" }, sameCommit),
    ];
    expect(flakinessOf(elsewhere)).toMatchObject({ score: 0, evidence: [] });
  });

  it("says nothing with too few runs, unless one of them is proof", () => {
    expect(flakinessOf(observe("PFP")).score).toBeUndefined();
    expect(flakinessOf(observe("PFP")).confidence).toBe(Confidence.INSUFFICIENT_DATA);
    expect(flakinessOf(observe("PF", {}, () => "c"))).toMatchObject({
      flaky: true,
      confidence: Confidence.MEDIUM,
    });
    expect(flakinessOf([])).toMatchObject({ flaky: false, confidence: Confidence.INSUFFICIENT_DATA });
  });

  it("stays from 0 to 1, and does not mind the order", () => {
    const letters = fc.array(fc.constantFrom("P", "F", "S", "R", "X"), { maxLength: 40 });
    fc.assert(
      fc.property(letters, fc.integer({ min: 1, max: 5 }), (list, runsPerCommit) => {
        const observations = observe(list.join(""), {}, (index) => `c${Math.floor(index / runsPerCommit)}`);
        const { score, evidence } = flakinessOf(observations);
        expect(score ?? 0).toBeGreaterThanOrEqual(0);
        expect(score ?? 0).toBeLessThanOrEqual(1);
        expect(flakinessOf(observations.toReversed()).score).toBe(score);
        for (const { count, opportunities } of evidence) {
          expect(count).toBeLessThanOrEqual(opportunities);
        }
      }),
    );
  });
});

/** Numbers around a level, always the same. */
function level(ms: number, length: number, spread = 0.05): number[] {
  return Array.from({ length }, (_, index) => ms * (1 + spread * Math.sin(index * 12.9898) ** 3));
}

describe("changePoints", () => {
  it("finds where durations changed for good", () => {
    const [change, ...more] = changePoints([...level(100, 30), ...level(150, 12)]);
    expect(more).toEqual([]);
    expect(change).toMatchObject({ index: 30, beforeRuns: 30, afterRuns: 12, effect: 1 });
    expect(change?.beforeMs).toBeCloseTo(100, 0);
    expect(change?.afterMs).toBeCloseTo(150, 0);
    expect(change?.pValue).toBeLessThan(0.001);
  });

  it("finds several, up and down", () => {
    const found = changePoints([...level(50, 20), ...level(200, 15), ...level(80, 25)]);
    expect(found.map(({ index }) => index)).toEqual([20, 35]);
  });

  it("finds a change five runs after it happened", () => {
    expect(changePoints([...level(10, 40), ...level(60, 5)]).map(({ index }) => index)).toEqual([40]);
    expect(changePoints([...level(10, 40), ...level(60, 4)])).toEqual([]);
  });

  it("tells neither of noise, nor of single slow runs, nor of what is too small", () => {
    expect(changePoints(level(100, 200, 0.3))).toEqual([]);
    expect(changePoints(level(100, 60).map((ms, index) => (index % 9 === 0 ? ms * 10 : ms)))).toEqual([]);
    expect(changePoints([...level(10, 30), ...level(20, 30)])).toEqual([]);
    expect(changePoints([...level(1_000, 30), ...level(1_150, 30)])).toEqual([]);
    expect(changePoints([])).toEqual([]);
    expect(changePoints(Array.from({ length: 50 }, () => 7))).toEqual([]);
  });

  it("finds nothing in shuffled durations, nearly always", () => {
    const found = fc
      .sample(fc.array(fc.double({ min: 10, max: 1_000, noNaN: true }), { minLength: 60, maxLength: 60 }), {
        numRuns: 300,
        seed: 7,
      })
      .filter((durations) => changePoints(durations).length > 0);
    expect(found.length).toBeLessThanOrEqual(6);
  });

  it("is quick for a thousand runs that change a hundred times", () => {
    const durations = Array.from({ length: 100 }, (_, index) =>
      level(index % 2 === 0 ? 100 : 200, 10),
    ).flat();
    expect(changePoints(durations).length).toBeGreaterThanOrEqual(0);
  });
});

describe("mannKendall", () => {
  // Computed with SciPy 1.17: stats.kendalltau for tau, stats.norm.sf of the corrected z for p.
  it("agrees with independent computation, ties included", () => {
    expect(mannKendall([1.2, 1.5, 1.1, 1.9, 2.3, 2.1, 2.8, 2.6, 3, 3.4])).toEqual({
      tau: expect.closeTo(0.8222222222222221, 12),
      p: expect.closeTo(0.0012821837418053048, 12),
    });
    expect(mannKendall([1, 1, 0.9, 1, 0.8, 0.8, 1, 0.7, 0.7, 0.8]).p).toBeCloseTo(0.037351149548133296, 12);
    expect(mannKendall([1, 1, 1])).toEqual({ tau: 0, p: 1 });
    expect(mannKendall([])).toEqual({ tau: 0, p: 1 });
  });
});

describe("projectTrend", () => {
  const runs = (length: number, rate: (index: number) => number, ms: (index: number) => number) =>
    Array.from({ length }, (_, index) => ({
      passRate: rate(index),
      testTimeMs: ms(index) * 100,
      tests: 100,
    }));

  it("tells where quality and durations go", () => {
    expect(
      projectTrend(
        runs(
          20,
          (index) => (index < 12 ? 1 : 0.95),
          (index) => 10 + index,
        ),
      ),
    ).toMatchObject({
      quality: QualityTrend.DECLINING,
      performance: PerformanceTrend.SLOWER,
      verdicts: [{ rule: "mann-kendall", baseN: 20 }, { rule: "mann-kendall" }],
    });
    expect(
      projectTrend(
        runs(
          20,
          (index) => (index < 12 ? 0.9 : 1),
          (index) => 30 - index,
        ),
      ),
    ).toMatchObject({
      quality: QualityTrend.IMPROVING,
      performance: PerformanceTrend.FASTER,
    });
  });

  it("is stable where nothing worth telling happens", () => {
    const noise = level(10, 50);
    expect(
      projectTrend(
        runs(
          50,
          () => 1,
          (index) => noise[index] ?? 10,
        ),
      ),
    ).toMatchObject({
      quality: QualityTrend.STABLE,
      performance: PerformanceTrend.STABLE,
    });
  });

  it("says nothing of few runs", () => {
    expect(
      projectTrend(
        runs(
          7,
          () => 1,
          () => 1,
        ),
      ),
    ).toMatchObject({
      quality: QualityTrend.UNSPECIFIED,
      performance: PerformanceTrend.UNSPECIFIED,
      verdicts: [{ confidence: Confidence.INSUFFICIENT_DATA }, { confidence: Confidence.INSUFFICIENT_DATA }],
    });
  });

  it("leaves out excluded runs and those of some tests only", () => {
    const history = projectHistory(
      "shop",
      Array.from({ length: 40 }, (_, index) => ({
        number: 40 - index,
        excluded: index % 4 === 0,
        run: create(TestRunSchema, {
          id: `run-${40 - index}`,
          counts: index % 2 === 0 ? { failed: 10 } : { passed: 100 },
          testTime: { seconds: index % 2 === 0 ? 500n : 1n },
          ...(index % 4 === 2 && { selection: { namePattern: "slow" } }),
        }),
      })),
      [],
    );
    expect(history.points).toHaveLength(40);
    expect(history).toMatchObject({
      quality: QualityTrend.STABLE,
      performance: PerformanceTrend.STABLE,
      changePoints: [],
    });
    expect(history.verdicts[0]?.baseN).toBe(20);
  });
});
