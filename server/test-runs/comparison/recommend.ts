import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  Confidence,
  type CoverageComparisonSchema,
  RecommendationPriority,
  type RecommendationSchema,
  TestChangeKind,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { fullName } from "../test-id.ts";
import type { Difference } from "./change.ts";
import type { ComparabilityCheck } from "./comparability.ts";
import { countText, percentText } from "./duration-text.ts";
import type { CommonShift } from "./machine-speed.ts";
import type { Rename } from "./renames.ts";

type RecommendationInit = MessageInitShape<typeof RecommendationSchema>;
type CoverageInit = MessageInitShape<typeof CoverageComparisonSchema>;

/** Of each kind, so many tests are named as evidence and so many can be run again. */
const MAX_NAMED = 5;
const MAX_RERUN = 1_000;
/** Runs a side from which on durations are judged by statistics. */
const ENOUGH_RUNS = 6;
const TEST_ID = /^[0-9a-f]{32}$/;

export interface Findings {
  /** Sorted, the most serious first. */
  readonly differences: readonly Difference[];
  readonly check: ComparabilityCheck;
  readonly shift: CommonShift;
  readonly renames: readonly Rename[];
  readonly coverage: CoverageInit | undefined;
  readonly baseRuns: number;
  readonly headRuns: number;
}

const { HIGH, MEDIUM, LOW } = RecommendationPriority;

/** What to do about what was found, the most pressing first. Each recommendation says what it rests on. */
export function recommend(findings: Findings): RecommendationInit[] {
  const { differences, check } = findings;
  const of = (...kinds: TestChangeKind[]) =>
    differences.filter(({ kind }) => kind !== undefined && kinds.includes(kind));
  const environment = checkEnvironment(findings);
  if (!check.comparable) {
    return environment;
  }
  const removed = of(TestChangeKind.REMOVED, TestChangeKind.NEWLY_SKIPPED);
  return [
    ...about(
      "CHECK_LOST_TESTS",
      HIGH,
      of(TestChangeKind.LOST),
      true,
      (n) => `Find out why the runner ended: ${countText(n, "test")} did not finish or did not run.`,
    ),
    ...about(
      "FIX_NEW_FAILURES",
      HIGH,
      of(TestChangeKind.NEWLY_FAILING, TestChangeKind.ADDED_FAILING),
      true,
      (n) => `Fix ${countText(n, "test")} that ${n === 1 ? "fails" : "fail"} now.`,
    ),
    ...environment,
    ...confirm(differences),
    ...about(
      "INVESTIGATE_SLOWDOWN",
      MEDIUM,
      of(TestChangeKind.SLOWER).filter(({ duration }) => duration?.beyondNoise),
      true,
      (n) => `Find out why ${countText(n, "test")} became slower.`,
    ),
    ...about(
      "STABILISE_FLAKY_TESTS",
      MEDIUM,
      of(TestChangeKind.UNSTABLE),
      true,
      (n) => `Stabilise ${countText(n, "test")} that ${n === 1 ? "does" : "do"} not always end alike.`,
    ),
    ...coverLostLines(findings.coverage),
    ...about(
      "CONFIRM_REMOVALS",
      removed.some(({ regression }) => regression) ? MEDIUM : LOW,
      removed,
      false,
      (n) =>
        `Confirm that ${countText(n, "test")} ${n === 1 ? "was" : "were"} taken away or skipped on purpose.`,
    ),
    ...confirmRenames(findings.renames),
    ...collectMoreRuns(findings),
  ].sort((a, b) => (a.priority ?? 0) - (b.priority ?? 0));
}

function about(
  kind: string,
  priority: RecommendationPriority,
  differences: readonly Difference[],
  rerunHelps: boolean,
  text: (count: number) => string,
): RecommendationInit[] {
  if (differences.length === 0) {
    return [];
  }
  return [
    {
      kind,
      priority,
      text: text(differences.length),
      evidence: evidenceOf(differences),
      ...(rerunHelps && rerunOf(differences)),
    },
  ];
}

function evidenceOf(differences: readonly Difference[]): string[] {
  const named = differences.slice(0, MAX_NAMED).map(({ aligned, verdict }) => {
    const place = aligned.test.file === "" ? "" : `${aligned.test.file}: `;
    return `${place}${fullName(aligned.test)} (${verdict?.explanation ?? ""})`;
  });
  const more = differences.length - named.length;
  return more > 0 ? [...named, `and ${more.toLocaleString("en")} more`] : named;
}

/** The tests to run again, where their ids can be used in a request. */
function rerunOf(differences: readonly Difference[]): Pick<RecommendationInit, "rerun"> {
  const testIds = differences
    .map(({ aligned }) => aligned.testId)
    .filter((id) => TEST_ID.test(id))
    .slice(0, MAX_RERUN);
  return testIds.length === 0 ? {} : { rerun: { testIds } };
}

function checkEnvironment({ check, shift }: Findings): RecommendationInit[] {
  const differing = check.issues.filter(({ reason }) => reason !== "SAME_COMMIT" && reason !== "DIRTY_TREE");
  const evidence = differing.slice(0, 10).map(({ reason, message }) => `${reason}: ${message}`);
  if (shift.environment) {
    evidence.push(
      `${Math.round(100 * shift.agreement)} % of ${countText(shift.tests, "test")} moved together, in the median by ${percentText(100 * (shift.ratio - 1))}`,
    );
  }
  if (evidence.length === 0) {
    return [];
  }
  const text = check.comparable
    ? "Check what else differs between the sides before blaming the code."
    : "Compare runs that can be compared: of one project, complete, in healthy environments.";
  return [{ kind: "CHECK_ENVIRONMENT", priority: check.comparable ? MEDIUM : HIGH, text, evidence }];
}

/** What may be chance: what one observation a side says, and slower tests within the noise. */
function confirm(differences: readonly Difference[]): RecommendationInit[] {
  const doubtful = differences.filter(
    ({ kind, verdict, duration }) =>
      ((kind === TestChangeKind.NEWLY_FAILING || kind === TestChangeKind.SLOWER) &&
        verdict?.confidence === Confidence.LOW) ||
      (kind === TestChangeKind.SLOWER && !duration?.beyondNoise),
  );
  return about(
    "RERUN_TO_CONFIRM",
    MEDIUM,
    doubtful,
    true,
    (n) => `Run ${countText(n, "test")} again to confirm what may be chance.`,
  );
}

function coverLostLines(coverage: CoverageInit | undefined): RecommendationInit[] {
  const losers = (coverage?.files ?? []).filter(({ lost }) => (lost?.length ?? 0) > 0);
  if (losers.length === 0) {
    return [];
  }
  const evidence = losers.slice(0, MAX_NAMED).map(({ file, lost, basePercent, headPercent }) => {
    const ranges = (lost ?? []).map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`));
    const shown = ranges.slice(0, 10).join(", ") + (ranges.length > 10 ? ", …" : "");
    return `${file}: lines ${shown} no longer run (${(basePercent ?? 0).toFixed(1)} % → ${(headPercent ?? 0).toFixed(1)} %)`;
  });
  const text = `Cover what tests no longer reach in ${countText(losers.length, "file")}.`;
  return [{ kind: "COVER_LOST_LINES", priority: MEDIUM, text, evidence }];
}

function confirmRenames(renames: readonly Rename[]): RecommendationInit[] {
  if (renames.length === 0) {
    return [];
  }
  const evidence = renames
    .slice(0, MAX_NAMED)
    .map(
      (rename) =>
        `${fullName(rename.from)} → ${fullName(rename.to)} (${rename.similarity.toFixed(2)}: ${rename.evidence})`,
    );
  const text = `Confirm that ${countText(renames.length, "test")} may have been renamed; their histories begin anew.`;
  return [{ kind: "CONFIRM_RENAMES", priority: LOW, text, evidence }];
}

function collectMoreRuns({ differences, baseRuns, headRuns }: Findings): RecommendationInit[] {
  const unsure = differences.filter(
    ({ kind, verdict }) =>
      (kind === TestChangeKind.SLOWER || kind === TestChangeKind.FASTER) &&
      verdict?.confidence !== Confidence.HIGH,
  );
  if (unsure.length === 0 || Math.min(baseRuns, headRuns) >= ENOUGH_RUNS) {
    return [];
  }
  const text = `Compare at least ${ENOUGH_RUNS} runs a side: then durations are judged by statistics.`;
  const evidence = [
    `${countText(baseRuns, "run")} of base and ${countText(headRuns, "run")} of head; ${countText(unsure.length, "change")} of duration below high confidence`,
  ];
  return [{ kind: "COLLECT_MORE_RUNS", priority: LOW, text, evidence, ...rerunOf(unsure) }];
}
