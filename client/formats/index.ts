export { coverageTotals, mergeCoverage } from "./coverage/merge.ts";
export { detectFormat } from "./detect.ts";
export { UnsupportedExportError } from "./export/unsupported.ts";
export { type ReportSource, type WrittenReport, writeReport } from "./export/write-report.ts";
export { parseReport } from "./parse-report.ts";
export {
  defaultReportLimits,
  isReadable,
  type ParseReportOptions,
  type ReportLimits,
  type ReportOutcome,
} from "./report.ts";
