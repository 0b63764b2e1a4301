export { coverageTotals, mergeCoverage } from "./coverage/merge.ts";
