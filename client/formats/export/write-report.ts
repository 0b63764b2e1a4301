import type { FileCoverage, TestResult } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import type { TestRun } from "@toolplane/gen/toolplane/testing/v1/test_run_pb.js";
import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import { writeCobertura, writeLcov } from "./coverage-writers.ts";
import { writeCtrf } from "./ctrf-writer.ts";
import { writeGoTest } from "./go-test-writer.ts";
import { writeJunit } from "./junit-writer.ts";
import { UnsupportedExportError } from "./unsupported.ts";

/** What a run is written from. Only what the format tells of is read. */
export interface ReportSource {
  readonly run: TestRun;
  results(): AsyncIterable<TestResult>;
  coverage(): AsyncIterable<FileCoverage>;
}

/** A report that is written while it is read. */
export interface WrittenReport {
  readonly fileName: string;
  readonly mediaType: string;
  readonly text: AsyncIterable<string>;
}

/** Writes a run in a format; UNSPECIFIED is JUnit XML. Throws an `UnsupportedExportError`. */
export function writeReport(format: ReportFormat, source: ReportSource): WrittenReport {
  const { run } = source;
  const name = `${run.project.replace(/[^\w.-]+/g, "-") || "run"}-${run.id.slice(0, 8)}`;
  switch (format) {
    case ReportFormat.UNSPECIFIED:
    case ReportFormat.JUNIT_XML:
      return {
        fileName: `${name}.junit.xml`,
        mediaType: "application/xml",
        text: writeJunit(run, source.results()),
      };
    case ReportFormat.CTRF:
      return {
        fileName: `${name}.ctrf.json`,
        mediaType: "application/json",
        text: writeCtrf(run, source.results()),
      };
    case ReportFormat.GO_TEST_JSON:
      if (run.framework !== "go-test") {
        throw new UnsupportedExportError(
          `a run of ${run.framework || "an unknown framework"} cannot be written as what go test writes; use JUnit XML or CTRF`,
        );
      }
      return {
        fileName: `${name}.jsonl`,
        mediaType: "application/x-ndjson",
        text: writeGoTest(source.results()),
      };
    case ReportFormat.LCOV:
      requireCoverage(run);
      return { fileName: `${name}.info`, mediaType: "text/plain", text: writeLcov(source.coverage()) };
    case ReportFormat.COBERTURA:
      requireCoverage(run);
      return {
        fileName: `${name}.cobertura.xml`,
        mediaType: "application/xml",
        text: writeCobertura(source.coverage()),
      };
    case ReportFormat.ISTANBUL_JSON:
    case ReportFormat.GO_COVER:
      throw new UnsupportedExportError(
        "this format tells columns and blocks, and lines are kept of coverage; use lcov or Cobertura",
      );
  }
}

function requireCoverage({ coverage }: TestRun): void {
  if (coverage === undefined) {
    throw new UnsupportedExportError("the run has no coverage; measure it, or import it into the run");
  }
}
