import { shortRunId } from "./run-id.ts";
import type { UploadOutcome } from "./uploader.ts";

/** What became of an upload, in a sentence for people. */
export function describeOutcome(outcome: UploadOutcome): string {
  switch (outcome.kind) {
    case "finished":
      return `reported as test run ${shortRunId(outcome.run.id)}`;
    case "cancelled":
      return `test run ${shortRunId(outcome.runId)} was cancelled`;
    case "refused":
      return `${subject(outcome.runId)}: the server refused it (${outcome.error.rawMessage})`;
    case "unreachable":
      return `${subject(outcome.runId)}: the server could not be reached (${outcome.error.rawMessage})`;
  }
}

function subject(runId: string | undefined): string {
  return runId === undefined
    ? "tests were not reported"
    : `test run ${shortRunId(runId)} was not reported to its end`;
}
