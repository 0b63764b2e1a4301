import type { FileCoverage, TestResult } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { Project, TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import type { Colors } from "picocolors/types.js";
import { shortRunId } from "../../reporting/run-id.ts";
import { type Cell, renderColumns } from "../output/columns.ts";
import { formatAge, formatDuration, formatShare } from "../output/format.ts";
import type { Terminal } from "../terminal.ts";
import { endedTests, runVerdict, testStatus, testTitle } from "./states.ts";

/** A table of runs, one a line. */
export function renderRuns(terminal: Terminal, runs: readonly TestRun[]): string {
  const { paint, io } = terminal;
  return renderColumns(
    [
      { title: "RUN" },
      { title: "PROJECT", minWidth: 8 },
      { title: "ENVIRONMENT", minWidth: 7, optional: true },
      { title: "STATE" },
      { title: "TESTS", align: "right" },
      { title: "FAILED", align: "right" },
      { title: "TIME", align: "right", optional: true },
      { title: "BRANCH", minWidth: 8, optional: true },
      { title: "COMMIT", optional: true },
      { title: "STARTED" },
    ],
    runs.map((run) => [
      shortRunId(run.id),
      { text: run.project, style: paint.bold },
      run.environment,
      runVerdict(run, paint),
      endedTests(run.counts).toLocaleString("en"),
      failedCell(run, paint),
      formatDuration(run.duration),
      run.context?.branch ?? "",
      shortCommit(run),
      formatAge(run.startTime ?? run.createTime, io.now()),
    ]),
    terminal.columns(),
  );
}

function failedCell({ counts }: TestRun, paint: Colors): Cell {
  const failed = (counts?.failed ?? 0) + (counts?.errors ?? 0) + (counts?.interrupted ?? 0);
  return failed === 0 ? "" : { text: failed.toLocaleString("en"), style: paint.red };
}

function shortCommit({ context }: TestRun): string {
  const commit = context?.commit.slice(0, 10) ?? "";
  return context?.dirty === true ? `${commit}+` : commit;
}

/** A table of results, one a line. */
export function renderResults(terminal: Terminal, results: readonly TestResult[]): string {
  return renderColumns(
    [
      { title: "STATUS" },
      { title: "TEST", minWidth: 20 },
      { title: "TIME", align: "right" },
      { title: "ATTEMPTS", align: "right", optional: true },
    ],
    results.map((result) => [
      testStatus(result.status, terminal.paint),
      testTitle(result.test),
      formatDuration(result.duration),
      result.attempts.length > 1 ? String(result.attempts.length) : "",
    ]),
    terminal.columns(),
  );
}

/** A table of projects, one a line. */
export function renderProjects(terminal: Terminal, projects: readonly Project[]): string {
  const { paint, io } = terminal;
  return renderColumns(
    [
      { title: "PROJECT", minWidth: 8 },
      { title: "RUNNER" },
      { title: "ENVIRONMENTS", minWidth: 10 },
      { title: "RUNS", align: "right" },
      { title: "LATEST" },
      { title: "WHEN" },
      { title: "WHAT IT IS", minWidth: 12, optional: true },
    ],
    projects.map((project) => [
      { text: project.name, style: paint.bold },
      project.runner,
      project.environments.join(", "),
      project.runCount.toLocaleString("en"),
      project.latestRun === undefined ? "" : runVerdict(project.latestRun, paint),
      project.latestRun === undefined ? "" : formatAge(project.latestRun.createTime, io.now()),
      project.description,
    ]),
    terminal.columns(),
  );
}

/** A table of what tests cover, one file a line, with the lines that did not run. */
export function renderCoverage(terminal: Terminal, files: readonly FileCoverage[]): string {
  const { paint } = terminal;
  return renderColumns(
    [
      { title: "FILE", minWidth: 16 },
      { title: "LINES", align: "right" },
      { title: "BRANCHES", align: "right", optional: true },
      { title: "FUNCTIONS", align: "right", optional: true },
      { title: "NOT RUN", minWidth: 8 },
    ],
    files.map((file) => {
      const covered = file.lines.filter(({ hits }) => hits > 0).length;
      return [
        { text: file.file, style: paint.bold },
        shareCell(covered, file.lines.length),
        shareCell(file.branchesCovered, file.branchesTotal),
        shareCell(file.functionsCovered, file.functionsTotal),
        { text: missedLines(file), style: paint.red },
      ];
    }),
    terminal.columns(),
  );
}

export function shareCell(covered: number, total: number): string {
  return total === 0 ? "" : formatShare(covered / total);
}

/** Lines that hold code and did not run, neighbours as ranges: `3, 7-12`. */
export function missedLines({ lines }: FileCoverage): string {
  const ranges: { first: number; last: number }[] = [];
  let isOpen = false;
  for (const { line, hits } of lines) {
    const current = ranges.at(-1);
    if (hits > 0) isOpen = false;
    else if (isOpen && current !== undefined) current.last = line;
    else {
      ranges.push({ first: line, last: line });
      isOpen = true;
    }
  }
  return ranges.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(", ");
}
