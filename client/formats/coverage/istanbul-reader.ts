import istanbul from "istanbul-lib-coverage";
import type { FormatReader, ParseReportOptions, ReportLimits } from "../report.ts";
import type { FileCoverageInit, ReportSink } from "../report-sink.ts";
import { createJsonReader, objectOf, textOf } from "../text/json.ts";
import { createPathRule } from "../text/paths.ts";
import { linesOf } from "./merge.ts";

/** Reads Istanbul's `coverage-final.json`. */
export function createIstanbulReader(
  options: ParseReportOptions,
  sink: ReportSink,
  limits: ReportLimits,
): FormatReader {
  const relative = createPathRule(options.root);
  return createJsonReader(sink, limits, 1, (document) => {
    const files = objectOf(document);
    if (files === undefined) {
      sink.error("this is not Istanbul's coverage: it is no object of files", "line 1");
      return;
    }
    for (const [name, value] of Object.entries(files)) {
      try {
        const path = textOf(objectOf(value)?.["path"]) || name;
        sink.coverage({ ...coverageOf(value), file: relative(path) || "(unknown)" });
      } catch {
        sink.error(
          "the coverage of a file is not as Istanbul writes it, and was left out",
          `file ${name.slice(0, 900)}`,
        );
      }
    }
  });
}

/** Throws for what is not Istanbul's. */
function coverageOf(value: unknown): Omit<FileCoverageInit, "file" | "$typeName"> {
  // Its shape is checked by Istanbul, which throws when something is missing.
  const data = value as istanbul.FileCoverageData;
  const coverage = istanbul.createFileCoverage(data);
  const hits = Object.entries(coverage.getLineCoverage()).map(
    ([line, count]) => [Number(line), Number(count)] as const,
  );
  const { branches, functions } = coverage.toSummary().data;
  return {
    lines: linesOf(new Map(hits)),
    branchesTotal: branches.total,
    branchesCovered: branches.covered,
    functionsTotal: functions.total,
    functionsCovered: functions.covered,
  };
}
