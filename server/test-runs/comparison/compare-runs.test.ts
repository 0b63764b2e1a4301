import {
  Confidence,
  TestChangeKind,
  type TestRunComparison,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason, TestRunState } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareRuns } from "./compare-runs.ts";
import { type SampleResult, sampleRun } from "./test-support/sample-runs.ts";

const { PASSED, FAILED, ERROR, SKIPPED, INTERRUPTED, NOT_RUN } = TestStatus;

/** One run of each side. */
function compare(base: readonly SampleResult[], head: readonly SampleResult[]): TestRunComparison {
  return compareRuns([sampleRun(base)], [sampleRun(head)]);
}

/** `kind name` of each change, in their order. */
function kinds({ changes }: TestRunComparison): string[] {
  return changes.map(({ kind, test }) => `${TestChangeKind[kind]} ${test?.name}`);
}

function reasons({ comparability }: TestRunComparison): string[] {
  return comparability?.issues.map(({ reason }) => reason) ?? [];
}

describe("transitions of one run a side", () => {
  // Enough tests that stay, so that the sides have something in common.
  const stays: SampleResult[] = [{ name: "stays" }];
  const cases: [TestStatus, TestStatus, string][] = [
    [PASSED, FAILED, "NEWLY_FAILING"],
    [PASSED, ERROR, "NEWLY_FAILING"],
    [TestStatus.EXPECTED_FAILURE, TestStatus.UNEXPECTED_PASS, "NEWLY_FAILING"],
    [FAILED, PASSED, "FIXED"],
    [FAILED, FAILED, "STILL_FAILING"],
    [FAILED, ERROR, "STATUS_CHANGED"],
    [PASSED, TestStatus.EXPECTED_FAILURE, "STATUS_CHANGED"],
    [SKIPPED, TestStatus.TODO, "STATUS_CHANGED"],
    [PASSED, SKIPPED, "NEWLY_SKIPPED"],
    [FAILED, TestStatus.TODO, "NEWLY_SKIPPED"],
    [SKIPPED, PASSED, "NO_LONGER_SKIPPED"],
    [SKIPPED, FAILED, "NO_LONGER_SKIPPED"],
    [PASSED, INTERRUPTED, "LOST"],
    [FAILED, NOT_RUN, "LOST"],
    [NOT_RUN, PASSED, "STATUS_CHANGED"],
    [TestStatus.UNSPECIFIED, PASSED, "ADDED"],
    [TestStatus.UNSPECIFIED, SKIPPED, "ADDED"],
    [TestStatus.UNSPECIFIED, FAILED, "ADDED_FAILING"],
    [TestStatus.UNSPECIFIED, NOT_RUN, "LOST"],
    [PASSED, TestStatus.UNSPECIFIED, "REMOVED"],
    [FAILED, TestStatus.UNSPECIFIED, "REMOVED"],
  ];
  for (const [from, to, kind] of cases) {
    it(`from ${TestStatus[from]} to ${TestStatus[to]} are ${kind}`, () => {
      const side = (status: TestStatus) =>
        status === TestStatus.UNSPECIFIED ? stays : [...stays, { name: "it", status }];
      const comparison = compare(side(from), side(to));
      expect(kinds(comparison)).toEqual([`${kind} it`]);
      expect(comparison.changes[0]).toMatchObject({ baseStatus: from, headStatus: to });
      expect(comparison.transitions).toContainEqual(expect.objectContaining({ from, to, count: 1 }));
    });
  }

  it("that change nothing are counted, not told", () => {
    const comparison = compare(
      [{ name: "a" }, { name: "b", status: SKIPPED }],
      [{ name: "a" }, { name: "b", status: SKIPPED }],
    );
    expect(comparison.changes).toEqual([]);
    expect(comparison.summary).toMatchObject({
      unchanged: 2,
      regression: false,
      headline: "Nothing differs between 2 tests.",
    });
  });
});

describe("several runs a side", () => {
  const runs = (...statuses: TestStatus[]) =>
    statuses.map((status) => sampleRun([{ name: "stays" }, { name: "it", status }]));

  it("call a test broken only when all of base passed and all of head failed", () => {
    const broken = compareRuns(runs(PASSED, PASSED), runs(FAILED, ERROR, ERROR));
    expect(kinds(broken)).toEqual(["NEWLY_FAILING it"]);
    expect(broken.changes[0]).toMatchObject({
      regression: true,
      headStatus: ERROR,
      verdict: {
        rule: "status-transition",
        baseN: 2,
        headN: 3,
        confidence: Confidence.MEDIUM,
        explanation: "passed in 2 of 2 runs → error in 2 of 3 runs",
      },
    });
    for (const [base, head] of [
      [runs(PASSED, FAILED), runs(FAILED, FAILED)],
      [runs(PASSED, PASSED), runs(FAILED, PASSED)],
    ] as const) {
      const unstable = compareRuns(base, head);
      expect(kinds(unstable)).toEqual(["UNSTABLE it"]);
      expect(unstable.summary).toMatchObject({ regression: false, unstable: 1, newlyFailing: 0 });
    }
  });

  it("are sure of what six runs a side agree on", () => {
    const all = (status: TestStatus) => runs(...Array.from({ length: 6 }, () => status));
    expect(compareRuns(all(PASSED), all(FAILED)).changes[0]?.verdict?.confidence).toBe(Confidence.HIGH);
    expect(compareRuns(runs(PASSED), runs(FAILED)).changes[0]?.verdict?.confidence).toBe(Confidence.LOW);
  });

  it("take the most frequent status, and of two the more serious", () => {
    const comparison = compareRuns(runs(PASSED, SKIPPED), runs(PASSED, PASSED, SKIPPED));
    expect(comparison.changes[0]).toMatchObject({ baseStatus: SKIPPED, headStatus: PASSED });
  });
});

describe("passes that needed retries", () => {
  it("are unstable, and neither broken nor fixed", () => {
    const comparison = compare(
      [{ name: "a" }, { name: "b", attempts: 3 }],
      [
        { name: "a", attempts: 2, message: "timed out" },
        { name: "b", status: FAILED },
      ],
    );
    expect(kinds(comparison)).toEqual(["NEWLY_FAILING b", "UNSTABLE a"]);
    expect(comparison.changes[1]?.verdict?.explanation).toBe(
      "base: passed; head: passed (after retries in 1 run)",
    );
  });
});

describe("what counts as a regression", () => {
  it("is a test that vanished while others of its file stay, unless it may have been renamed", () => {
    const file = { file: "one.test.ts" };
    const stays = Array.from({ length: 5 }, (_, index) => ({ name: `stays ${index}`, ...file }));
    const gone = compare(
      [...stays, { name: "reads the file", ...file }, { name: "whole file", file: "two.test.ts" }],
      stays,
    );
    expect(gone.changes.map(({ test, regression }) => [test?.name, regression])).toEqual([
      ["reads the file", true],
      ["whole file", false],
    ]);
    const renamed = compare(
      [...stays, { name: "reads the file", ...file }],
      [...stays, { name: "reads the file twice", ...file }],
    );
    expect(renamed.summary?.regression).toBe(false);
    expect(renamed.proposedRenames).toMatchObject([
      { from: { name: "reads the file" }, to: { name: "reads the file twice" } },
    ]);
    expect(renamed.recommendations.map(({ kind }) => kind)).toContain("CONFIRM_RENAMES");
  });

  it("is the test that was running when the runner crashed, not those that never began", () => {
    const base = sampleRun([{ name: "a" }, { name: "b" }, { name: "c" }]);
    const results = [{ name: "a" }, { name: "b", status: INTERRUPTED }, { name: "c", status: NOT_RUN }];
    const ended = (reason: TestRunEndReason) =>
      sampleRun(results, { state: TestRunState.ERROR, end: { state: TestRunState.ERROR, reason } });
    const crashed = compareRuns([base], [ended(TestRunEndReason.CRASHED)]);
    expect(crashed.changes.map(({ test, regression }) => [test?.name, regression])).toEqual([
      ["b", true],
      ["c", false],
    ]);
    expect(reasons(crashed)).toEqual(["RUN_INCOMPLETE"]);
    expect(crashed.recommendations[0]).toMatchObject({ kind: "CHECK_LOST_TESTS" });
    expect(compareRuns([base], [ended(TestRunEndReason.SERVER_LOST)]).summary?.regression).toBe(false);
  });

  it("is nothing that differs between runs of the same commit in the same place", () => {
    const context = { commit: "0123abcd", runtime: "node 24" };
    const base = sampleRun([{ name: "a" }, { name: "b", ms: 10 }], { context });
    const results = [
      { name: "a", status: FAILED },
      { name: "b", ms: 200 },
    ];
    const same = compareRuns([base], [sampleRun(results, { context })]);
    expect(kinds(same)).toEqual(["SLOWER b", "UNSTABLE a"]);
    expect(same.summary?.regression).toBe(false);
    expect(reasons(same)).toEqual(["SAME_COMMIT"]);
    for (const other of [
      { ...context, dirty: true },
      { ...context, runtime: "node 26" },
    ]) {
      const differs = compareRuns([base], [sampleRun(results, { context: other })]);
      expect(kinds(differs)[0]).toBe("NEWLY_FAILING a");
      expect(differs.summary?.regression).toBe(true);
    }
  });
});

describe("durations of one run a side", () => {
  it("need both 20 % and 20 ms, in both directions", () => {
    const change = (base: number, head: number) =>
      kinds(compare([{ name: "a", ms: base }], [{ name: "a", ms: head }]));
    expect(change(10, 30)).toEqual(["SLOWER a"]);
    expect(change(30, 10)).toEqual(["FASTER a"]);
    // What takes 20 ms more may be measured as a millisecond less.
    expect(change(10, 29)).toEqual(["SLOWER a"]);
    expect(change(10, 28.9)).toEqual([]);
    expect(change(1_000, 1_190)).toEqual([]);
    expect(change(1_000, 1_200)).toEqual(["SLOWER a"]);
    expect(change(0, 20)).toEqual(["SLOWER a"]);
  });

  it("say what they rest on", () => {
    const { changes, summary, recommendations } = compare([{ name: "a", ms: 10 }], [{ name: "a", ms: 32.5 }]);
    expect(changes[0]).toMatchObject({
      regression: false,
      verdict: { rule: "two-run-threshold", baseN: 1, headN: 1, confidence: Confidence.LOW },
      duration: {
        base: { nanos: 10_000_000 },
        head: { nanos: 32_500_000 },
        delta: { nanos: 22_500_000 },
        deltaPercent: 225,
      },
    });
    expect(summary).toMatchObject({ slower: 1, durationDeltaPercent: 225 });
    expect(recommendations.map(({ kind }) => kind)).toEqual(["RERUN_TO_CONFIRM", "COLLECT_MORE_RUNS"]);
    expect(summary?.headline).toBe("Of 1 test: 1 may be slower.");
    for (const { evidence, rerun } of recommendations) {
      expect(evidence.length).toBeGreaterThan(0);
      expect(rerun?.testIds).toEqual([changes[0]?.testId]);
    }
  });

  it("are a regression where a second more is ten times what became faster", () => {
    const others = (ms: number) => ({ name: "b", ms });
    const a = (ms: number) => ({ name: "a", ms });
    const regression = (base: number, head: number, noiseMs: number) =>
      compare([a(base), others(10 + noiseMs)], [a(head), others(10)]).summary?.regression;
    expect(regression(10, 1_200, 100)).toBe(true);
    expect(regression(10, 1_200, 130)).toBe(false);
    expect(regression(10, 900, 0)).toBe(false);
    expect(compare([a(10)], [a(3_000)]).recommendations.map(({ kind }) => kind)).toContain(
      "INVESTIGATE_SLOWDOWN",
    );
  });

  it("below zero are whole messages", () => {
    const { summary } = compare([{ name: "a", ms: 2_500 }], [{ name: "a", ms: 1_000 }]);
    expect(summary?.durationDelta).toMatchObject({ seconds: -1n, nanos: -500_000_000 });
  });

  it("say nothing about tests that did not pass on both sides, or of unknown duration", () => {
    const comparison = compare(
      [{ name: "a", status: FAILED, ms: 1 }, { name: "b", ms: undefined }, { name: "c" }],
      [{ name: "a", status: FAILED, ms: 900 }, { name: "b", ms: 500 }, { name: "c" }],
    );
    expect(comparison.summary).toMatchObject({ slower: 0 });
    expect(comparison.summary?.durationDelta).toMatchObject({ seconds: 0n, nanos: 0 });
  });
});

describe("durations of several runs a side", () => {
  const runs = (...durations: number[]) => durations.map((ms) => sampleRun([{ name: "a", ms }]));

  it("must differ in every pair of runs", () => {
    expect(kinds(compareRuns(runs(10, 12), runs(40, 45)))).toEqual(["SLOWER a"]);
    expect(kinds(compareRuns(runs(10, 42), runs(40, 90)))).toEqual([]);
    const [change] = compareRuns(runs(10, 12, 11), runs(40)).changes;
    expect(change?.verdict).toMatchObject({ rule: "all-pairs-threshold", confidence: Confidence.LOW });
  });

  it("are judged by statistics from six runs a side on", () => {
    const base = runs(100, 101, 102, 99, 98, 103, 100, 101);
    const head = runs(110, 111, 112, 109, 108, 113, 110, 111);
    const [change] = compareRuns(base, head).changes;
    expect(change).toMatchObject({
      kind: TestChangeKind.SLOWER,
      verdict: { rule: "mann-whitney-bh", baseN: 8, headN: 8, effect: 1, confidence: Confidence.HIGH },
    });
    expect(change?.verdict?.pValue).toBeLessThan(0.001);
    // Significant, and not worth telling.
    expect(
      kinds(
        compareRuns(
          runs(100, 101, 102, 99, 98, 103, 100, 101),
          runs(104, 105, 106, 104, 103.5, 107, 104, 105),
        ),
      ),
    ).toEqual([]);
  });
});

describe("comparability", () => {
  const results = [{ name: "a" }, { name: "b" }];
  const broken = [{ name: "a" }, { name: "b", status: FAILED }];

  it("stops statements about regressions where sides have nothing to do with each other", () => {
    const blocked: [string, Parameters<typeof sampleRun>][] = [
      ["PROJECT_DIFFERS", [broken, { project: "other" }]],
      ["FRAMEWORK_DIFFERS", [broken, { framework: "jest" }]],
      ["RUN_IN_PROGRESS", [broken, { state: TestRunState.RUNNING }]],
      ["INFRASTRUCTURE_FAILURE", [broken, { end: { infrastructureFailure: true } }]],
      ["FEW_COMMON_TESTS", [[{ name: "x", status: FAILED }]]],
      ["NO_TESTS", [[]]],
    ];
    for (const [reason, run] of blocked) {
      const comparison = compareRuns([sampleRun(results)], [sampleRun(...run)]);
      expect(reasons(comparison)).toContain(reason);
      expect(comparison.comparability?.comparable).toBe(false);
      expect(comparison.summary).toMatchObject({
        regression: false,
        improvement: false,
        quality: 0,
        performance: 0,
      });
      expect(comparison.changes.every(({ regression }) => !regression)).toBe(true);
      expect(comparison.summary?.headline).toMatch(/^Cannot be compared: /);
      expect(comparison.recommendations.map(({ kind }) => kind)).toEqual(["CHECK_ENVIRONMENT"]);
    }
  });

  it("weakens statements where something besides the code differs", () => {
    const many = Array.from({ length: 2 }, () => sampleRun(results, { context: { platform: "linux/x64" } }));
    const weaker = Array.from({ length: 2 }, () =>
      sampleRun(broken, { context: { platform: "darwin/arm64" } }),
    );
    const comparison = compareRuns(many, weaker);
    expect(comparison.comparability?.issues).toMatchObject([
      {
        reason: "PLATFORM_DIFFERS",
        message: "the platform was linux/x64 in base and is darwin/arm64 in head",
        blocks: false,
        weakens: ["status", "duration"],
      },
    ]);
    expect(comparison.summary?.regression).toBe(true);
    expect(comparison.changes[0]?.verdict?.confidence).toBe(Confidence.LOW);
  });

  it("does not call tests missing that were not asked for", () => {
    const comparison = compareRuns(
      [sampleRun(results)],
      [sampleRun([{ name: "a" }], { selection: { namePattern: "a" } })],
    );
    expect(reasons(comparison)).toEqual(["SELECTION_DIFFERS"]);
    expect(kinds(comparison)).toEqual(["REMOVED b"]);
    expect(comparison.summary?.regression).toBe(false);
  });
});

describe("coverage", () => {
  it("is compared by file and line", () => {
    const base = sampleRun(
      [{ name: "a" }],
      {},
      {
        "a.ts": [
          [1, 1],
          [2, 3],
          [3, 1],
          [5, 1],
          [9, 0],
        ],
        "gone.ts": [[1, 1]],
      },
    );
    const head = sampleRun(
      [{ name: "a" }],
      {},
      {
        "a.ts": [
          [1, 1],
          [2, 0],
          [3, 0],
          [5, 0],
          [9, 2],
        ],
        "new.ts": [[1, 0]],
      },
    );
    const { coverage, recommendations } = compareRuns([base], [head]);
    expect(coverage).toMatchObject({
      base: { linesTotal: 6n, linesCovered: 5n, files: 2 },
      head: { linesTotal: 6n, linesCovered: 2n, files: 2 },
      lineDelta: expect.closeTo(-50, 9),
      files: [
        {
          file: "a.ts",
          basePercent: 80,
          headPercent: 40,
          lost: [
            { first: 2, last: 3 },
            { first: 5, last: 5 },
          ],
          gained: [{ first: 9, last: 9 }],
        },
        { file: "gone.ts", basePercent: 100, lost: [] },
        { file: "new.ts", headPercent: 0, gained: [] },
      ],
    });
    expect(coverage?.files[1]?.headPercent).toBeUndefined();
    expect(recommendations[0]).toMatchObject({
      kind: "COVER_LOST_LINES",
      evidence: ["a.ts: lines 2-3, 5 no longer run (80.0 % → 40.0 %)"],
    });
    expect(compareRuns([base], [sampleRun([{ name: "a" }])]).coverage).toBeUndefined();
  });
});

describe("changes", () => {
  it("begin with the most serious, are cut at a limit, and count on", () => {
    const base = sampleRun([
      { name: "z", ms: 1 },
      { name: "y" },
      { name: "x", status: FAILED },
      { name: "w" },
    ]);
    const head = sampleRun([
      { name: "z", ms: 50 },
      { name: "y", status: FAILED },
      { name: "x" },
      { name: "w" },
      { name: "v" },
    ]);
    expect(kinds(compareRuns([base], [head]))).toEqual(["NEWLY_FAILING y", "SLOWER z", "FIXED x", "ADDED v"]);
    const cut = compareRuns([base], [head], { maxChanges: 2 });
    expect(kinds(cut)).toEqual(["NEWLY_FAILING y", "SLOWER z"]);
    expect(cut).toMatchObject({ changesTruncated: true, summary: { fixed: 1, added: 1 } });
  });

  it("tell of a failure what fits", () => {
    const { changes } = compare(
      [{ name: "a" }],
      [{ name: "a", status: FAILED, message: "x".repeat(10_000) }],
    );
    expect(changes[0]?.failure?.message).toHaveLength(2_000);
  });
});

describe("any two sets of runs", () => {
  const status = fc.constantFrom(
    PASSED,
    PASSED,
    PASSED,
    FAILED,
    ERROR,
    SKIPPED,
    TestStatus.TODO,
    INTERRUPTED,
    NOT_RUN,
    TestStatus.EXPECTED_FAILURE,
    TestStatus.UNEXPECTED_PASS,
  );
  const result = fc.record({
    name: fc.integer({ min: 0, max: 12 }).map((index) => `test ${index}`),
    file: fc.constantFrom("a.test.ts", "b.test.ts"),
    status,
    ms: fc.option(fc.double({ min: 0, max: 500, noNaN: true }), { nil: undefined }),
    attempts: fc.constantFrom(1, 1, 1, 2),
  });
  const run = fc
    .uniqueArray(result, { selector: ({ name, file }) => `${file} ${name}`, maxLength: 20 })
    .map((results) => sampleRun(results));
  const side = fc.array(run, { minLength: 1, maxLength: 8 });

  it("account for every test once", () => {
    fc.assert(
      fc.property(side, side, (base, head) => {
        const comparison = compareRuns(base, head);
        const ids = (runs: typeof base) => runs.flatMap(({ results }) => results.map(({ testId }) => testId));
        const union = new Set([...ids(base), ...ids(head)]).size;
        expect(comparison.transitions.reduce((sum, { count }) => sum + count, 0)).toBe(union);
        expect(comparison.changes.length + (comparison.summary?.unchanged ?? 0)).toBe(union);
        expect(comparison.summary?.regression).toBe(comparison.changes.some(({ regression }) => regression));
        const of = (from: boolean) =>
          comparison.transitions
            .filter((each) => (from ? each.from : each.to) === TestStatus.UNSPECIFIED)
            .reduce((sum, { count }) => sum + count, 0);
        expect([of(true), of(false)]).toEqual([comparison.summary?.added, comparison.summary?.removed]);
      }),
    );
  });

  it("show nothing but what is unstable or fails, when they are the same", () => {
    fc.assert(
      fc.property(side, (runs) => {
        const comparison = compareRuns(runs, runs);
        const { summary, changes } = comparison;
        expect(summary).toMatchObject({ regression: false, improvement: false });
        const steady = [TestChangeKind.UNSTABLE, TestChangeKind.STILL_FAILING];
        expect(changes.filter(({ kind }) => !steady.includes(kind))).toEqual([]);
        expect(summary?.durationDelta).toMatchObject({ seconds: 0n, nanos: 0 });
      }),
    );
  });

  it("mirror each other when they change places", () => {
    const mirrored = new Map([
      [TestChangeKind.FIXED, TestChangeKind.NEWLY_FAILING],
      [TestChangeKind.SLOWER, TestChangeKind.FASTER],
      [TestChangeKind.UNSTABLE, TestChangeKind.UNSTABLE],
      [TestChangeKind.STILL_FAILING, TestChangeKind.STILL_FAILING],
    ]);
    fc.assert(
      fc.property(side, side, (base, head) => {
        const there = compareRuns(base, head);
        const back = compareRuns(head, base);
        for (const [kind, opposite] of mirrored) {
          const named = (comparison: TestRunComparison, wanted: TestChangeKind) =>
            comparison.changes
              .filter((change) => change.kind === wanted)
              .map(({ testId }) => testId)
              .sort();
          expect(named(there, kind)).toEqual(named(back, opposite));
          expect(named(there, opposite)).toEqual(named(back, kind));
        }
        expect(there.summary?.added).toBe(back.summary?.removed);
        expect(there.summary?.basePassRate).toBe(back.summary?.headPassRate);
        const turned = back.transitions.map(({ from, to, count }) => `${to} ${from} ${count}`);
        expect(there.transitions.map(({ from, to, count }) => `${from} ${to} ${count}`).sort()).toEqual(
          turned.sort(),
        );
      }),
    );
  });
});
