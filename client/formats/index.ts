export { coverageTotals, mergeCoverage } from "./coverage/merge.ts";
export { detectFormat } from "./detect.ts";
export { parseReport } from "./parse-report.ts";
export {
  defaultReportLimits,
  isReadable,
  type ParseReportOptions,
  type ReportLimits,
  type ReportOutcome,
} from "./report.ts";
