export { type ExecuteOptions, execute } from "./execute.ts";
export { detectRunner, runnerOf, runners } from "./find-runner.ts";
export { createOccurrences, type TestIdentityInit } from "./occurrences.ts";
export { type ReadFile, reportReader } from "./report-files.ts";
export {
  type OutputParser,
  type PreparedRunner,
  type Runner,
  type RunnerEnd,
  RunnerError,
  type RunnerKind,
  type RunnerPlan,
  type RunnerSelection,
  type TestEventInit,
} from "./runner.ts";
export {
  createSpoolWriter,
  type FollowOptions,
  followSpool,
  MAX_SPOOL_LINE_BYTES,
  SPOOL_VARIABLE,
  type SpoolBatch,
  type SpoolWriter,
} from "./spool.ts";
