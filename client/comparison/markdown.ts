import {
  type ComparisonSummary,
  RecommendationPriority,
  type TestChange,
  type TestRunComparison,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { markdownBlock, markdownCell, markdownCode } from "./markdown-text.ts";
import { type ComparisonRow, type ComparisonSection, comparisonRows } from "./rows.ts";
import { durationWords, percentWords, performanceWords, qualityWords, testName } from "./words.ts";

/** GitHub refuses comments above 65,536 characters. */
export const MAX_MARKDOWN_CHARS = 60_000;

/** Of one kind of change, so many tests are listed. */
const MAX_ROWS = 100;
const MAX_FAILURES = 20;
const MAX_COVERAGE_FILES = 50;
const MAX_RENAMES = 50;
const MAX_EVIDENCE = 10;

/**
 * A comparison as Markdown for a pull request: what matters in a table, the rest to unfold. It holds no links, and names
 * and messages of tests appear as code, so that nothing in them can be markup. At most 60,000 characters: whole parts are
 * left out at the end, and it says so.
 */
export function renderMarkdown(comparison: TestRunComparison): string {
  const { summary } = comparison;
  const sections = comparisonRows(comparison);
  const parts = [
    titleOf(comparison),
    issuesOf(comparison),
    summary ? summaryTable(summary, comparison) : "",
    recommendationsOf(comparison),
    ...sections.map((section) => changesOf(section)),
    failuresOf(comparison.changes),
    coverageOf(comparison),
    renamesOf(comparison),
    comparison.changesTruncated
      ? "_There are more changes than are listed here; the numbers above are complete._"
      : "",
  ].filter((part) => part !== "");
  return joinWithin(parts, MAX_MARKDOWN_CHARS);
}

const CUT = "_More was left out to keep this short._";

/** As many whole parts as fit, in order. */
function joinWithin(parts: readonly string[], maxChars: number): string {
  const kept: string[] = [];
  let length = CUT.length + 3;
  for (const part of parts) {
    if (length + part.length + 2 <= maxChars) {
      kept.push(part);
      length += part.length + 2;
    }
  }
  return `${[...kept, ...(kept.length < parts.length ? [CUT] : [])].join("\n\n")}\n`;
}

function titleOf({ summary, comparability, base, head }: TestRunComparison): string {
  const state =
    comparability?.comparable === false
      ? "⚪ Tests cannot be compared"
      : summary?.regression
        ? "🔴 Tests: regression"
        : summary?.improvement
          ? "🟢 Tests: improvement"
          : "⚪ Tests: no regression";
  return [
    `### ${state}`,
    "",
    markdownCode(summary?.headline ?? "", 1_000),
    "",
    `Base: ${runsWords(base)}. Head: ${runsWords(head)}.`,
  ].join("\n");
}

function runsWords(runs: readonly TestRun[]): string {
  const commits = [...new Set(runs.flatMap(({ context }) => context?.commit.slice(0, 12) || []))];
  const shown = commits.slice(0, 3).map((commit) => markdownCode(commit));
  const at = shown.length === 0 ? "" : ` at ${shown.join(", ")}${commits.length > 3 ? ", …" : ""}`;
  const project = runs[0]?.project ? ` of ${markdownCode(runs[0].project)}` : "";
  return `${runs.length} ${runs.length === 1 ? "run" : "runs"}${project}${at}`;
}

function issuesOf({ comparability }: TestRunComparison): string {
  const issues = comparability?.issues ?? [];
  return issues
    .map(
      ({ reason, message, blocks }) =>
        `- ${blocks ? "⛔" : "⚠️"} ${markdownCode(`${reason}: ${message}`, 500)}`,
    )
    .join("\n");
}

function summaryTable(summary: ComparisonSummary, { coverage }: TestRunComparison): string {
  const rows: [string, string][] = [
    ["newly failing", number(summary.newlyFailing)],
    ["fixed", number(summary.fixed)],
    ["still failing", number(summary.stillFailing)],
    ["unstable", number(summary.unstable)],
    ["added / removed", `${number(summary.added)} / ${number(summary.removed)}`],
    ["slower / faster", `${number(summary.slower)} / ${number(summary.faster)}`],
    ["unchanged", number(summary.unchanged)],
    ["pass rate", `${rate(summary.basePassRate)} → ${rate(summary.headPassRate)}`],
    ["time of tests", timeWords(summary)],
    ["quality", qualityWords[summary.quality]],
    ["performance", performanceWords[summary.performance]],
    ...(coverage
      ? [["line coverage", `${points(coverage.lineDelta)} points`] satisfies [string, string]]
      : []),
  ];
  return table(["", ""], rows);
}

function timeWords({ durationDelta, durationDeltaPercent }: ComparisonSummary): string {
  const percent = durationDeltaPercent === undefined ? "" : ` (${percentWords(durationDeltaPercent)})`;
  return `${durationWords(durationDelta, true)}${percent}`;
}

function number(value: number): string {
  return value.toLocaleString("en");
}

function rate(share: number): string {
  // Rounded down, so that 100 % means all.
  return `${(Math.floor(share * 10_000) / 100).toFixed(2)} %`;
}

function points(delta: number): string {
  return `${delta > 0 ? "+" : ""}${delta.toFixed(2)}`;
}

function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(titles), line(titles.map(() => "---")), ...rows.map(line)].join("\n");
}

const priorityWords: Readonly<Record<RecommendationPriority, string>> = {
  [RecommendationPriority.UNSPECIFIED]: "",
  [RecommendationPriority.HIGH]: "now",
  [RecommendationPriority.MEDIUM]: "soon",
  [RecommendationPriority.LOW]: "some time",
};

function recommendationsOf({ recommendations }: TestRunComparison): string {
  if (recommendations.length === 0) {
    return "";
  }
  const items = recommendations.flatMap(({ text, priority, evidence }) => [
    `- **${priorityWords[priority]}:** ${markdownCode(text, 500)}`,
    ...evidence.slice(0, MAX_EVIDENCE).map((fact) => `  - ${markdownCode(fact)}`),
  ]);
  return ["#### What to do", "", ...items].join("\n");
}

function changesOf({ title, rows }: ComparisonSection): string {
  const shown = rows.slice(0, MAX_ROWS).map((row) => [testCell(row), changeCell(row), row.confidence]);
  const more = rows.length > MAX_ROWS ? `\n\nand ${number(rows.length - MAX_ROWS)} more` : "";
  const open = rows.some(({ regression }) => regression);
  return details(
    `${title}: ${number(rows.length)}`,
    table(["test", "change", "confidence"], shown) + more,
    open,
  );
}

function testCell({ file, name }: ComparisonRow): string {
  return file === "" ? markdownCell(name) : `${markdownCell(name)}<br>${markdownCell(file)}`;
}

function changeCell({ change, delta }: ComparisonRow): string {
  return delta === "" ? change : `${change}, ${delta}`;
}

/** `summary` is our own text. */
function details(summary: string, body: string, open = false): string {
  return `<details${open ? " open" : ""}><summary>${summary}</summary>\n\n${body}\n\n</details>`;
}

function failuresOf(changes: readonly TestChange[]): string {
  const failed = changes.filter(({ failure }) => failure !== undefined);
  if (failed.length === 0) {
    return "";
  }
  const blocks = failed.slice(0, MAX_FAILURES).map(({ test, failure }) => {
    const text = [failure?.type, failure?.message, failure?.stack].filter(Boolean).join("\n");
    return `${markdownCode(testName(test))}\n\n${markdownBlock(text)}`;
  });
  const more = failed.length > MAX_FAILURES ? [`and ${number(failed.length - MAX_FAILURES)} more`] : [];
  return details(`failures: ${number(failed.length)}`, [...blocks, ...more].join("\n\n"));
}

function coverageOf({ coverage }: TestRunComparison): string {
  if (coverage === undefined || coverage.files.length === 0) {
    return "";
  }
  const rows = coverage.files
    .slice(0, MAX_COVERAGE_FILES)
    .map(({ file, basePercent, headPercent, lost, gained }) => [
      markdownCell(file),
      percentOrNone(basePercent),
      percentOrNone(headPercent),
      rangeWords(lost),
      rangeWords(gained),
    ]);
  const { files } = coverage;
  const more = files.length > rows.length ? `\n\nand ${number(files.length - rows.length)} more files` : "";
  const body = table(["file", "base", "head", "lines lost", "lines gained"], rows) + more;
  return details(`coverage: ${points(coverage.lineDelta)} points of lines`, body);
}

function percentOrNone(percent: number | undefined): string {
  return percent === undefined ? "–" : `${percent.toFixed(1)} %`;
}

function rangeWords(ranges: readonly { readonly first: number; readonly last: number }[]): string {
  const shown = ranges
    .slice(0, 20)
    .map(({ first, last }) => (first === last ? `${first}` : `${first}–${last}`));
  return shown.join(", ") + (ranges.length > shown.length ? ", …" : "");
}

function renamesOf({ proposedRenames }: TestRunComparison): string {
  if (proposedRenames.length === 0) {
    return "";
  }
  const rows = proposedRenames
    .slice(0, MAX_RENAMES)
    .map(({ from, to, similarity, evidence }) => [
      `${markdownCell(testName(from))}<br>${markdownCell(from?.file ?? "")}`,
      `${markdownCell(testName(to))}<br>${markdownCell(to?.file ?? "")}`,
      `${Math.round(100 * similarity)} %: ${markdownCell(evidence)}`,
    ]);
  const more =
    proposedRenames.length > MAX_RENAMES
      ? `\n\nand ${number(proposedRenames.length - MAX_RENAMES)} more`
      : "";
  return details(
    `perhaps renamed: ${number(proposedRenames.length)}`,
    table(["from", "to", "alike"], rows) + more,
  );
}
