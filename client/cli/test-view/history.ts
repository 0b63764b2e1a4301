import type {
  ChangePoint,
  Flakiness,
  ProjectHistory,
  TestHistory,
} from "@toolplane/gen/toolplane/testing/v1/history_pb.js";
import type { Colors } from "picocolors/types.js";
import { shortRunId } from "../../reporting/run-id.ts";
import { type Cell, renderColumns } from "../output/columns.ts";
import { renderFacts, section } from "../output/facts.ts";
import { durationMs, formatAge, formatDuration, formatShare } from "../output/format.ts";
import { formatMinute } from "../output/keys.ts";
import { sparkline } from "../output/sparkline.ts";
import { oneLine } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import { endedTests, testRunState, testStatus, testTitle } from "./states.ts";
import { confidence, performanceTrend, qualityTrend } from "./trends.ts";

/** How many results, or runs, are listed, and how many of them are drawn as bars. */
const MAX_ROWS = 20;
const MAX_BARS = 60;

/** What a test did over many runs. */
export function renderTestHistory(terminal: Terminal, history: TestHistory): string {
  const { paint, io } = terminal;
  const facts = renderFacts(paint, [
    ["id", history.testId],
    ["passed", history.runs === 0 ? "" : `${formatShare(history.passRate)} of ${history.runs} runs`],
    ["takes", medianText(history)],
    ["durations", bars(history.entries.map(({ duration }) => duration && durationMs(duration)))],
    ["first seen", formatMinute(history.firstSeen)],
    ["last seen", formatAge(history.lastSeen, io.now())],
  ]);
  const entries = history.entries.slice(0, MAX_ROWS);
  return [
    paint.bold(oneLine(testTitle(history.test))),
    ...(facts === "" ? [] : [facts]),
    ...section(paint, "Flakiness", renderFlakiness(terminal, history.flakiness)),
    ...renderChangePoints(terminal, history.changePoints),
    ...section(paint, "Results", renderEntries(terminal, entries)),
    ...(history.entries.length > entries.length
      ? [paint.dim(`… and ${history.entries.length - entries.length} earlier ones`)]
      : []),
  ].join("\n");
}

function medianText({ medianDuration, p95Duration }: TestHistory): string {
  if (medianDuration === undefined) return "";
  const p95 = p95Duration === undefined ? "" : `, ${formatDuration(p95Duration)} in the slowest of twenty`;
  return `${formatDuration(medianDuration)}${p95}`;
}

/** The oldest on the left. */
function bars(values: readonly (number | undefined)[]): string {
  const known = values.filter((value) => value !== undefined).slice(0, MAX_BARS);
  return known.length < 2 ? "" : sparkline(known.toReversed());
}

function renderFlakiness({ paint }: Terminal, flakiness: Flakiness | undefined): string {
  if (flakiness?.score === undefined) return "  not known: too few runs";
  const word = flakiness.flaky ? paint.yellow("▲ flaky") : paint.green("✓ steady");
  const trust = confidence(flakiness.confidence);
  return [
    `  ${word}, score ${flakiness.score.toFixed(2)}${trust === "" ? "" : `, ${trust}`}`,
    ...flakiness.evidence.map(({ kind, explanation }) => `  ${oneLine(explanation || kind)}`),
  ].join("\n");
}

function renderChangePoints({ paint }: Terminal, points: readonly ChangePoint[]): string[] {
  if (points.length === 0) return [];
  const lines = points.map((point) => {
    const change = `${formatDuration(point.before)} → ${formatDuration(point.after)}`;
    const percent = point.percent === undefined ? "" : ` (${signed(Math.round(point.percent))} %)`;
    const commit = point.commit === "" ? "" : `, commit ${oneLine(point.commit.slice(0, 10))}`;
    return `  ${change}${percent} from run ${oneLine(shortRunId(point.runId))} on${commit}`;
  });
  return section(paint, "Durations changed", lines.join("\n"));
}

function renderEntries(terminal: Terminal, entries: TestHistory["entries"]): string {
  const { paint, io } = terminal;
  return renderColumns(
    [
      { title: "STATUS" },
      { title: "TIME", align: "right" },
      { title: "ATTEMPTS", align: "right", optional: true },
      { title: "RUN" },
      { title: "COMMIT", optional: true },
      { title: "BRANCH", minWidth: 8, optional: true },
      { title: "WHEN" },
      { title: "MESSAGE", minWidth: 12, optional: true },
    ],
    entries.map((entry) => [
      testStatus(entry.status, paint),
      formatDuration(entry.duration),
      entry.attempts > 1 ? String(entry.attempts) : "",
      notCounted(entry, paint),
      entry.commit.slice(0, 10),
      entry.branch,
      formatAge(entry.time, io.now()),
      entry.message,
    ]),
    terminal.columns("  "),
  );
}

/** What a project did over many runs. */
export function renderProjectHistory(terminal: Terminal, history: ProjectHistory): string {
  const { paint } = terminal;
  const facts = renderFacts(paint, [
    ["quality", qualityTrend(history.quality, paint).text],
    ["performance", performanceTrend(history.performance, paint).text],
    ["pass rates", bars(history.points.map(({ passRate }) => passRate))],
    ["test time", bars(history.points.map(({ testTime }) => testTime && durationMs(testTime)))],
  ]);
  return [
    paint.bold(oneLine(history.project)),
    facts,
    // Two verdicts may have one reason.
    ...[...new Set(history.verdicts.map(({ explanation }) => explanation))]
      .filter((explanation) => explanation !== "")
      .map((explanation) => `  ${paint.dim(oneLine(explanation))}`),
    ...renderFlakyTests(terminal, history.flakyTests),
    ...renderChangePoints(terminal, history.changePoints),
    ...section(paint, "Runs", renderPoints(terminal, history.points.slice(0, MAX_ROWS))),
    ...(history.points.length > MAX_ROWS
      ? [paint.dim(`… and ${history.points.length - MAX_ROWS} earlier ones`)]
      : []),
  ].join("\n");
}

function renderFlakyTests(terminal: Terminal, tests: readonly TestHistory[]): string[] {
  if (tests.length === 0) return [];
  const { paint } = terminal;
  const table = renderColumns(
    [
      { title: "SCORE", align: "right" },
      { title: "TEST", minWidth: 20 },
      { title: "PASSED", align: "right" },
      { title: "WHY", minWidth: 16, optional: true },
    ],
    tests
      .slice(0, MAX_ROWS)
      .map((test) => [
        { text: (test.flakiness?.score ?? 0).toFixed(2), style: paint.yellow },
        testTitle(test.test),
        formatShare(test.passRate),
        test.flakiness?.evidence[0]?.explanation ?? "",
      ]),
    terminal.columns("  "),
  );
  const hidden = tests.length - MAX_ROWS;
  const more = hidden > 0 ? `\n${paint.dim(`  … and ${hidden} more`)}` : "";
  return section(paint, "Flaky tests", table + more);
}

function renderPoints(terminal: Terminal, points: ProjectHistory["points"]): string {
  const { paint, io } = terminal;
  return renderColumns(
    [
      { title: "STATE" },
      { title: "TESTS", align: "right" },
      { title: "PASSED", align: "right" },
      { title: "TEST TIME", align: "right" },
      { title: "COVERED", align: "right", optional: true },
      { title: "RUN" },
      { title: "COMMIT", optional: true },
      { title: "WHEN" },
    ],
    points.map((point) => [
      testRunState(point.state, paint),
      endedTests(point.counts).toLocaleString("en"),
      formatShare(point.passRate),
      formatDuration(point.testTime),
      point.lineCoverage === undefined ? "" : formatShare(point.lineCoverage / 100),
      notCounted(point, paint),
      point.commit.slice(0, 10),
      formatAge(point.time, io.now()),
    ]),
    terminal.columns("  "),
  );
}

export function signed(value: number): string {
  return value > 0 ? `+${value}` : String(value);
}

function notCounted(
  { runId, excluded }: { readonly runId: string; readonly excluded: boolean },
  paint: Colors,
): Cell {
  const id = shortRunId(runId);
  return excluded ? { text: `${id} (not counted)`, style: paint.dim } : id;
}
