export type { Backoff } from "./streams/backoff.ts";
export { type Interruption, type ResumeOptions, resumingStream } from "./streams/resuming-stream.ts";
export { type RunNews, type WatchRunOptions, watchRun } from "./streams/watch-run.ts";
export { type ServiceEvent, type ServiceFilterInit, watchServices } from "./streams/watch-services.ts";
export { type TestRunNews, type WatchTestRunOptions, watchTestRun } from "./streams/watch-test-run.ts";
export { callTool, callToolStream, type ToolArguments, type ToolCallOptions } from "./tool-calls.ts";
export { createToolplane, type TokenSource, type Toolplane, type ToolplaneOptions } from "./toolplane.ts";
