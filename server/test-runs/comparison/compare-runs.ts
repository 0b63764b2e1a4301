import { create } from "@bufbuild/protobuf";
import {
  Confidence,
  TestChangeKind,
  type TestRunComparison,
  TestRunComparisonSchema,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { TestStatus } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { TestRunEndReason } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { RunResults } from "../run-results.ts";
import { type AlignedTest, alignTests } from "./aligned-test.ts";
import { type Difference, passedOnBoth, sortDifferences, toTestChange } from "./change.ts";
import { classifyStatus } from "./classify.ts";
import { type ComparabilityCheck, checkComparability, type Statement } from "./comparability.ts";
import { compareCoverage } from "./coverage.ts";
import { type DurationJudgement, judgeDurations } from "./judge-durations.ts";
import { type CommonShift, machineSpeed } from "./machine-speed.ts";
import { recommend } from "./recommend.ts";
import { proposeRenames, type Rename } from "./renames.ts";
import { speaksOfDurations, summarise } from "./summary.ts";

export interface CompareOptions {
  /** At most so many changes are told, the most serious first. Default 1,000. */
  readonly maxChanges?: number;
}

const DEFAULT_MAX_CHANGES = 1_000;

/** Compares two sets of runs. Pure: the same runs give the same comparison. */
export function compareRuns(
  base: readonly RunResults[],
  head: readonly RunResults[],
  options: CompareOptions = {},
): TestRunComparison {
  const tests = alignTests(base, head);
  const check = checkComparability(base, head, tests);
  const speed = machineSpeed(tests.filter(passedOnBoth), base.length, head.length);
  const renames = check.comparable ? renamesAmong(tests) : [];
  const differences = differencesOf(tests, check, {
    durations: durationsOf(tests, check, speed),
    shift: speed.shift,
    renames,
    crashed: head.some(crashedByItself),
  });
  const sorted = sortDifferences(differences);
  const coverage = compareCoverage(base, head);
  const maxChanges = options.maxChanges ?? DEFAULT_MAX_CHANGES;
  return create(TestRunComparisonSchema, {
    base: base.map(({ run }) => run),
    head: head.map(({ run }) => run),
    comparability: { comparable: check.comparable, issues: [...check.issues] },
    summary: summarise(differences, check, speed.shift),
    changes: sorted.slice(0, maxChanges).map(toTestChange),
    changesTruncated: sorted.length > maxChanges,
    transitions: transitionsOf(tests),
    ...(coverage && { coverage }),
    recommendations: recommend({
      differences: sorted,
      check,
      shift: speed.shift,
      renames,
      coverage,
      baseRuns: base.length,
      headRuns: head.length,
    }),
    proposedRenames: renames.map(({ from, to, similarity, evidence }) => ({
      from,
      to,
      similarity,
      evidence,
    })),
  });
}

function renamesAmong(tests: readonly AlignedTest[]): Rename[] {
  return proposeRenames(
    tests.filter(({ head }) => head.outcome === "absent"),
    tests.filter(({ base }) => base.outcome === "absent"),
  );
}

/** Judgements of the tests that passed on both sides, by `test_id`. */
function durationsOf(
  tests: readonly AlignedTest[],
  check: ComparabilityCheck,
  speed: Parameters<typeof judgeDurations>[1],
): ReadonlyMap<string, DurationJudgement> {
  const passed = tests.filter(passedOnBoth);
  const judgements = judgeDurations(passed, speed);
  return new Map(
    passed.flatMap(({ testId }, index) => {
      const judgement = judgements[index];
      // Sides that cannot be compared have durations, but no statements about them.
      return judgement
        ? [[testId, check.comparable ? judgement : { ...judgement, direction: undefined }]]
        : [];
    }),
  );
}

interface Facts {
  readonly durations: ReadonlyMap<string, DurationJudgement>;
  readonly shift: CommonShift;
  readonly renames: readonly Rename[];
  /** True when the runner of head ended before its tests, and nothing outside of it is known to be the reason. */
  readonly crashed: boolean;
}

function differencesOf(tests: readonly AlignedTest[], check: ComparabilityCheck, facts: Facts): Difference[] {
  const filesOfHead = new Set(
    tests.flatMap(({ test, head }) => (head.outcome === "absent" ? [] : test.file)),
  );
  const renamed = new Set(facts.renames.map(({ fromId }) => fromId));
  const trustsDurations = speaksOfDurations(check, facts.shift);

  function isRegression(kind: TestChangeKind, aligned: AlignedTest, duration?: DurationJudgement): boolean {
    const { base, head, test, testId } = aligned;
    switch (kind) {
      case TestChangeKind.NEWLY_FAILING:
        return true;
      case TestChangeKind.LOST:
        // Tests that never began are victims; those that were running may be the reason.
        return base.outcome === "good" && head.status === TestStatus.INTERRUPTED && facts.crashed;
      case TestChangeKind.REMOVED:
        return (
          base.outcome === "good" && !check.headPartial && filesOfHead.has(test.file) && !renamed.has(testId)
        );
      case TestChangeKind.SLOWER:
        return trustsDurations && duration?.beyondNoise === true;
      default:
        return false;
    }
  }

  return tests.map((aligned): Difference => {
    const duration = facts.durations.get(aligned.testId);
    const found = classifyStatus(aligned, check.sameCode) ?? durationChange(duration);
    if (found === undefined) {
      return { aligned, kind: undefined, regression: false, verdict: undefined, duration };
    }
    const { kind } = found;
    const timed = kind === TestChangeKind.SLOWER || kind === TestChangeKind.FASTER;
    return {
      aligned,
      kind,
      regression: check.comparable && isRegression(kind, aligned, duration),
      verdict: weaken(found.verdict, timed ? "duration" : "status", check, timed && facts.shift.environment),
      // What is unstable in its outcome is so in its duration.
      duration:
        kind === TestChangeKind.UNSTABLE && duration ? { ...duration, direction: undefined } : duration,
    };
  });
}

function durationChange(
  duration: DurationJudgement | undefined,
): { kind: TestChangeKind; verdict: DurationJudgement["verdict"] } | undefined {
  return duration?.direction === undefined
    ? undefined
    : {
        kind: duration.direction === "slower" ? TestChangeKind.SLOWER : TestChangeKind.FASTER,
        verdict: duration.verdict,
      };
}

/** Takes one step of confidence away where something besides the code differs. */
function weaken(
  verdict: DurationJudgement["verdict"],
  statement: Statement,
  check: ComparabilityCheck,
  environment: boolean,
): DurationJudgement["verdict"] {
  const { confidence = Confidence.UNSPECIFIED } = verdict;
  return (check.weakened.has(statement) || environment) && confidence > Confidence.LOW
    ? { ...verdict, confidence: confidence - 1 }
    : verdict;
}

function crashedByItself({ run }: RunResults): boolean {
  switch (run.end?.reason) {
    case TestRunEndReason.CRASHED:
    case TestRunEndReason.TIMEOUT:
    case TestRunEndReason.RUNNER_ERROR:
      return true;
    default:
      return false;
  }
}

function transitionsOf(tests: readonly AlignedTest[]): { from: TestStatus; to: TestStatus; count: number }[] {
  const transitions = new Map<string, { from: TestStatus; to: TestStatus; count: number }>();
  for (const { base, head } of tests) {
    const key = `${base.status}:${head.status}`;
    const known = transitions.get(key);
    if (known) {
      known.count++;
    } else {
      transitions.set(key, { from: base.status, to: head.status, count: 1 });
    }
  }
  return [...transitions.values()].sort((a, b) => a.from - b.from || a.to - b.to);
}
