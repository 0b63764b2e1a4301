import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ComparabilityIssueSchema } from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import {
  type TestRun,
  type TestRunContext,
  TestRunEndReason,
  TestRunState,
  type TestSelection,
} from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { RunResults } from "../run-results.ts";
import type { AlignedTest } from "./aligned-test.ts";

/** What a difference besides the code may weaken. */
export type Statement = "status" | "duration" | "coverage";

type IssueInit = MessageInitShape<typeof ComparabilityIssueSchema>;

export interface ComparabilityCheck {
  /** False: nothing may be called a regression. */
  readonly comparable: boolean;
  readonly issues: readonly IssueInit[];
  /** What cannot be trusted as it could be. */
  readonly weakened: ReadonlySet<Statement>;
  /** True when both sides tested one commit, without local changes, in the same place: differences are chance. */
  readonly sameCode: boolean;
  /** True when head may lack tests for other reasons than that they were taken away. */
  readonly headPartial: boolean;
}

/** Of the smaller side, below these shares of common tests the comparison is worthless, or weak. */
const FEW_COMMON = 0.1;
const SOME_COMMON = 0.5;

/** Looks for what stands in the way of a comparison, before anything is compared. */
export function checkComparability(
  base: readonly RunResults[],
  head: readonly RunResults[],
  tests: readonly AlignedTest[],
): ComparabilityCheck {
  const baseRuns = base.map(({ run }) => run);
  const headRuns = head.map(({ run }) => run);
  const places = placeIssues(baseRuns, headRuns);
  const selection = selectionIssue(baseRuns, headRuns);
  const same = places.length === 0 && selection === undefined ? sameCommit(baseRuns, headRuns) : undefined;
  const runs = [
    ...baseRuns.flatMap((run) => runIssues("base", run)),
    ...headRuns.flatMap((run) => runIssues("head", run)),
  ];
  const issues = [
    ...testIssues(tests),
    ...runs,
    ...places,
    ...(selection ? [selection] : []),
    ...(same === undefined ? [] : [sameCommitIssue(same)]),
    ...dirtyIssues(baseRuns, headRuns),
  ].sort((a, b) => Number(b.blocks) - Number(a.blocks));
  return {
    comparable: issues.every(({ blocks }) => !blocks),
    issues,
    weakened: new Set(issues.flatMap(({ weakens }) => (weakens ?? []) as Statement[])),
    sameCode: same !== undefined,
    headPartial: selection !== undefined || headRuns.some((run) => runIssues("head", run).length > 0),
  };
}

function issue(reason: string, message: string, weakens: readonly Statement[], blocks = false): IssueInit {
  return { reason, message, blocks, weakens: [...weakens] };
}

const everything: readonly Statement[] = ["status", "duration", "coverage"];

function testIssues(tests: readonly AlignedTest[]): IssueInit[] {
  const inBase = tests.filter(({ base }) => base.outcome !== "absent").length;
  const inHead = tests.filter(({ head }) => head.outcome !== "absent").length;
  if (inBase === 0 || inHead === 0) {
    const empty =
      inBase === 0 ? (inHead === 0 ? "neither side has" : "base does not have") : "head does not have";
    return [issue("NO_TESTS", `${empty} any tests`, everything, true)];
  }
  const common = inBase + inHead - tests.length;
  const share = common / Math.min(inBase, inHead);
  if (share >= SOME_COMMON) {
    return [];
  }
  const message = `only ${common} tests are on both sides, of ${inBase} in base and ${inHead} in head`;
  return [issue("FEW_COMMON_TESTS", message, everything, share < FEW_COMMON)];
}

function runIssues(side: string, run: TestRun): IssueInit[] {
  const name = `${side} run ${run.id}`;
  switch (run.state) {
    case TestRunState.UNSPECIFIED:
    case TestRunState.QUEUED:
    case TestRunState.RUNNING:
      return [issue("RUN_IN_PROGRESS", `${name} has not ended; compare again then`, everything, true)];
    case TestRunState.CANCELLED:
    case TestRunState.ERROR:
    case TestRunState.PASSED:
    case TestRunState.FAILED:
  }
  if (run.end?.infrastructureFailure) {
    const message = `${name} failed because of its environment, not of its tests`;
    return [issue("INFRASTRUCTURE_FAILURE", message, everything, true)];
  }
  if (run.state === TestRunState.CANCELLED || run.state === TestRunState.ERROR) {
    const reason = TestRunEndReason[run.end?.reason ?? TestRunEndReason.UNSPECIFIED];
    const why = run.state === TestRunState.CANCELLED ? "CANCELLED" : reason;
    return [issue("RUN_INCOMPLETE", `${name} did not run to its end (${why})`, ["status", "coverage"])];
  }
  return [];
}

/** How a fact about runs is named, read, and what its difference means. */
interface Place {
  readonly reason: string;
  readonly noun: string;
  readonly read: (run: TestRun) => string;
  readonly weakens: readonly Statement[];
  readonly blocks?: boolean;
}

const fromContext = (key: "platform" | "runtime" | "frameworkVersion") => (run: TestRun) =>
  run.context?.[key] ?? "";

const placesToCheck: readonly Place[] = [
  {
    reason: "PROJECT_DIFFERS",
    noun: "project",
    read: (run) => run.project,
    weakens: everything,
    blocks: true,
  },
  {
    reason: "FRAMEWORK_DIFFERS",
    noun: "framework",
    read: (run) => run.framework,
    weakens: everything,
    blocks: true,
  },
  {
    reason: "FRAMEWORK_DIFFERS",
    noun: "framework version",
    read: fromContext("frameworkVersion"),
    weakens: ["duration"],
  },
  {
    reason: "ENVIRONMENT_DIFFERS",
    noun: "environment",
    read: (run) => run.environment,
    weakens: ["status", "duration"],
  },
  {
    reason: "PLATFORM_DIFFERS",
    noun: "platform",
    read: fromContext("platform"),
    weakens: ["status", "duration"],
  },
  {
    reason: "RUNTIME_DIFFERS",
    noun: "runtime",
    read: fromContext("runtime"),
    weakens: ["duration", "coverage"],
  },
];

function placeIssues(base: readonly TestRun[], head: readonly TestRun[]): IssueInit[] {
  return placesToCheck.flatMap(({ reason, noun, read, weakens, blocks }) => {
    const before = valuesOf(base, read);
    const after = valuesOf(head, read);
    // What a side does not say cannot differ.
    return before === "" || after === "" || before === after
      ? []
      : [issue(reason, `the ${noun} was ${before} in base and is ${after} in head`, weakens, blocks)];
  });
}

/** The different values of a side, in order, empty ones left out. */
function valuesOf(runs: readonly TestRun[], read: (run: TestRun) => string): string {
  return [...new Set(runs.map(read).filter((value) => value !== ""))].sort().join(" and ");
}

function selectionIssue(base: readonly TestRun[], head: readonly TestRun[]): IssueInit | undefined {
  const describe = (runs: readonly TestRun[]) =>
    [...new Set(runs.map(({ selection }) => describeSelection(selection)))].sort().join(" and ");
  const before = describe(base);
  const after = describe(head);
  return before === after
    ? undefined
    : issue("SELECTION_DIFFERS", `base ran ${shorten(before)}, head ran ${shorten(after)}`, [
        "status",
        "coverage",
      ]);
}

const MAX_SELECTION_CHARS = 200;

function describeSelection(selection: TestSelection | undefined): string {
  const parts = [
    ["files", selection?.files.toSorted().join(", ")],
    ["names like", selection?.namePattern],
    ["tags", selection?.tags.toSorted().join(", ")],
    ["what failed in", selection?.failedInRun],
    ["tests", selection?.testIds.toSorted().join(", ")],
  ].flatMap(([noun, value]) => (value ? [`${noun} ${value}`] : []));
  return parts.join("; ") || "all tests";
}

function shorten(text: string): string {
  return text.length <= MAX_SELECTION_CHARS ? text : `${text.slice(0, MAX_SELECTION_CHARS)}…`;
}

/** The one commit of all runs, when no run had local changes. */
function sameCommit(base: readonly TestRun[], head: readonly TestRun[]): string | undefined {
  const contexts: readonly (TestRunContext | undefined)[] = [...base, ...head].map(({ context }) => context);
  const commit = contexts[0]?.commit;
  return commit && contexts.every((context) => context?.commit === commit && !context.dirty)
    ? commit
    : undefined;
}

function sameCommitIssue(commit: string): IssueInit {
  const message = `both sides tested commit ${commit}: what differs between them is not due to the code`;
  return issue("SAME_COMMIT", message, []);
}

function dirtyIssues(base: readonly TestRun[], head: readonly TestRun[]): IssueInit[] {
  const dirty = [...base, ...head].filter(({ context }) => context?.dirty);
  const message = `${dirty.length === 1 ? "a run" : `${dirty.length} runs`} had changes that no commit names`;
  return dirty.length === 0 ? [] : [issue("DIRTY_TREE", message, [])];
}
