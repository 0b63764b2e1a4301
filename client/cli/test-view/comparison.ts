import {
  type Comparability,
  type ComparisonSummary,
  type CoverageComparison,
  type LineRange,
  type Recommendation,
  RecommendationPriority,
  type TestRunComparison,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { Colors } from "picocolors/types.js";
import { comparisonRows, type RowTone } from "../../comparison/rows.ts";
import { shortRunId } from "../../reporting/run-id.ts";
import { type Cell, renderColumns } from "../output/columns.ts";
import { section } from "../output/facts.ts";
import { count, durationMs, formatMs } from "../output/format.ts";
import { oneLine } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { signed } from "./history.ts";
import { testTitle } from "./states.ts";
import { performanceTrend, qualityTrend } from "./trends.ts";

/** How many files with other coverage are named. */
const MAX_FILES = 10;

/** Two sets of runs, compared: the verdict first, then what it rests on, then what to do. */
export function renderComparison(terminal: Terminal, comparison: TestRunComparison): string {
  const { paint } = terminal;
  const { summary, comparability, changes, coverage } = comparison;
  return [
    verdictLine(paint, comparison),
    `  ${paint.dim("base")}  ${sideText(comparison.base)}`,
    `  ${paint.dim("head")}  ${sideText(comparison.head)}`,
    ...comparabilityLines(paint, comparability),
    ...(summary === undefined ? [] : ["", ...summaryLines(paint, summary)]),
    ...(changes.length === 0 ? [] : section(paint, "Changes", renderChanges(terminal, comparison))),
    ...(comparison.changesTruncated ? [paint.dim("  … and more; --limit lists more of them")] : []),
    ...(coverage === undefined ? [] : section(paint, "Coverage", renderCoverageChange(terminal, coverage))),
    ...renames(paint, comparison),
    ...recommendations(paint, comparison.recommendations),
  ].join("\n");
}

function verdictLine(paint: Colors, { comparability, summary }: TestRunComparison): string {
  const headline = oneLine(summary?.headline ?? "");
  if (comparability?.comparable === false)
    return `${paint.yellow("▲ not comparable")}  ${headline}`.trimEnd();
  if (summary?.regression === true) return `${paint.red("✗ regression")}  ${headline}`.trimEnd();
  if (summary?.improvement === true) return `${paint.green("✓ improvement")}  ${headline}`.trimEnd();
  return `${paint.green("✓ no regression")}  ${headline}`.trimEnd();
}

/** The runs of a side: what they are of, once, and which they are. */
function sideText(runs: readonly TestRun[]): string {
  const [first] = runs;
  if (first === undefined) return "no runs";
  const commit = first.context?.commit.slice(0, 10) ?? "";
  const of = [first.project, first.context?.branch ?? "", commit].filter((part) => part !== "").join(" ");
  const ids = runs.length > 3 ? count(runs.length, "run") : runs.map(({ id }) => shortRunId(id)).join(", ");
  return oneLine(`${of}  ${ids}`);
}

function comparabilityLines(paint: Colors, comparability: Comparability | undefined): string[] {
  return (comparability?.issues ?? []).map(({ message, reason, blocks }) => {
    const sign = blocks ? paint.red("✗") : paint.yellow("▲");
    return `  ${sign} ${oneLine(message || reason)}`;
  });
}

function summaryLines(paint: Colors, summary: ComparisonSummary): string[] {
  const quality = qualityTrend(summary.quality, paint);
  const performance = performanceTrend(summary.performance, paint);
  const parts = [
    { n: summary.newlyFailing, word: "newly failing", style: paint.red },
    { n: summary.stillFailing, word: "still failing", style: paint.yellow },
    { n: summary.slower, word: "slower", style: paint.yellow },
    { n: summary.unstable, word: "unstable", style: paint.yellow },
    { n: summary.removed, word: "removed", style: paint.yellow },
    { n: summary.fixed, word: "fixed", style: paint.green },
    { n: summary.faster, word: "faster", style: paint.green },
    { n: summary.added, word: "added", style: paint.cyan },
    { n: summary.unchanged, word: "unchanged", style: paint.dim },
  ].filter(({ n }) => n > 0);
  const { durationDelta, durationDeltaPercent } = summary;
  const time =
    durationDelta === undefined ? "" : `  ${change(durationMs(durationDelta), durationDeltaPercent)}`;
  return [
    `  quality ${quality.style(quality.text)}  performance ${performance.style(performance.text)}${time}`,
    `  ${parts.map(({ n, word, style }) => style(`${n.toLocaleString("en")} ${word}`)).join(", ")}`,
  ];
}

function renderChanges(terminal: Terminal, comparison: TestRunComparison): string {
  const { paint } = terminal;
  const rows = comparisonRows(comparison).flatMap(({ title, rows }) => rows.map((row) => ({ title, row })));
  return renderColumns(
    [
      { title: "WHAT" },
      { title: "TEST", minWidth: 20 },
      { title: "BASE → HEAD" },
      { title: "DIFFERENCE", align: "right" },
      { title: "CONFIDENCE", optional: true },
      { title: "WHY", minWidth: 12, optional: true },
    ],
    rows.map(({ title, row }) => [
      toned(title, row.tone, paint),
      row.file === "" ? row.name : `${row.file} > ${row.name}`,
      row.change,
      row.delta,
      row.confidence,
      row.message,
    ]),
    terminal.columns("  "),
  );
}

/** Every tone is a sign first; the colour only helps the eye. */
function toned(text: string, tone: RowTone, paint: Colors): Cell {
  switch (tone) {
    case "bad":
      return { text: `✗ ${text}`, style: paint.red };
    case "warning":
      return { text: `▲ ${text}`, style: paint.yellow };
    case "good":
      return { text: `✓ ${text}`, style: paint.green };
    case "neutral":
      return `+ ${text}`;
  }
}

/** A difference of durations: `+120 ms (+31 %)`. */
function change(ms: number, percent: number | undefined): string {
  const sign = ms < 0 ? "-" : "+";
  const share = percent === undefined ? "" : ` (${signed(Math.round(percent))} %)`;
  return `${sign}${formatMs(Math.abs(ms))}${share}`;
}

function renderCoverageChange(terminal: Terminal, coverage: CoverageComparison): string {
  const branches = coverage.branchDelta === undefined ? "" : `, branches ${points(coverage.branchDelta)}`;
  const files = coverage.files.slice(0, MAX_FILES);
  const hidden = coverage.files.length - files.length;
  return [
    `  lines ${points(coverage.lineDelta)}${branches}`,
    ...(files.length === 0 ? [] : [renderFiles(terminal, files)]),
    ...(hidden > 0 ? [terminal.paint.dim(`  … and ${count(hidden, "more file")}`)] : []),
  ].join("\n");
}

function renderFiles(terminal: Terminal, files: CoverageComparison["files"]): string {
  const { paint } = terminal;
  return renderColumns(
    [
      { title: "FILE", minWidth: 16 },
      { title: "BASE", align: "right" },
      { title: "HEAD", align: "right" },
      { title: "NO LONGER RUN", minWidth: 8 },
      { title: "RUN NOW", minWidth: 8, optional: true },
    ],
    files.map((file) => [
      { text: file.file, style: paint.bold },
      file.basePercent === undefined ? "" : `${file.basePercent.toFixed(1)} %`,
      file.headPercent === undefined ? "" : `${file.headPercent.toFixed(1)} %`,
      { text: ranges(file.lost), style: paint.red },
      { text: ranges(file.gained), style: paint.green },
    ]),
    terminal.columns("  "),
  );
}

function ranges(lines: readonly LineRange[]): string {
  return lines.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(", ");
}

function points(delta: number): string {
  return `${signed(Math.round(delta * 100) / 100)} points`;
}

function renames(paint: Colors, { proposedRenames }: TestRunComparison): string[] {
  if (proposedRenames.length === 0) return [];
  const lines = proposedRenames.map(
    ({ from, to, evidence }) =>
      `  ${oneLine(testTitle(from))} → ${oneLine(testTitle(to))}  ${paint.dim(oneLine(evidence))}`,
  );
  return section(paint, "Renamed, perhaps", lines.join("\n"));
}

function recommendations(paint: Colors, recommended: readonly Recommendation[]): string[] {
  if (recommended.length === 0) return [];
  const lines = recommended.flatMap(({ priority, text, evidence }) => [
    `  ${priorityText(priority, paint)}${oneLine(text)}`,
    ...evidence.map((each) => `      ${paint.dim(oneLine(each))}`),
  ]);
  return section(paint, "What to do", lines.join("\n"));
}

function priorityText(priority: RecommendationPriority, paint: Colors): string {
  switch (priority) {
    case RecommendationPriority.HIGH:
      return `${paint.red("first")}  `;
    case RecommendationPriority.MEDIUM:
      return `${paint.yellow("soon")}  `;
    case RecommendationPriority.LOW:
      return `${paint.dim("later")}  `;
    case RecommendationPriority.UNSPECIFIED:
      return "";
  }
}
