import { ReportFormat } from "@toolplane/gen/toolplane/testing/v1/test_run_service_pb.js";
import type { TestEventInit } from "../runners/runner.ts";
import { createCoberturaReader } from "./coverage/cobertura-reader.ts";
import { createGoCoverReader } from "./coverage/go-cover-reader.ts";
import { createIstanbulReader } from "./coverage/istanbul-reader.ts";
import { createLcovReader } from "./coverage/lcov-reader.ts";
import { createCtrfReader } from "./ctrf/ctrf-reader.ts";
import { DETECTION_BYTES, detectFormat } from "./detect.ts";
import { createGoTestReader } from "./go-test/go-test-reader.ts";
import { createJunitReader } from "./junit/junit-reader.ts";
import {
  defaultReportLimits,
  type FormatReader,
  type ParseReportOptions,
  type ReportLimits,
  type ReportOutcome,
} from "./report.ts";
import { createReportSink, type ReportSink } from "./report-sink.ts";

/** Larger chunks are read in pieces, so that the events of one piece are few. */
const PIECE_BYTES = 64 * 1024;

/**
 * Makes events of a report, while it is read: results, coverage, output and problems. Whatever the report holds, this
 * does not throw; only a source that fails makes it throw. A broken report gives an ERROR problem that names the place,
 * and everything that stands before it. Returns what came of it.
 *
 * @example
 * ```ts
 * for await (const event of parseReport(createReadStream("junit.xml"), { root: process.cwd() })) {
 *   await report(event);
 * }
 * ```
 */
export async function* parseReport(
  source: AsyncIterable<Uint8Array>,
  options: ParseReportOptions = {},
): AsyncGenerator<TestEventInit, ReportOutcome> {
  const sink = createReportSink(options.project);
  let reader: FormatReader | undefined;
  let format = options.format ?? ReportFormat.UNSPECIFIED;
  let beginning = Buffer.alloc(0);

  function begin(): FormatReader {
    if (format === ReportFormat.UNSPECIFIED) {
      format = detectFormat(beginning, options.fileName);
    }
    return createReader(format, options, sink);
  }

  for await (const chunk of source) {
    for (let from = 0; from < chunk.length; from += PIECE_BYTES) {
      const piece = chunk.subarray(from, from + PIECE_BYTES);
      if (reader !== undefined) {
        reader.write(piece);
      } else {
        beginning = Buffer.concat([beginning, piece]);
        if (beginning.length >= DETECTION_BYTES) {
          reader = begin();
          reader.write(beginning);
        }
      }
      yield* sink.take();
    }
  }
  if (reader === undefined) {
    reader = begin();
    reader.write(beginning);
  }
  reader.end();
  sink.end();
  yield* sink.take();
  return { format, tests: sink.tests, coveredFiles: sink.coveredFiles, failure: sink.failure };
}

function createReader(format: ReportFormat, options: ParseReportOptions, sink: ReportSink): FormatReader {
  const limits: ReportLimits = { ...defaultReportLimits, ...options.limits };
  switch (format) {
    case ReportFormat.JUNIT_XML:
      return createJunitReader(options, sink, limits);
    case ReportFormat.CTRF:
      return createCtrfReader(options, sink, limits);
    case ReportFormat.GO_TEST_JSON:
      return createGoTestReader(options, sink, limits);
    case ReportFormat.LCOV:
      return createLcovReader(options, sink, limits);
    case ReportFormat.ISTANBUL_JSON:
      return createIstanbulReader(options, sink, limits);
    case ReportFormat.COBERTURA:
      return createCoberturaReader(options, sink, limits);
    case ReportFormat.GO_COVER:
      return createGoCoverReader(options, sink, limits);
    case ReportFormat.UNSPECIFIED:
      sink.error(
        "the format of the report cannot be found out from its beginning or its file name; name the format",
        "line 1, column 1",
      );
      return { write: () => {}, end: () => {} };
  }
}
